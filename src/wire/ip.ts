/*
 * IPv4 (RFC 791) and IPv6 (RFC 8200) headers: found and made.
 *
 * Fragments are errors: a flow's packets are sent with "don't fragment", and what lies in a
 * fragment cannot be known.  Of IPv6 extension headers, those are walked over that leave the
 * destination and the payload as they are.
 */
import { internetChecksum } from './checksum.js';

export const IP_PROTOCOL_TCP = 6;
export const IP_PROTOCOL_ICMP = 1;
export const IP_PROTOCOL_ICMP6 = 58;

/** bpf/abi.h, EXTENSION_HEADERS_MAX: both sides must give up at the same packet. */
export const EXTENSION_HEADERS_MAX = 4;

const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const DESTINATION_OPTIONS = 60;

const IPV4_HEADER = 20;
const IPV6_HEADER = 40;
const DONT_FRAGMENT = 0x4000;
const MORE_FRAGMENTS = 0x2000;
const FRAGMENT_OFFSET = 0x1fff;

export interface IpHeader {
  version: 4 | 6;
  source: Uint8Array;
  destination: Uint8Array;
  protocol: number;
  hopLimit: number;
  /** Where the payload begins: behind IPv4 options and IPv6 extension headers. */
  headerBytes: number;
  /** Where it ends: the length in the header, or of `bytes` if they are cut off. */
  endByte: number;
}

/** Bytes of the header that `writeIpHeader` makes. */
export const ipHeaderBytes = (version: 4 | 6): number =>
  version === 4 ? IPV4_HEADER : IPV6_HEADER;

/**
 * Writes a header without options for a payload that fills the rest of `packet`.
 * Throws RangeError if the packet is longer than its length field can say.
 */
export function writeIpHeader(
  packet: Uint8Array,
  o: { source: Uint8Array; destination: Uint8Array; protocol: number; hopLimit: number },
): void {
  if (packet.length > 0xffff) throw new RangeError(`an IP packet of ${packet.length} bytes`);
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  if (o.source.length === 4) {
    view.setUint8(0, 0x45);
    view.setUint16(2, packet.length);
    view.setUint16(6, DONT_FRAGMENT);
    view.setUint8(8, o.hopLimit);
    view.setUint8(9, o.protocol);
    packet.set(o.source, 12);
    packet.set(o.destination, 16);
    view.setUint16(10, internetChecksum(packet.subarray(0, IPV4_HEADER)));
  } else {
    view.setUint8(0, 0x60);
    view.setUint16(4, packet.length - IPV6_HEADER);
    view.setUint8(6, o.protocol);
    view.setUint8(7, o.hopLimit);
    packet.set(o.source, 8);
    packet.set(o.destination, 24);
  }
}

/** The header at the start of `bytes`; with `truncated`, the payload may be cut off. */
export function parseIpHeader(bytes: Uint8Array, truncated: boolean): IpHeader | { error: string } {
  const version = (bytes[0] ?? 0) >> 4;
  if (version !== 4 && version !== 6) return { error: `IP version ${version}` };
  const header = version === 4 ? parseIpv4(bytes) : parseIpv6(bytes);
  if ('error' in header || header.endByte <= bytes.length) return header;
  if (!truncated) return { error: `IP packet of ${header.endByte} bytes, ${bytes.length} present` };
  return { ...header, endByte: bytes.length };
}

function parseIpv4(bytes: Uint8Array): IpHeader | { error: string } {
  if (bytes.length < IPV4_HEADER) return { error: `IPv4 header of ${bytes.length} bytes` };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const headerBytes = (view.getUint8(0) & 0x0f) * 4;
  const endByte = view.getUint16(2);
  if (headerBytes < IPV4_HEADER || headerBytes > bytes.length || headerBytes > endByte) {
    return { error: `IPv4 header of ${headerBytes} bytes in a packet of ${endByte}` };
  }
  if ((view.getUint16(6) & (MORE_FRAGMENTS | FRAGMENT_OFFSET)) !== 0) return { error: 'fragment' };
  return {
    version: 4,
    source: bytes.subarray(12, 16),
    destination: bytes.subarray(16, 20),
    protocol: view.getUint8(9),
    hopLimit: view.getUint8(8),
    headerBytes,
    endByte,
  };
}

function parseIpv6(bytes: Uint8Array): IpHeader | { error: string } {
  if (bytes.length < IPV6_HEADER) return { error: `IPv6 header of ${bytes.length} bytes` };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const endByte = IPV6_HEADER + view.getUint16(4);
  const walked = walkExtensionHeaders(bytes, view.getUint8(6), endByte);
  if ('error' in walked) return walked;
  return {
    version: 6,
    source: bytes.subarray(8, 24),
    destination: bytes.subarray(24, 40),
    protocol: walked.protocol,
    hopLimit: view.getUint8(7),
    headerBytes: walked.headerBytes,
    endByte,
  };
}

/** RFC 8200, section 4: each begins with the next one's number and its own length. */
function walkExtensionHeaders(
  bytes: Uint8Array,
  first: number,
  endByte: number,
): { protocol: number; headerBytes: number } | { error: string } {
  let protocol = first;
  let at = IPV6_HEADER;
  for (let headers = 0; isExtensionHeader(protocol); headers++) {
    if (headers === EXTENSION_HEADERS_MAX) return { error: 'too many IPv6 extension headers' };
    if (at + 8 > bytes.length || at + 8 > endByte)
      return { error: 'IPv6 extension header cut off' };
    const error = unwalkable(bytes, protocol, at);
    if (error !== undefined) return { error };
    const length = protocol === FRAGMENT ? 8 : ((bytes[at + 1] ?? 0) + 1) * 8;
    protocol = bytes[at] ?? 0;
    at += length;
  }
  if (at > bytes.length || at > endByte) return { error: 'IPv6 extension header cut off' };
  return { protocol, headerBytes: at };
}

const isExtensionHeader = (protocol: number): boolean =>
  protocol === HOP_BY_HOP ||
  protocol === ROUTING ||
  protocol === FRAGMENT ||
  protocol === DESTINATION_OPTIONS;

/** Why the payload behind the extension header at `at` is not a packet of its own, if so. */
function unwalkable(bytes: Uint8Array, protocol: number, at: number): string | undefined {
  const third = ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0);
  // All of RFC 6946's atomic fragments are whole packets: offset 0 and no more to come.
  if (protocol === FRAGMENT && (third & ~0x0006) !== 0) return 'fragment';
  // RFC 8200, section 4.4: with segments left, the destination is not the last one, and
  // the checksum is not over the addresses in the header.
  if (protocol === ROUTING && (third & 0xff) !== 0) return 'IPv6 routing header with segments left';
  return undefined;
}
