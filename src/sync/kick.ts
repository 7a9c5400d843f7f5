/*
 * The kick: what is put into the own kernel, and when, so that it sends over the new wire at
 * once instead of after its backed-off timer.  Pure.
 *
 * RFC 6069: an ICMP "unreachable" that quotes SND.UNA takes back one doubling of the timer, and
 * retransmits when that makes it due.  Measured: 2-12 ms after blackouts of 10 and 60 s, against
 * 3 s and 48 s without; window updates and keepalives do nothing.  A kernel that was written to
 * while it had no route probes for a window instead (probe0): only an ACK(SND.UNA) wakes it.
 *
 *             TIAck = SND.UNA            TIAck > SND.UNA
 *   commit                               hold, ICMPs quoting the old SND.UNA
 *             map, announce, release     map, announce, release
 *   kick      ICMPs, ACK(TIAck)          ACK(TIAck)
 *
 * The ICMPs of the right column wind the timer back; what they set free lies below the base, and
 * is swallowed.  Then the ACK makes the kernel go on from the base.  It comes after release, for
 * what it sets free leaves in the same call.  In another order: up to 3 s.
 *
 * "Announce" is the CONFIRM or its answer.  It leaves before release, so that the other end
 * is ready before any data comes, and after map: an end that died between the two would, had it
 * announced first, be left behind an epoch that its peer has committed.  The other way round the
 * flow stays held and unproven, which the next daemon finds and begins again.
 *
 * Commit and kick are two lists because the mover waits between them (mover.ts): its peer needs
 * some time for the CONFIRM, and drops what overtakes it.  A retransmission that is lost so cannot
 * be kicked again before a whole base RTO is over.  Release does not wait with the kick: the
 * peer's answer is an ACK(TIAck), too, and on a short path comes first; what that set free, and the
 * ACK of data behind it, would be swallowed.
 */
import { FLOW_FLAG, type Flow, type Mapping } from '../boundary/abi.gen.js';
import { hostUnreachable } from '../wire/icmp.js';
import { encodePacket, type Packet } from '../wire/packet.js';
import { type Seq, seqAdd } from '../wire/seq.js';
import { type Tuple, tupleReverse } from '../wire/tuple.js';
import type { Effect } from './handshake.js';
import { pureAck, quotedSegment } from './segments.js';
import { keepalive, seqInStead } from './stand-in.js';

/** The shortest time after which Linux sends again: TCP_RTO_MIN. */
const RTO_MIN_MS = 200;

/** One doubling of the timer is taken back by each: from 200 ms to 120 s there are ten. */
const ICMPS = { least: 2, most: 16, spare: 2 };

export interface Commit {
  kernel: Tuple;
  flow: Flow;
  mapping: Mapping;
  epoch: number;
  unproven: boolean;
  /** What tells the other end: on the wire. */
  announce: Packet;
  /** For how long nothing has come in. */
  silentMs: number;
}

/**
 * What commits a mapping, and what wakes the own kernel after that.  Flows that look idle are
 * kicked as well: what a kernel sends while its link is down never gets to the boundary (it waits
 * for a neighbour, or meets a noop queue), and a kernel that has nothing in flight ignores it.
 */
export function commitEffects(c: Commit): { commit: Effect[]; kick: Effect[] } {
  const { kernel, flow, mapping, epoch, unproven } = c;
  const una = flow.sndUna;
  const icmps = unreachables(kernel, una, icmpCount(c.silentMs));
  const map: Effect[] = [
    { effect: 'map', mapping, epoch, unproven },
    { effect: 'report', report: { type: 'mapped', wire: mapping.wire, epoch } },
    { effect: 'send', packet: c.announce },
    { effect: 'release' },
  ];
  const wake: Effect[] = [
    { effect: 'inject', packet: encodePacket(localAck(kernel, flow, mapping.sndBase)) },
    { effect: 'report', report: { type: 'kicked', icmps: icmps.length } },
  ];
  if (mapping.sndBase === una) return { commit: map, kick: [...icmps, ...wake] };
  const hold: Effect[] = isHeld(flow) ? [] : [{ effect: 'hold' }];
  return { commit: [...hold, ...icmps, ...lossIsReal(kernel, flow), ...map], kick: wake };
}

/** Wakes the kernel of a flow whose path works again as it is, and has it tell the peer so. */
export function kickEffects(kernel: Tuple, flow: Flow, silentMs: number): Effect[] {
  const una = flow.sndUna;
  const icmps = unreachables(kernel, una, icmpCount(silentMs));
  return [
    ...(isHeld(flow) ? [{ effect: 'release' } as const] : []),
    ...icmps,
    { effect: 'inject', packet: encodePacket(localAck(kernel, flow, una)) },
    { effect: 'inject', packet: encodePacket(keepalive(kernel, flow)) },
    { effect: 'report', report: { type: 'kicked', icmps: icmps.length } },
  ];
}

/** For how long nothing has come in, at `nowMs` of the clock that the data plane goes by. */
export const silentMs = (flow: Flow, nowMs: number): number =>
  Math.max(0, nowMs - Number(flow.seenIn) / 1e6);

/** As many as the kernel can have doubled its timer in that time, and spare. */
const icmpCount = (silentMs: number): number => {
  const doublings = Math.ceil(Math.log2(silentMs / RTO_MIN_MS));
  return Math.min(ICMPS.most, Math.max(ICMPS.least, doublings + ICMPS.spare));
};

const isClosed = (flow: Flow): boolean => (flow.flags & FLOW_FLAG.CLOSED) !== 0;

const isHeld = (flow: Flow): boolean => (flow.flags & FLOW_FLAG.HELD) !== 0;

/**
 * In kernel view, from the peer itself: the kernel may be another host's, behind a gateway or on a
 * tap, and takes what comes in from its own address for forged (a martian).
 */
function unreachables(kernel: Tuple, una: Seq, count: number): Effect[] {
  const packet = hostUnreachable(encodePacket(quotedSegment(kernel, una)), kernel.remote);
  return Array.from({ length: count }, () => ({ effect: 'inject', packet }));
}

/**
 * F-RTO (RFC 5682, section 2.1) would take ACK(TIAck), which acknowledges segments that were sent
 * once only, for a proof that the timeout was spurious: the kernel would count as in flight what
 * the dead path has swallowed.  One byte more, and the same again, and it knows better: step 2
 * sends new data (swallowed, like all before the map), step 3 finds the loss real.
 */
function lossIsReal(kernel: Tuple, flow: Flow): Effect[] {
  const packet = encodePacket(localAck(kernel, flow, seqAdd(flow.sndUna, 1)));
  return [
    { effect: 'inject', packet },
    { effect: 'inject', packet },
  ];
}

/**
 * ACK(TIAck) as the peer would have sent it, in kernel view, without timestamps: a stale TSecr
 * makes Linux undo what the kick did.
 *
 * The window is the last one that came, or closed where a stand-in (stand-in.ts) has closed it and
 * nothing more is acknowledged: with an open one a kernel that is past its limit gives up with the
 * next timeout.  What it retransmits is answered, and that opens it.
 */
const localAck = (kernel: Tuple, flow: Flow, ack: Seq): Packet =>
  pureAck(tupleReverse(kernel), {
    seq: seqInStead(flow),
    ack,
    window: isClosed(flow) && ack === flow.sndUna ? 0 : flow.windowIn,
  });
