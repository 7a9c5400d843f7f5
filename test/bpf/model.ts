/*
 * What the data plane should do to a packet of a moved flow, written a second time: on decoded
 * packets, with plain arithmetic, and with checksums summed over everything.
 *
 * Independent of bpf/ on purpose.  It knows nothing of maps, set-up or incremental checksums;
 * docs/PROTOCOL.md is what both follow.
 */
import { type Address, addressBytes, family } from '../../src/wire/address.js';
import type { TcpOption } from '../../src/wire/option.js';
import type { Packet } from '../../src/wire/packet.js';
import { type Seq, seqAdd, seqAfter, seqBefore, seqDiff } from '../../src/wire/seq.js';
import type { Tuple } from '../../src/wire/tuple.js';

/** A moved flow as far as translation needs it. */
export interface Moved {
  kernel: Tuple;
  wire: Tuple;
  sndDelta: number;
  rcvDelta: number;
  /** Kernel view: nothing below is sent. */
  sndBase: Seq;
  /** Kernel view: end of what the new wire has carried to us; no ACK above. */
  rcvMax: Seq;
  /** Kernel view: end of what former wires have carried to us; no SACK block begins below. */
  rcvBefore: Seq;
  /** Kernel view: what the peer has acknowledged; far behind it the base does not count any more. */
  sndUna: Seq;
  /** Kernel view: end of what we have ever sent; no ACK from the wire above. */
  sndNxt: Seq;
}

export type Translation =
  | { packet: Packet; clamped: boolean; blocksDropped: number }
  | { drop: 'below-base' | 'above-sent' };

/** A packet that our kernel sends, as the wire sees it. */
export function toWire(m: Moved, p: Packet): Translation {
  const counts = (m.sndUna - m.sndBase) >>> 0 < 2 ** 30;
  const below = counts && seqDiff(p.seq, m.sndBase) < 0;
  const probe = seqDiff(p.seq, m.sndBase) === -1 && p.payload.length <= 1;
  if (below && !probe) return { drop: 'below-base' };
  const clamped = p.flags.includes('A') && seqAfter(p.ack, m.rcvMax);
  const ack = clamped ? m.rcvMax : p.ack;
  const before = p.flags.includes('A') ? later(m.rcvBefore, p.ack) : m.rcvBefore;
  const isTold = ([from, to]: readonly [Seq, Seq]): boolean => {
    if (seqAfter(to, m.rcvMax)) return false;
    return !seqBefore(from, before) || !seqAfter(to, p.ack);
  };
  const kept = p.options.map((option) => withBlocks(option, isTold));
  const blocks = (options: TcpOption[]): number =>
    options.reduce((sum, o) => sum + (o.kind === 'sack' ? o.blocks.length : 0), 0);
  return {
    packet: {
      ...p,
      source: m.wire.local,
      sourcePort: m.wire.localPort,
      destination: m.wire.remote,
      destinationPort: m.wire.remotePort,
      seq: seqAdd(p.seq, m.sndDelta),
      ack: p.flags.includes('A') ? seqAdd(ack, m.rcvDelta) : p.ack,
      options: kept.flat().map((option) => shiftBlocks(option, m.rcvDelta)),
    },
    clamped,
    blocksDropped: blocks(p.options) - blocks(kept.flat()),
  };
}

/** A packet from the wire, as our kernel sees it. */
export function toKernel(m: Moved, p: Packet): Translation {
  const ack = p.flags.includes('A') ? seqAdd(p.ack, -m.sndDelta) : p.ack;
  if (p.flags.includes('A') && seqAfter(ack, m.sndNxt)) return { drop: 'above-sent' };
  return {
    packet: {
      ...p,
      source: m.kernel.remote,
      sourcePort: m.kernel.remotePort,
      destination: m.kernel.local,
      destinationPort: m.kernel.localPort,
      seq: seqAdd(p.seq, -m.rcvDelta),
      ack,
      options: p.options.map((option) => shiftBlocks(option, -m.sndDelta)),
    },
    clamped: false,
    blocksDropped: 0,
  };
}

const shiftBlocks = (o: TcpOption, delta: number): TcpOption =>
  o.kind === 'sack'
    ? { ...o, blocks: o.blocks.map(([a, b]) => [seqAdd(a, delta), seqAdd(b, delta)]) }
    : o;

/** The freed bytes become NOPs, so that everything behind the option stays where it is. */
function withBlocks(o: TcpOption, isTold: (block: [Seq, Seq]) => boolean): TcpOption[] {
  if (o.kind !== 'sack') return [o];
  const blocks = o.blocks.filter(isTold);
  const freed = (o.blocks.length - blocks.length) * 8 + (blocks.length === 0 ? 2 : 0);
  const nops = Array.from({ length: freed }, (): TcpOption => ({ kind: 'nop' }));
  return blocks.length === 0 ? nops : [{ kind: 'sack', blocks }, ...nops];
}

/** End of a segment in sequence space. */
export const endOf = (p: Packet): Seq =>
  seqAdd(p.seq, p.payload.length + (p.flags.includes('F') ? 1 : 0));

export const later = (a: Seq, b: Seq): Seq => (seqBefore(a, b) ? b : a);

/** RFC 1071, the slow way: 16-bit words, carries added at the end. */
export function naiveSum(parts: Uint8Array[]): number {
  let sum = 0;
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) sum += ((part[i] ?? 0) << 8) | (part[i + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}

/** What the checksum over `message` with its pseudo-header must leave: 0xffff if it is right. */
export function naiveTransportSum(
  ends: { source: Address; destination: Address },
  protocol: number,
  message: Uint8Array,
): number {
  const six = family(ends.source) === 6;
  const length = message.length;
  const pseudo = six
    ? Uint8Array.of(0, 0, length >> 8, length & 0xff, 0, 0, 0, protocol)
    : Uint8Array.of(0, protocol, length >> 8, length & 0xff);
  return naiveSum([addressBytes(ends.source), addressBytes(ends.destination), pseudo, message]);
}
