/*
 * Both ends of one connection, for the tests of the synchronization: flows as the data plane
 * would have them, keys, and the packets of a handshake made by the machines themselves.
 */
import assert from 'node:assert/strict';
import { encodeTiOpen, type Flow, ROLE } from '../../src/boundary/abi.gen.js';
import type { Draw, EndKeys } from '../../src/sync/attempt.js';
import type { SyncReport } from '../../src/sync/event.js';
import type { Effect } from '../../src/sync/handshake.js';
import { type Confirm, deriveKeys, type Sync, type SyncAck } from '../../src/sync/keys.js';
import { type Answered, type Mover, newMover, stepMover } from '../../src/sync/mover.js';
import { type Candidate, type Syn, stepResponder } from '../../src/sync/responder.js';
import { address } from '../../src/wire/address.js';
import type { Packet } from '../../src/wire/packet.js';
import { seq, seqAdd } from '../../src/wire/seq.js';
import { type Tuple, tupleReverse } from '../../src/wire/tuple.js';
import { openedFlow, tiOpen } from '../sim/opened-flow.js';

export const KEY_INITIATOR = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
export const KEY_RESPONDER = Uint8Array.of(11, 12, 13, 14, 15, 16, 17, 18);

/** The mover is the server, the responder of the connection: the paper's case. */
export const MOVER_KERNEL: Tuple = {
  local: address('192.0.2.10'),
  remote: address('203.0.113.7'),
  localPort: 22,
  remotePort: 40_000,
};
export const PEER_KERNEL: Tuple = tupleReverse(MOVER_KERNEL);

export const MOVER_WIRE: Tuple = {
  ...MOVER_KERNEL,
  local: address('198.51.100.10'),
  localPort: 61_234,
};
export const PEER_WIRE: Tuple = tupleReverse(MOVER_WIRE);

export const ISN_MOVER = seq(0xffffff00);
export const ISN_PEER = seq(7000);

const ISS_MOVER = seq(0xfffffff0);
const ISS_PEER = seq(1000);

/** Bytes that the mover has sent, and that the peer has acknowledged of them; and so on. */
export interface Progress {
  moverSent: number;
  moverAcked: number;
  peerSent: number;
  peerAcked: number;
  /** Beyond what has been acknowledged to the other end: ACKs lost on the way. */
  peerGot: number;
  moverGot: number;
}

const NONE: Progress = {
  moverSent: 0,
  moverAcked: 0,
  peerSent: 0,
  peerAcked: 0,
  peerGot: 0,
  moverGot: 0,
};

export function flows(p: Partial<Progress> = {}): { mover: Flow; peer: Flow } {
  const o = { ...NONE, ...p };
  const opens = {
    initiator: tiOpen(0x0a0b0c0d, KEY_INITIATOR),
    responder: tiOpen(0x1a1b1c1d, KEY_RESPONDER),
  };
  const mover = openedFlow({
    ...opens,
    kernel: MOVER_KERNEL,
    role: ROLE.RESPONDER,
    iss: ISS_MOVER,
    irs: ISS_PEER,
  });
  const peer = openedFlow({
    ...opens,
    kernel: PEER_KERNEL,
    role: ROLE.INITIATOR,
    iss: ISS_PEER,
    irs: ISS_MOVER,
  });
  mover.sndNxt = seqAdd(ISS_MOVER, 1 + o.moverSent);
  mover.sndUna = seqAdd(ISS_MOVER, 1 + o.moverAcked);
  mover.rcvNxt = seqAdd(ISS_PEER, 1 + o.moverGot);
  peer.sndNxt = seqAdd(ISS_PEER, 1 + o.peerSent);
  peer.sndUna = seqAdd(ISS_PEER, 1 + o.peerAcked);
  peer.rcvNxt = seqAdd(ISS_MOVER, 1 + o.peerGot);
  return { mover, peer };
}

export function keysOf(flow: Flow): EndKeys {
  const keys = deriveKeys(encodeTiOpen(flow.initiator), encodeTiOpen(flow.responder));
  return flow.role === ROLE.INITIATOR
    ? { ours: keys.initiator, theirs: keys.responder }
    : { ours: keys.responder, theirs: keys.initiator };
}

export const drawOf = (flow: Flow, o: Partial<Draw> = {}): Draw => ({
  kernel: MOVER_KERNEL,
  flow,
  held: true,
  keys: keysOf(flow),
  wire: MOVER_WIRE,
  isn: ISN_MOVER,
  nonce: 0x5e5f6061,
  pending: [],
  mtu: 1500,
  redirect: false,
  way: 0,
  ...o,
});

export const begun = (flow: Flow, o: Partial<Draw> = {}) =>
  stepMover(newMover(), { event: 'begin', draw: drawOf(flow, o) });

export type SynSent = Extract<Mover, { state: 'syn-sent' }>;
export type Confirming = Extract<Mover, { state: 'confirming' }>;

export function synSent(flow: Flow, o: Partial<Draw> = {}): SynSent {
  const { next } = begun(flow, o);
  assert.ok(next.state === 'syn-sent');
  return next;
}

export const optionOf = <T>(packet: Packet, kind: string): T => {
  const option = packet.options.find((o) => o.kind === kind);
  assert.ok(option, `no ${kind}`);
  return option as T;
};

export const synOf = (peer: Flow, packet: Packet, o: Partial<Syn> = {}): Syn => ({
  packet,
  sync: optionOf<Sync>(packet, 'ti-sync'),
  kernel: PEER_KERNEL,
  wire: PEER_WIRE,
  flow: peer,
  keys: keysOf(peer),
  isn: ISN_PEER,
  nonce: 0x7e7f8081,
  objection: () => undefined,
  ...o,
});

export const answered = (peer: Flow, syn: Packet, o: Partial<Syn> = {}) =>
  stepResponder({ state: 'listening' }, { event: 'syn', syn: synOf(peer, syn, o) });

export function candidateOf(peer: Flow, syn: Packet, o: Partial<Syn> = {}): Candidate {
  const { next } = answered(peer, syn, o);
  assert.ok(next.state === 'pending');
  return next.candidate;
}

/** The peer's SYN/ACK to a mover's SYN. */
export const synAckTo = (mover: SynSent, peer: Flow, o: Partial<Syn> = {}): Packet =>
  candidateOf(peer, mover.attempt.syn, o).synAck;

/** A mover that has accepted the SYN/ACK of `peer`, and its effects. */
export function accepted(f: { mover: Flow; peer: Flow }, o: Partial<Answered> = {}) {
  const mover = synSent(f.mover);
  const packet = synAckTo(mover, f.peer);
  const { next, effects } = onPacket(mover, packet, f.mover, o);
  assert.ok(next.state === 'confirming');
  return { next, effects, synAck: packet };
}

export const confirmEvent = (packet: Packet, flow: Flow, redirect = false) => ({
  event: 'confirm' as const,
  packet,
  confirm: optionOf<Confirm>(packet, 'ti-confirm'),
  flow,
  redirect,
  silentMs: 0,
  objection: () => undefined,
});

/** Effects in short: 'hold', 'send SA', 'inject ICMP x5', 'arm 250', 'report failed no-answer'. */
export function brief(effects: Effect[]): string[] {
  const lines: string[] = [];
  for (const e of effects) {
    const line = briefOne(e);
    const last = lines.at(-1);
    const times = last?.startsWith(`${line} x`) ? Number(last.slice(line.length + 2)) : 1;
    if (line.startsWith('inject') && (last === line || times > 1))
      lines[lines.length - 1] = `${line} x${times + 1}`;
    else lines.push(line);
  }
  return lines;
}

function briefOne(e: Effect): string {
  switch (e.effect) {
    case 'send':
    case 'refuse':
      return `${e.effect} ${e.packet.flags}${tiKind(e.packet)}`;
    case 'inject':
      return `inject ${e.packet[9] === 6 ? 'ACK' : 'ICMP'}`;
    case 'arm':
      return `arm ${e.afterMs}`;
    case 'report':
      return `report ${briefReport(e.report)}`;
    default:
      return e.effect;
  }
}

const briefReport = (r: SyncReport): string =>
  r.type === 'failed'
    ? `failed ${r.reason}${r.final ? ' final' : ''}`
    : 'reason' in r
      ? `${r.type} ${r.reason}`
      : r.type;

const tiKind = (p: Packet): string => {
  const option = p.options.find((o) => o.kind.startsWith('ti-'));
  return option === undefined ? '' : ` ${option.kind}`;
};

/** A packet reaches the mover. */
export const onPacket = (
  mover: Mover,
  packet: Packet,
  flow = flows().mover,
  o: Partial<Answered> = {},
) => stepMover(mover, packetEvent(packet, flow, o));

export const packetEvent = (packet: Packet, flow: Flow, o: Partial<Answered> = {}) => ({
  ...{ event: 'packet' as const, packet, flow },
  ...{ silentMs: 0, waiting: 0 },
  ...o,
});

/** Something without a content happens to it. */
export const on = (mover: Mover, event: 'timer' | 'proven' | 'refused' | 'yield' | 'superseded') =>
  stepMover(mover, { event });

/** SYN/ACK with some of its TI_SYNC changed after it was signed. */
export const tampered = (packet: Packet, change: Partial<SyncAck>): Packet => ({
  ...packet,
  options: packet.options.map((o) => (o.kind === 'ti-sync-ack' ? { ...o, ...change } : o)),
});
