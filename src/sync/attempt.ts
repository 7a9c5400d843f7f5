/*
 * One attempt of the mover: its SYN, what an answer to that means, the CONFIRM and the mapping
 * that follow from a valid one.  Pure, and without states: those are in mover.ts.
 */
import type { Flow, Mapping } from '../boundary/abi.gen.js';
import type { Packet } from '../wire/packet.js';
import { type Seq, seqAdd } from '../wire/seq.js';
import type { Tuple } from '../wire/tuple.js';
import { epochAbove, mappingOf, placeTiack, REFUSAL, tiackOf } from './handshake.js';
import {
  isRstFrom,
  isSyncAckFrom,
  type Rst,
  type Sync,
  type SyncAck,
  signConfirm,
  signRst,
  signSync,
} from './keys.js';
import { mssOf, pureAck, resetOf, synSegment } from './segments.js';

/** The flow's keys as one end uses them. */
export interface EndKeys {
  ours: Uint8Array;
  theirs: Uint8Array;
}

/** What an attempt is made of: drawn and looked up by the driver, after egress is held, if it is. */
export interface Draw {
  kernel: Tuple;
  flow: Flow;
  /** Nothing leaves meanwhile, so that no ACK above its TIAck can. */
  held: boolean;
  keys: EndKeys;
  wire: Tuple;
  isn: Seq;
  nonce: number;
  /** Epochs of candidates that the other end has open with us. */
  pending: number[];
  mtu: number;
  redirect: boolean;
  /** Index of the interface by which the wire leaves; 0: the kernel's choice. */
  way: number;
}

export interface Attempt {
  kernel: Tuple;
  held: boolean;
  wire: Tuple;
  keys: EndKeys;
  isn: Seq;
  epoch: number;
  sync: Sync;
  syn: Packet;
  redirect: boolean;
  way: number;
}

/** An attempt with an epoch `by` above `newest`, if any, and above all that the flow knows of. */
export function newAttempt(d: Draw, newest: number | undefined, by: number): Attempt {
  const used = newest === undefined ? [] : [newest];
  const epoch = epochAbove([d.flow.epoch, ...used, ...d.pending], by);
  const sync = signSync(d.keys.ours, {
    kind: 'ti-sync',
    epoch,
    initiatorHalf: d.flow.initiator.tifidHalf,
    responderHalf: d.flow.responder.tifidHalf,
    tiack: tiackOf(d.flow),
    nonce: d.nonce,
  });
  const { kernel, held, wire, keys, isn, redirect, way } = d;
  const syn = synSegment({ wire, flow: d.flow, seq: isn, mss: mssOf(wire, d.mtu), sync });
  return { kernel, held, wire, keys, isn, epoch, sync, syn, redirect, way };
}

export type Answer =
  | { answer: 'none' } // not an answer to this SYN
  | { answer: 'refused' | 'reset' }
  | { answer: 'ghost' | 'tiack-behind' | 'invalid-tiack' }
  | { answer: 'overtaken' } // while the old path went on: the peer is there, and has more than we said
  | { answer: 'accepted'; syncAck: SyncAck };

/** RFC 9293, section 3.10.7.3: only what acknowledges our SYN answers it. */
export function judgeAnswer(attempt: Attempt, packet: Packet, flow: Flow): Answer {
  if (packet.ack !== seqAdd(attempt.isn, 1)) return { answer: 'none' };
  if (packet.flags.includes('R')) return judgeReset(attempt, packet);
  if (!packet.flags.startsWith('SA')) return { answer: 'none' };
  const syncAck = validSyncAck(attempt, packet);
  if (syncAck === undefined) return { answer: 'ghost' };
  switch (placeTiack(flow, syncAck.tiack)) {
    case 'within':
      return attempt.held || isAtRest(attempt, flow)
        ? { answer: 'accepted', syncAck }
        : { answer: 'overtaken' };
    case 'behind':
      return { answer: attempt.held ? 'tiack-behind' : 'overtaken' };
    case 'beyond':
      return { answer: 'invalid-tiack' };
  }
}

/** Nothing has left since its SYN that the peer has not got, and nothing of ours is on the way. */
const isAtRest = (attempt: Attempt, flow: Flow): boolean =>
  tiackOf(flow) === attempt.sync.tiack && flow.sndUna === flow.sndNxt;

export function judgeReset(
  attempt: Attempt,
  packet: Packet,
): { answer: 'refused' | 'reset' | 'overtaken' } {
  const option = packet.options.find((o): o is Rst => o.kind === 'ti-rst');
  if (option === undefined || option.epoch !== attempt.epoch) return { answer: 'refused' };
  if (!isRstFrom(attempt.keys.theirs, option)) return { answer: 'refused' };
  return { answer: option.reason === REFUSAL.tiack && !attempt.held ? 'overtaken' : 'reset' };
}

/** The TI_SYNC of a SYN/ACK, if the peer has made it for this SYN. */
export function validSyncAck(attempt: Attempt, packet: Packet): SyncAck | undefined {
  const option = packet.options.find((o): o is SyncAck => o.kind === 'ti-sync-ack');
  if (option === undefined || option.epoch !== attempt.epoch) return undefined;
  return isSyncAckFrom(attempt.keys.theirs, option, attempt.sync) ? option : undefined;
}

/** The CONFIRM for a valid SYN/ACK, and the mapping that it commits. */
export function acceptance(
  attempt: Attempt,
  o: { packet: Packet; syncAck: SyncAck; flow: Flow },
): { confirm: Packet; mapping: Mapping } {
  const { wire, keys, isn, epoch, sync, redirect, way } = attempt;
  const confirm = pureAck(wire, {
    seq: seqAdd(isn, 1),
    ack: seqAdd(o.packet.seq, 1),
    window: o.flow.windowOut,
    option: signConfirm(keys.ours, { kind: 'ti-confirm', epoch }, [sync, o.syncAck]),
  });
  const mapping = mappingOf(o.flow, {
    wire,
    isn: { ours: isn, theirs: o.packet.seq },
    tiack: { sent: sync.tiack, received: o.syncAck.tiack },
    redirect,
    way,
  });
  return { confirm, mapping };
}

/** Tells the peer, provably, that its TIAck cannot be. */
export const refusalOf = (attempt: Attempt, packet: Packet): Packet =>
  resetOf(
    packet,
    signRst(attempt.keys.ours, {
      kind: 'ti-rst',
      reason: REFUSAL.tiack,
      epoch: attempt.epoch,
    }),
  );
