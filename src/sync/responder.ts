/*
 * The peer: the end that is told of the other's new address.  Pure; one machine per candidate,
 * that is per new address that someone claims for a flow.
 *
 *   listening --SYN--> TIFID known? MAC right? --no--> gone, bare RST   (a TIFID that nobody has
 *                      not reset here?         --no--> gone, TI_RST
 *                      epoch newer?            --no--> gone, silence     never gets this far)
 *                      TIAck within?           --no--> gone, TI_RST
 *                      nobody else's wire?     --no--> gone, bare RST or silence
 *                        | yes: SYN/ACK
 *                        v
 *                     pending --CONFIRM valid, epoch and TIAck still right--> committed
 *                      | ^ |
 *         same SYN: the`-' |--CONFIRM of one that TIAck has overtaken: TI_RST--> gone
 *         same SYN/ACK     |--valid TI_RST, 10 s, another candidate committed--> gone
 *                          `--CONFIRM with a wrong MAC: silence (stays pending)
 *
 * Another valid SYN on the wire of a candidate takes its place: a new attempt from the same port.
 * Until the CONFIRM the old mapping carries the flow and the new address is sent one SYN/ACK per
 * SYN: a captured SYN, replayed from anywhere, moves nothing and amplifies nothing.
 *
 * Why TIAck is looked at twice.  While the candidate is pending the old path may go on.  From
 * the true mover no ACK above its TIAck can come: it stopped sending before it took it.  If one
 * does come, two machines hold this flow (a clone, a restored snapshot), and the one that asks is
 * behind: what lies between its TIAck and SND.UNA is gone from our kernel and could never be sent.
 */
import { FLOW_FLAG, type Flow } from '../boundary/abi.gen.js';
import type { Packet } from '../wire/packet.js';
import { type Seq, seqAdd } from '../wire/seq.js';
import { type Tuple, tupleEqual } from '../wire/tuple.js';
import type { EndKeys } from './attempt.js';
import type { RefusalReason } from './event.js';
import {
  activeMapping,
  type Effect,
  type EffectFailure,
  epochIsNewer,
  mappingOf,
  placeTiack,
  REFUSAL,
  tiackOf,
} from './handshake.js';
import {
  type Confirm,
  isConfirmFrom,
  isRstFrom,
  isSyncFrom,
  type Rst,
  type Sync,
  type SyncAck,
  signRst,
  signSyncAck,
} from './keys.js';
import { commitEffects } from './kick.js';
import { pureAck, resetOf, synAckSegment } from './segments.js';

/** Longer than a mover's five SYNs; a candidate costs a wire entry. */
export const CANDIDATE_LIFETIME_MS = 10_000;

/** A claim to a flow, answered and not proven. */
export interface Candidate {
  kernel: Tuple;
  wire: Tuple;
  keys: EndKeys;
  sync: Sync;
  syncAck: SyncAck;
  /** Sequence numbers of the new wire: the SYN's and the SYN/ACK's. */
  isn: { ours: Seq; theirs: Seq };
  /** As it goes out again for each repetition of the SYN: TIAck and nonce stay. */
  synAck: Packet;
}

export type Responder =
  | { state: 'listening' }
  | { state: 'pending'; candidate: Candidate }
  | { state: 'committed'; candidate: Candidate }
  | { state: 'gone' };

/** A SYN with TI_SYNC for a flow that exists, and what the answer needs. */
export interface Syn {
  packet: Packet;
  sync: Sync;
  kernel: Tuple;
  /** As the answer sees it: local is where the SYN arrived. */
  wire: Tuple;
  flow: Flow;
  keys: EndKeys;
  isn: Seq;
  nonce: number;
  /** Why the wire cannot be claimed; asked only once the rest is right, since it asks the system. */
  objection(): RefusalReason | undefined;
}

/** A packet with TI_CONFIRM on a candidate's wire. */
export interface ConfirmPacket {
  packet: Packet;
  confirm: Confirm;
  flow: Flow;
  /** As of the SYN: somebody may have taken the wire since. */
  objection(): RefusalReason | undefined;
  /** For the mapping, if it is committed. */
  redirect: boolean;
  /** For how long nothing has come in on the flow. */
  silentMs: number;
}

export type ResponderEvent =
  | { event: 'syn'; syn: Syn }
  | ({ event: 'confirm' } & ConfirmPacket)
  | { event: 'reset'; packet: Packet }
  | { event: 'expired' } // or another candidate was committed
  | { event: 'effect-failed'; why: Exclude<EffectFailure, 'no-flow'> };

export interface ResponderStep {
  next: Responder;
  effects: Effect[];
}

type Pending = Extract<Responder, { state: 'pending' }>;

/** The next state and what to do.  An event that means nothing in a state changes nothing. */
export function stepResponder(responder: Responder, event: ResponderEvent): ResponderStep {
  switch (responder.state) {
    case 'listening':
      return event.event === 'syn' ? answerSyn(event.syn) : stay(responder);
    case 'pending':
      return stepPending(responder, event);
    case 'committed':
      // The map command refused: the wire is still pending, and nobody's.
      return event.event === 'effect-failed'
        ? drop(responder.candidate, refused(responder.candidate.wire, obstacleOf(event.why)))
        : stay(responder);
    case 'gone':
      return stay(responder);
  }
}

function answerSyn(syn: Syn): ResponderStep {
  const { packet, sync, flow, keys, wire } = syn;
  if (!isSyncFrom(keys.theirs, sync))
    return refuse(wire, 'bad-mac', { effect: 'refuse', packet: resetOf(packet) });
  // Bare, it could be a stranger's: the mover would wait before it believes it.
  if ((flow.flags & FLOW_FLAG.RESET) !== 0) {
    const rst = signedRefusal('ended', keys, sync, packet);
    return refuse(wire, 'ended', { effect: 'send', packet: rst });
  }
  // Its own, perhaps: we have committed more than it has heard of.
  if (!epochIsNewer(sync.epoch, flow.epoch))
    return refuse(wire, 'stale-epoch', { effect: 'refuse', packet: resetOf(packet) });
  if (placeTiack(flow, sync.tiack) !== 'within') {
    const rst = signedRefusal('tiack', keys, sync, packet);
    return refuse(wire, 'invalid-tiack', { effect: 'send', packet: rst });
  }
  const objection = syn.objection();
  if (objection !== undefined) return refuse(wire, objection, ...answerTo(objection, packet));
  const candidate = newCandidate(syn);
  const { epoch, tiack } = sync;
  return {
    next: { state: 'pending', candidate },
    effects: [
      { effect: 'set-wire', wire, state: 'pending', ack: seqAdd(candidate.isn.ours, 1) },
      { effect: 'send', packet: candidate.synAck },
      { effect: 'report', report: { type: 'candidate', wire, epoch, tiack } },
    ],
  };
}

function newCandidate(syn: Syn): Candidate {
  const { packet, sync, kernel, wire, flow, keys } = syn;
  const { epoch } = sync;
  const unsigned = { kind: 'ti-sync-ack', epoch, tiack: tiackOf(flow), nonce: syn.nonce } as const;
  const syncAck = signSyncAck(keys.ours, unsigned, sync);
  const synAck = synAckSegment({ wire, flow, seq: syn.isn, ack: seqAdd(packet.seq, 1), syncAck });
  const isn = { ours: syn.isn, theirs: packet.seq };
  return { kernel, wire, keys, sync, syncAck, isn, synAck };
}

function stepPending(responder: Pending, event: ResponderEvent): ResponderStep {
  const { candidate } = responder;
  switch (event.event) {
    case 'syn':
      return answerNextSyn(responder, event.syn);
    case 'confirm':
      return answerConfirm(responder, event);
    case 'reset':
      return isValidReset(candidate, event.packet) ? drop(candidate) : stay(responder);
    case 'expired':
      return drop(candidate);
    case 'effect-failed':
      return drop(candidate, refused(candidate.wire, obstacleOf(event.why)));
  }
}

/** The same SYN again: its SYN/ACK was lost.  A newer one from the same port replaces it. */
function answerNextSyn(responder: Pending, syn: Syn): ResponderStep {
  const { candidate } = responder;
  if (isSameSyn(candidate, syn)) {
    return { next: responder, effects: [{ effect: 'send', packet: candidate.synAck }] };
  }
  const { next, effects } = answerSyn(syn);
  return { next: next.state === 'pending' ? next : responder, effects };
}

function answerConfirm(responder: Pending, o: ConfirmPacket): ResponderStep {
  const { candidate } = responder;
  const { kernel, wire, keys, sync, syncAck } = candidate;
  const { epoch } = sync;
  if (!acknowledges(candidate, o.packet) || o.confirm.epoch !== epoch) return stay(responder);
  if (!isConfirmFrom(keys.theirs, o.confirm, [sync, syncAck])) {
    return { next: responder, effects: [refused(wire, 'bad-mac')] };
  }
  if (!epochIsNewer(epoch, o.flow.epoch)) return drop(candidate, refused(wire, 'stale-epoch'));
  if (placeTiack(o.flow, sync.tiack) !== 'within') {
    const rst: Effect = { effect: 'send', packet: signedRefusal('tiack', keys, sync, o.packet) };
    return drop(candidate, rst, refused(wire, 'invalid-tiack'));
  }
  const objection = o.objection();
  if (objection !== undefined)
    return drop(candidate, ...answerTo(objection, o.packet), refused(wire, objection));
  const mapping = mappingOf(o.flow, {
    wire,
    isn: candidate.isn,
    tiack: { sent: syncAck.tiack, received: sync.tiack },
    redirect: o.redirect,
  });
  const announce = pureAck(wire, {
    seq: seqAdd(candidate.isn.ours, 1),
    ack: seqAdd(candidate.isn.theirs, 1),
    window: o.flow.windowOut,
  });
  const { silentMs } = o;
  // The last window that has come is the CONFIRM's: the one before may have been closed on purpose.
  const flow = { ...o.flow, windowIn: o.packet.window };
  const commit = { kernel, flow, mapping, epoch, unproven: false, announce, silentMs };
  // The mover has mapped before it sent the CONFIRM: no need to wait for it.
  const both = commitEffects(commit);
  return {
    next: { state: 'committed', candidate },
    effects: [
      ...both.commit,
      ...both.kick,
      { effect: 'report', report: { type: 'committed', wire, epoch } },
    ],
  };
}

/**
 * The answer to a CONFIRM of what is committed already: the first answer was lost.  Needs no
 * memory of the handshake and checks no MAC: an ACK of the new wire's beginning, to the address
 * that the flow is mapped to, tells a stranger nothing and moves nothing.  Undefined: not one.
 */
export function answerRepeatedConfirm(
  flow: Flow,
  wire: Tuple,
  o: { packet: Packet; confirm: Confirm },
): Packet | undefined {
  const mapping = activeMapping(flow);
  if (mapping === undefined || !tupleEqual(mapping.wire, wire)) return undefined;
  const begins = {
    ours: seqAdd(mapping.sndBase, mapping.sndDelta),
    theirs: seqAdd(mapping.rcvBase, mapping.rcvDelta),
  };
  const { packet, confirm } = o;
  if (confirm.epoch !== flow.epoch) return undefined;
  if (packet.ack !== begins.ours || packet.seq !== begins.theirs) return undefined;
  return pureAck(wire, { seq: begins.ours, ack: begins.theirs, window: flow.windowOut });
}

/** The same SYN once more, not another attempt from the same port. */
const isSameSyn = (c: Candidate, syn: Syn): boolean =>
  syn.packet.seq === c.isn.theirs &&
  syn.sync.nonce === c.sync.nonce &&
  syn.sync.epoch === c.sync.epoch &&
  Buffer.compare(syn.sync.mac, c.sync.mac) === 0;

/** Whether a packet follows the SYN/ACK: RFC 9293, section 3.10.7.4, its SEQ and ACK. */
const acknowledges = (c: Candidate, packet: Packet): boolean =>
  packet.seq === seqAdd(c.isn.theirs, 1) && packet.ack === seqAdd(c.isn.ours, 1);

function isValidReset(c: Candidate, packet: Packet): boolean {
  const option = packet.options.find((o): o is Rst => o.kind === 'ti-rst');
  if (option === undefined || option.epoch !== c.sync.epoch) return false;
  return packet.seq === seqAdd(c.isn.theirs, 1) && isRstFrom(c.keys.theirs, option);
}

function signedRefusal(
  why: keyof typeof REFUSAL,
  keys: EndKeys,
  { epoch }: Sync,
  packet: Packet,
): Packet {
  return resetOf(packet, signRst(keys.ours, { kind: 'ti-rst', reason: REFUSAL[why], epoch }));
}

const obstacleOf = (why: Exclude<EffectFailure, 'no-flow'>): RefusalReason =>
  why === 'full' ? 'table-full' : why;

/** A true mover does better from another port; what none would claim is not answered. */
const answerTo = (objection: RefusalReason, packet: Packet): Effect[] =>
  objection === 'foreign-wire' ? [] : [{ effect: 'refuse', packet: resetOf(packet) }];

const refused = (wire: Tuple, reason: RefusalReason): Effect => ({
  effect: 'report',
  report: { type: 'refused', reason, wire },
});

const refuse = (wire: Tuple, reason: RefusalReason, ...answer: Effect[]): ResponderStep => ({
  next: { state: 'gone' },
  effects: [...answer, refused(wire, reason)],
});

function drop(candidate: Candidate, ...before: Effect[]): ResponderStep {
  const unused: Effect = { effect: 'delete-wire', wire: candidate.wire };
  return { next: { state: 'gone' }, effects: [...before, unused] };
}

const stay = (responder: Responder): ResponderStep => ({ next: responder, effects: [] });
