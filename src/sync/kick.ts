/*
 * The kick: what is put into the own kernel, and when, so that it sends over the new wire at
 * once instead of after its backed-off timer.  Pure.
 *
 * RFC 6069: an ICMP "unreachable" that quotes SND.UNA takes back one doubling of the timer, and
 * retransmits when that makes it due.  Measured: 2-12 ms after blackouts of 10 and 60 s, against
 * 3 s and 48 s without; duplicate ACKs, window updates and keepalives do nothing.
 *
 *   TIAck = SND.UNA   map, announce, release, then ICMPs: the retransmission is the first data
 *   TIAck > SND.UNA   hold, ICMPs quoting the old SND.UNA: what they set free is swallowed, for it
 *                     lies below the base; map; announce; ACK(TIAck): the kernel, its timer back
 *                     at the start, goes on from the base; release.  In another order: up to 3 s.
 *
 * "Announce" is the CONFIRM or its answer.  It leaves before release, so that the other end
 * is ready before any data comes, and after map: an end that died between the two would, had it
 * announced first, be left behind an epoch that its peer has committed.  The other way round the
 * flow stays held and unproven, which the next daemon finds and begins again.
 */
import { FLOW_FLAG, type Flow, type Mapping } from '../boundary/abi.gen.js';
import { hostUnreachable } from '../wire/icmp.js';
import { encodePacket, type Packet } from '../wire/packet.js';
import type { Seq } from '../wire/seq.js';
import { type Tuple, tupleReverse } from '../wire/tuple.js';
import { type Effect, firstUnacknowledged } from './handshake.js';
import { pureAck, quotedSegment } from './segments.js';

/** One is enough when it arrives in time; the kernel may be between two timers. */
const BURST = 5;

/** Each takes back one doubling: 200 ms to Linux' 120 s are ten, and spare. */
const BURST_HELD = 16;

export interface Commit {
  kernel: Tuple;
  flow: Flow;
  mapping: Mapping;
  epoch: number;
  unproven: boolean;
  /** What tells the other end: on the wire. */
  announce: Packet;
}

/**
 * Commits a mapping and wakes the own kernel.  Flows that look idle are kicked as well: what a
 * kernel sends while its link is down never gets to the boundary (it waits for a neighbour, or
 * meets a noop queue), and a kernel that has nothing in flight ignores the kick.
 */
export function commitEffects(c: Commit): Effect[] {
  const map: Effect[] = [
    { effect: 'map', mapping: c.mapping, epoch: c.epoch, unproven: c.unproven },
    { effect: 'report', report: { type: 'mapped', wire: c.mapping.wire, epoch: c.epoch } },
    { effect: 'send', packet: c.announce },
  ];
  const una = firstUnacknowledged(c.flow);
  if (c.mapping.sndBase === una) {
    return [...map, { effect: 'release' }, ...burst(c.kernel, c.flow, BURST)];
  }
  return [
    { effect: 'hold' },
    ...unreachables(c.kernel, una, BURST_HELD),
    ...map,
    { effect: 'inject', packet: encodePacket(localAck(c.kernel, c.flow, c.mapping.sndBase)) },
    { effect: 'release' },
    { effect: 'report', report: { type: 'kicked', icmps: BURST_HELD, localAck: true } },
  ];
}

/** Wakes the kernel of a flow whose path works again as it is. */
export function kickEffects(kernel: Tuple, flow: Flow): Effect[] {
  const held = (flow.flags & FLOW_FLAG.HELD) !== 0;
  return [...(held ? [{ effect: 'release' } as const] : []), ...burst(kernel, flow, BURST)];
}

function burst(kernel: Tuple, flow: Flow, count: number): Effect[] {
  return [
    ...unreachables(kernel, firstUnacknowledged(flow), count),
    { effect: 'report', report: { type: 'kicked', icmps: count, localAck: false } },
  ];
}

/** In kernel view, from the own address, as Linux itself says that a neighbour is missing. */
function unreachables(kernel: Tuple, una: Seq, count: number): Effect[] {
  const packet = hostUnreachable(encodePacket(quotedSegment(kernel, una)), kernel.local);
  return Array.from({ length: count }, () => ({ effect: 'inject', packet }));
}

/**
 * ACK(TIAck) as the peer would have sent it, in kernel view, without timestamps: a stale TSecr
 * makes Linux undo what the kick did.  SEQ is the highest ACK sent: never above RCV.NXT, never
 * below the left edge that the kernel checks against.
 */
const localAck = (kernel: Tuple, flow: Flow, ack: Seq): Packet =>
  pureAck(tupleReverse(kernel), { seq: flow.rcvNxt, ack, window: flow.windowIn });
