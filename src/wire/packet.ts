/*
 * Whole TCP packets between bytes, from the IP header on, and values.
 *
 * Not for the data path: only handshakes, injected packets and tests pass through here.
 * RFC 791, RFC 8200, RFC 9293.  Left out of the value because nothing here needs them: DSCP
 * and ECN bits of the IP header, IPv4 identification and options, the IPv6 flow label, the
 * urgent pointer.
 */
import { type Address, addressBytes, addressFromBytes, family } from './address.js';
import { checksumAdd, checksumFold, internetChecksum, pseudoHeaderSum } from './checksum.js';
import { flagsFromBits, flagsToBits } from './flags.js';
import { IP_PROTOCOL_TCP, ipHeaderBytes, parseIpHeader, writeIpHeader } from './ip.js';
import { decodeOptions, encodeOption, OPTIONS_BYTES_MAX, type TcpOption } from './option.js';
import { type Seq, seq } from './seq.js';

/** A TCP packet.  Numbers in host order; `window` as in the header, unscaled. */
export interface Packet {
  source: Address;
  sourcePort: number;
  destination: Address;
  destinationPort: number;
  /** Subset of 'SFRPAUEC' in that order: 'S', 'SA', 'A', 'PA', 'R', 'RA'. */
  flags: string;
  seq: Seq;
  ack: Seq;
  window: number;
  options: TcpOption[];
  payload: Uint8Array;
  /** TTL or hop limit; HOP_LIMIT where a packet is made without. */
  hopLimit?: number;
}

/** What Linux sends with by default. */
export const HOP_LIMIT = 64;

const TCP_HEADER = 20;

/**
 * The packet in bytes, from the IP header on, with right checksums and "don't fragment".
 * Options are padded to a multiple of four with end-of-list.  Throws RangeError if the options
 * need more than 40 bytes, TypeError if the addresses are of two families.
 */
export function encodePacket(p: Packet): Uint8Array {
  const version = family(p.source);
  if (version !== family(p.destination)) {
    throw new TypeError(`a packet from ${p.source} to ${p.destination} mixes two families`);
  }
  const options = concatenateOptions(p.options);
  const doff = TCP_HEADER + options.length;
  const ip = ipHeaderBytes(version);
  const bytes = new Uint8Array(ip + doff + p.payload.length);
  writeIpHeader(bytes, {
    source: addressBytes(p.source),
    destination: addressBytes(p.destination),
    protocol: IP_PROTOCOL_TCP,
    hopLimit: p.hopLimit ?? HOP_LIMIT,
  });
  const tcp = new DataView(bytes.buffer, ip);
  tcp.setUint16(0, p.sourcePort);
  tcp.setUint16(2, p.destinationPort);
  tcp.setUint32(4, p.seq);
  tcp.setUint32(8, p.ack);
  tcp.setUint16(12, ((doff / 4) << 12) | flagsToBits(p.flags));
  tcp.setUint16(14, p.window);
  bytes.set(options, ip + TCP_HEADER);
  bytes.set(p.payload, ip + doff);
  tcp.setUint16(16, tcpChecksum(p.source, p.destination, bytes.subarray(ip)));
  return bytes;
}

/**
 * The packet in `bytes`, which start at the IP header; bytes behind the end that the IP header
 * names are ignored.  With `truncated`, the payload may be cut off (the data plane hands up
 * only the first PACKET_MAX bytes), the headers may not.
 *
 * Checksums are not looked at: with checksum offload they are not right yet at this place.
 * Never throws; `error` says what is wrong.
 */
export function decodePacket(
  bytes: Uint8Array,
  o?: { truncated?: boolean },
): Packet | { error: string } {
  const ip = parseIpHeader(bytes, o?.truncated === true);
  if ('error' in ip) return ip;
  if (ip.protocol !== IP_PROTOCOL_TCP) return { error: `protocol ${ip.protocol}, not TCP` };
  const source = addressFromBytes(ip.source);
  const destination = addressFromBytes(ip.destination);
  // An IPv6 packet with ::ffff:a.b.c.d in it would pass for one of the IPv4 connection.
  if (family(source) !== ip.version || family(destination) !== ip.version) {
    return { error: 'IPv4-mapped address in an IPv6 packet' };
  }
  const segment = bytes.subarray(ip.headerBytes, ip.endByte);
  if (segment.length < TCP_HEADER) return { error: `TCP header of ${segment.length} bytes` };
  const tcp = new DataView(segment.buffer, segment.byteOffset, segment.length);
  const doff = (tcp.getUint8(12) >> 4) * 4;
  if (doff < TCP_HEADER) return { error: `data offset ${doff}` };
  if (doff > segment.length) return { error: `data offset ${doff} of ${segment.length} bytes` };
  const flags = flagsFromBits(tcp.getUint8(13));
  const options = decodeOptions(segment.subarray(TCP_HEADER, doff), flags);
  if ('error' in options) return options;
  return {
    source,
    sourcePort: tcp.getUint16(0),
    destination,
    destinationPort: tcp.getUint16(2),
    flags,
    seq: seq(tcp.getUint32(4)),
    ack: seq(tcp.getUint32(8)),
    window: tcp.getUint16(14),
    options,
    payload: segment.slice(doff),
    hopLimit: ip.hopLimit,
  };
}

/** Whether the IPv4 header's and the TCP checksum of a packet are right, summed as a whole. */
export function checksumsAreRight(bytes: Uint8Array): boolean {
  const ip = parseIpHeader(bytes, false);
  if ('error' in ip) return false;
  if (ip.version === 4 && internetChecksum(bytes.subarray(0, ip.headerBytes)) !== 0) return false;
  const segment = bytes.subarray(ip.headerBytes, ip.endByte);
  return tcpChecksum(addressFromBytes(ip.source), addressFromBytes(ip.destination), segment) === 0;
}

/** The last byte of sequence space that a segment takes up, plus one: SYN and FIN count one. */
export const segmentEnd = (p: Packet): Seq =>
  seq(p.seq + p.payload.length + (p.flags.includes('S') ? 1 : 0) + (p.flags.includes('F') ? 1 : 0));

const tcpChecksum = (source: Address, destination: Address, segment: Uint8Array): number =>
  checksumFold(
    checksumAdd(segment, pseudoHeaderSum(source, destination, IP_PROTOCOL_TCP, segment.length)),
  );

function concatenateOptions(options: TcpOption[]): Uint8Array {
  const encoded = options.map(encodeOption);
  const length = encoded.reduce((sum, option) => sum + option.length, 0);
  if (length > OPTIONS_BYTES_MAX) {
    throw new RangeError(`${length} bytes of TCP options; a header has ${OPTIONS_BYTES_MAX}`);
  }
  const bytes = new Uint8Array((length + 3) & ~3); // zero is end-of-list
  let at = 0;
  for (const option of encoded) {
    bytes.set(option, at);
    at += option.length;
  }
  return bytes;
}
