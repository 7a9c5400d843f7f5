/*
 * ICMP errors about packets of ours, as routers send them (RFC 792, RFC 4443): which packet, and
 * as much of its TCP header as they quote, that is, as it was when it came there.
 */
import { IP_PROTOCOL_TCP, parseIpHeader } from './ip.js';
import { decodeOptions, type TcpOption } from './option.js';
import { type Seq, seq } from './seq.js';

const ICMP_HEADER = 8;
/** RFC 792: routers quote at least this much of what follows the IP header. */
const TCP_QUOTE_MIN = 8;
const TCP_HEADER = 20;

/** What of a TCP packet an ICMP error quotes. */
export interface QuotedSegment {
  destination: Uint8Array;
  sourcePort: number;
  destinationPort: number;
  seq: Seq;
  /** undefined: the quote ends before them */
  options: TcpOption[] | undefined;
}

export interface IcmpError {
  /** of "unreachable": the code's meaning */
  kind: 'time-exceeded' | 'unreachable';
  why: string;
  quoted: QuotedSegment;
}

const UNREACHABLE_4: Record<number, string> = {
  0: 'network unreachable',
  1: 'host unreachable',
  3: 'port unreachable',
  9: 'network administratively prohibited',
  10: 'host administratively prohibited',
  13: 'administratively prohibited',
};
const UNREACHABLE_6: Record<number, string> = {
  0: 'no route to destination',
  1: 'administratively prohibited',
  3: 'address unreachable',
  4: 'port unreachable',
  5: 'source address failed policy',
  6: 'reject route',
};

/** The error in an ICMP message, from its type byte on; undefined: none, or not about TCP. */
export function parseIcmpError(version: 4 | 6, message: Uint8Array): IcmpError | undefined {
  const [type = 0, code = 0] = message;
  const [unreachable, timeExceeded] = version === 4 ? [3, 11] : [1, 3];
  if (type !== unreachable && type !== timeExceeded) return undefined;
  const quoted = parseQuote(message.subarray(ICMP_HEADER));
  if (quoted === undefined) return undefined;
  if (type === timeExceeded) return { kind: 'time-exceeded', why: 'time exceeded', quoted };
  const names = version === 4 ? UNREACHABLE_4 : UNREACHABLE_6;
  return { kind: 'unreachable', why: names[code] ?? `unreachable, code ${code}`, quoted };
}

function parseQuote(bytes: Uint8Array): QuotedSegment | undefined {
  const ip = parseIpHeader(bytes, true);
  if ('error' in ip || ip.protocol !== IP_PROTOCOL_TCP) return undefined;
  const segment = bytes.subarray(ip.headerBytes, ip.endByte);
  if (segment.length < TCP_QUOTE_MIN) return undefined;
  const tcp = new DataView(segment.buffer, segment.byteOffset, segment.length);
  return {
    destination: ip.destination,
    sourcePort: tcp.getUint16(0),
    destinationPort: tcp.getUint16(2),
    seq: seq(tcp.getUint32(4)),
    options: quotedOptions(segment),
  };
}

function quotedOptions(segment: Uint8Array): TcpOption[] | undefined {
  if (segment.length < TCP_HEADER) return undefined;
  const doff = ((segment[12] ?? 0) >> 4) * 4;
  if (doff < TCP_HEADER || doff > segment.length) return undefined;
  const options = decodeOptions(segment.subarray(TCP_HEADER, doff), 'S');
  return 'error' in options ? undefined : options;
}
