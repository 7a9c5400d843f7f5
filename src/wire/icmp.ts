/*
 * ICMP errors that we tell our own kernel about its own packets (RFC 792, RFC 1191, RFC 4443).
 *
 * "Unreachable" is how a backed-off kernel is made to retransmit now (RFC 6069); "too big" is
 * how it learns the MTU of the new path.  Not for the network: nothing here is ever sent out.
 */
import { type Address, addressBytes, addressFromBytes, family } from './address.js';
import { checksumAdd, checksumFold, internetChecksum, pseudoHeaderSum } from './checksum.js';
import {
  IP_PROTOCOL_ICMP,
  IP_PROTOCOL_ICMP6,
  ipHeaderBytes,
  parseIpHeader,
  writeIpHeader,
} from './ip.js';
import { HOP_LIMIT } from './packet.js';

const ICMP_HEADER = 8;

/** RFC 792: the IP header and 8 bytes: ports and sequence number. */
const QUOTE_BYTES_IPV4 = 8;

/** RFC 4443, section 2.4 (c): as much as fits without exceeding the minimum IPv6 MTU. */
const QUOTE_BYTES_IPV6_MAX = 1280 - 40 - ICMP_HEADER;

/**
 * The ICMP packet, from the IP header on, by which `from` tells the sender of `quoted` (a
 * packet from its IP header on) that there is no route: IPv4 "host unreachable", IPv6 "no route
 * to destination".  Throws TypeError if `quoted` is no IP packet, or not of the family of `from`.
 */
export const hostUnreachable = (quoted: Uint8Array, from: Address): Uint8Array =>
  family(from) === 4 ? icmp(quoted, from, [3, 1], 0) : icmp(quoted, from, [1, 0], 0);

/**
 * The same for "fragmentation needed" (IPv4) or "packet too big" (IPv6): `mtu`, in bytes of a
 * whole IP packet, is what fits.
 */
export const packetTooBig = (quoted: Uint8Array, from: Address, mtu: number): Uint8Array =>
  family(from) === 4 ? icmp(quoted, from, [3, 4], mtu & 0xffff) : icmp(quoted, from, [2, 0], mtu);

function icmp(
  quoted: Uint8Array,
  from: Address,
  typeCode: [number, number],
  rest: number,
): Uint8Array {
  const header = parseIpHeader(quoted, true);
  if ('error' in header) throw new TypeError(`cannot quote: ${header.error}`);
  if (header.version !== family(from)) {
    throw new TypeError(`cannot quote an IPv${header.version} packet from ${from}`);
  }
  const ip = ipHeaderBytes(header.version);
  const quote = quoted.subarray(
    0,
    header.version === 4 ? header.headerBytes + QUOTE_BYTES_IPV4 : QUOTE_BYTES_IPV6_MAX,
  );
  const bytes = new Uint8Array(ip + ICMP_HEADER + quote.length);
  writeIpHeader(bytes, {
    source: addressBytes(from),
    destination: header.source,
    protocol: header.version === 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMP6,
    hopLimit: HOP_LIMIT,
  });
  const message = bytes.subarray(ip);
  message.set(typeCode);
  const view = new DataView(bytes.buffer, ip);
  view.setUint32(4, rest);
  message.set(quote, ICMP_HEADER);
  view.setUint16(2, icmpChecksum(message, from, header.source));
  return bytes;
}

/** RFC 4443, section 2.3: ICMPv6 sums a pseudo-header, ICMP for IPv4 does not. */
function icmpChecksum(message: Uint8Array, from: Address, to: Uint8Array): number {
  if (family(from) === 4) return internetChecksum(message);
  const pseudo = pseudoHeaderSum(from, addressFromBytes(to), IP_PROTOCOL_ICMP6, message.length);
  return checksumFold(checksumAdd(message, pseudo));
}
