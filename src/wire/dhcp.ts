/*
 * DHCPv4 messages (RFC 2131, RFC 2132) in UDP in IPv4, from the IP header on.
 *
 * Options are a list, verbatim: nobody but the two ends knows what they all mean, and a lease is
 * told to a guest again as its server has told it.  An option in several parts is one option
 * here (RFC 3396), and so are those in the fields `sname` and `file` (option 52).  Relays'
 * messages are not for us: giaddr must be nobody.
 */
import { type Address, address, addressBytes, addressFromBytes } from './address.js';
import { checksumAdd, checksumFold, pseudoHeaderSum } from './checksum.js';
import { type Mac, macBytes, macFromBytes } from './ethernet.js';
import { ipHeaderBytes, parseIpHeader, writeIpHeader } from './ip.js';

export interface DhcpOption {
  code: number;
  bytes: Uint8Array;
}

export interface DhcpMessage {
  op: 'request' | 'reply';
  xid: number;
  secs: number;
  /** The client cannot take unicast before it has its address. */
  broadcast: boolean;
  /** Client's own, yours, next server's. */
  ciaddr: Address;
  yiaddr: Address;
  siaddr: Address;
  chaddr: Mac;
  options: DhcpOption[];
}

export interface DhcpPacket {
  source: Address;
  destination: Address;
  message: DhcpMessage;
}

export const DHCP_TYPES = [
  ...['discover', 'offer', 'request', 'decline', 'ack', 'nak', 'release', 'inform'],
] as const;
export type DhcpType =
  | ('discover' | 'offer' | 'request' | 'decline')
  | ('ack' | 'nak' | 'release' | 'inform');

/** RFC 2132; the sections are in the order of the numbers. */
export const DHCP_OPTION = {
  PAD: 0,
  SUBNET_MASK: 1,
  ROUTER: 3,
  HOST_NAME: 12,
  REQUESTED_ADDRESS: 50,
  LEASE_TIME: 51,
  OVERLOAD: 52,
  TYPE: 53,
  SERVER: 54,
  PARAMETERS: 55,
  MAX_SIZE: 57,
  RENEWAL_TIME: 58,
  REBINDING_TIME: 59,
  VENDOR_CLASS: 60,
  CLIENT_ID: 61,
  END: 255,
} as const;

export const NOBODY = address('0.0.0.0');
export const EVERYBODY = address('255.255.255.255');
/** RFC 2131, section 3.3: a lease for ever. */
export const INFINITE_S = 0xffffffff;

const IP_PROTOCOL_UDP = 17;
const SERVER_PORT = 67;
const CLIENT_PORT = 68;
const UDP_HEADER = 8;
const FIXED_BYTES = 240;
const SNAME = { at: 44, end: 108 } as const;
const FILE = { at: 108, end: 236 } as const;
const COOKIE = 0x63825363;
const BROADCAST_FLAG = 0x8000;
const ETHERNET = 1;
const HOP_LIMIT = 64;
const OPTION_BYTES_MAX = 255;
/** RFC 1542, section 2.1: some relays and servers drop what is shorter than BOOTP was. */
const MESSAGE_BYTES_MIN = 300;

export const optionOf = (m: DhcpMessage, code: number): Uint8Array | undefined =>
  m.options.find((o) => o.code === code)?.bytes;

/** undefined: BOOTP, or a type that is not of RFC 2131. */
export function typeOf(m: DhcpMessage): DhcpType | undefined {
  const bytes = optionOf(m, DHCP_OPTION.TYPE);
  return bytes?.length === 1
    ? (DHCP_TYPES[(bytes[0] ?? 0) - 1] as DhcpType | undefined)
    : undefined;
}

/** The first address of an option, if it has one. */
export function addressOption(m: DhcpMessage, code: number): Address | undefined {
  const bytes = optionOf(m, code);
  return bytes === undefined || bytes.length < 4
    ? undefined
    : addressFromBytes(bytes.subarray(0, 4));
}

export function secondsOption(m: DhcpMessage, code: number): number | undefined {
  const bytes = optionOf(m, code);
  if (bytes?.length !== 4) return undefined;
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
}

/** How many leading ones the subnet mask has; undefined: none told, or it has a hole. */
export function prefixLengthOf(m: DhcpMessage): number | undefined {
  const bytes = optionOf(m, DHCP_OPTION.SUBNET_MASK);
  if (bytes?.length !== 4) return undefined;
  const bits = Array.from(bytes, (byte) => byte.toString(2).padStart(8, '0')).join('');
  return /^1*0*$/.test(bits) ? bits.replaceAll('0', '').length : undefined;
}

export const typeOption = (type: DhcpType): DhcpOption => ({
  code: DHCP_OPTION.TYPE,
  bytes: Uint8Array.of(DHCP_TYPES.indexOf(type) + 1),
});

export const addressOptionOf = (code: number, a: Address): DhcpOption => ({
  code,
  bytes: addressBytes(a).slice(),
});

export function secondsOptionOf(code: number, seconds: number): DhcpOption {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, seconds);
  return { code, bytes };
}

/** From the IP header on; client to server or the reverse by `op`. */
export function encodeDhcp(p: DhcpPacket): Uint8Array {
  const message = encodeMessage(p.message);
  const ip = ipHeaderBytes(4);
  const packet = new Uint8Array(ip + UDP_HEADER + message.length);
  writeIpHeader(packet, {
    source: addressBytes(p.source),
    destination: addressBytes(p.destination),
    protocol: IP_PROTOCOL_UDP,
    hopLimit: HOP_LIMIT,
  });
  const toServer = p.message.op === 'request';
  const udp = packet.subarray(ip);
  const view = new DataView(packet.buffer, ip);
  view.setUint16(0, toServer ? CLIENT_PORT : SERVER_PORT);
  view.setUint16(2, toServer ? SERVER_PORT : CLIENT_PORT);
  view.setUint16(4, udp.length);
  udp.set(message, UDP_HEADER);
  const pseudo = pseudoHeaderSum(p.source, p.destination, IP_PROTOCOL_UDP, udp.length);
  // RFC 768: 0 means that there is none.
  view.setUint16(6, checksumFold(checksumAdd(udp, pseudo)) || 0xffff);
  return packet;
}

function encodeMessage(m: DhcpMessage): Uint8Array {
  const options = m.options.flatMap(encodeOption);
  const bytes = new Uint8Array(Math.max(MESSAGE_BYTES_MIN, FIXED_BYTES + options.length + 1));
  const view = new DataView(bytes.buffer);
  bytes.set([m.op === 'request' ? 1 : 2, ETHERNET, 6, 0]);
  view.setUint32(4, m.xid);
  view.setUint16(8, m.secs);
  view.setUint16(10, m.broadcast ? BROADCAST_FLAG : 0);
  bytes.set(addressBytes(m.ciaddr), 12);
  bytes.set(addressBytes(m.yiaddr), 16);
  bytes.set(addressBytes(m.siaddr), 20);
  bytes.set(macBytes(m.chaddr), 28);
  view.setUint32(236, COOKIE);
  bytes.set(options, FIXED_BYTES);
  bytes[FIXED_BYTES + options.length] = DHCP_OPTION.END;
  return bytes;
}

/* RFC 3396, section 7: a long one in parts, one behind the other. */
function encodeOption(o: DhcpOption): number[] {
  const encoded: number[] = [];
  let at = 0;
  do {
    const part = o.bytes.subarray(at, at + OPTION_BYTES_MAX);
    encoded.push(o.code, part.length, ...part);
    at += OPTION_BYTES_MAX;
  } while (at < o.bytes.length);
  return encoded;
}

/** The message in a whole packet, from the IP header on.  Never throws. */
export function decodeDhcp(packet: Uint8Array): DhcpPacket | { error: string } {
  const header = parseIpHeader(packet, false);
  if ('error' in header) return header;
  if (header.version !== 4 || header.protocol !== IP_PROTOCOL_UDP) return { error: 'not UDP' };
  const rest = packet.subarray(header.headerBytes, header.endByte);
  if (rest.length < UDP_HEADER) return { error: `UDP header of ${rest.length} bytes` };
  const view = new DataView(rest.buffer, rest.byteOffset, rest.length);
  const length = view.getUint16(4);
  if (length < UDP_HEADER || length > rest.length) return { error: `UDP length ${length}` };
  const source = addressFromBytes(header.source);
  const destination = addressFromBytes(header.destination);
  const udp = rest.subarray(0, length);
  if (!isIntact(udp, source, destination)) return { error: 'UDP checksum' };
  const message = decodeMessage(udp.subarray(UDP_HEADER));
  if ('error' in message) return message;
  const server = message.op === 'request' ? view.getUint16(2) : view.getUint16(0);
  return server === SERVER_PORT ? { source, destination, message } : { error: 'not DHCP ports' };
}

/* Between a hypervisor and its guest nobody computes checksums: the field then has the sum of the
 * pseudo-header, not complemented, for the hardware to go on from (Linux: CHECKSUM_PARTIAL).
 */
function isIntact(udp: Uint8Array, source: Address, destination: Address): boolean {
  const field = ((udp[6] ?? 0) << 8) | (udp[7] ?? 0);
  if (field === 0) return true;
  const pseudo = pseudoHeaderSum(source, destination, IP_PROTOCOL_UDP, udp.length);
  return checksumFold(checksumAdd(udp, pseudo)) === 0 || field === (~checksumFold(pseudo) & 0xffff);
}

function decodeMessage(bytes: Uint8Array): DhcpMessage | { error: string } {
  if (bytes.length < FIXED_BYTES) return { error: `DHCP message of ${bytes.length} bytes` };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const [op, hardware, hardwareBytes] = bytes;
  if (op !== 1 && op !== 2) return { error: `BOOTP operation ${op}` };
  if (hardware !== ETHERNET || hardwareBytes !== 6) return { error: 'BOOTP not on Ethernet' };
  if (view.getUint32(24) !== 0) return { error: 'BOOTP by a relay' };
  if (view.getUint32(236) !== COOKIE) return { error: 'BOOTP without DHCP' };
  const options = decodeOptions(bytes);
  if ('error' in options) return options;
  return {
    op: op === 1 ? 'request' : 'reply',
    xid: view.getUint32(4),
    secs: view.getUint16(8),
    broadcast: (view.getUint16(10) & BROADCAST_FLAG) !== 0,
    ciaddr: addressFromBytes(bytes.subarray(12, 16)),
    yiaddr: addressFromBytes(bytes.subarray(16, 20)),
    siaddr: addressFromBytes(bytes.subarray(20, 24)),
    chaddr: macFromBytes(bytes.subarray(28, 34)),
    options,
  };
}

/* RFC 2131, section 4.1: the options field first, then `file`, then `sname`. */
function decodeOptions(bytes: Uint8Array): DhcpOption[] | { error: string } {
  const merged = new Map<number, Uint8Array>();
  const error = collectOptions(bytes.subarray(FIXED_BYTES), merged);
  if (error !== undefined) return { error };
  const [overload = 0] = merged.get(DHCP_OPTION.OVERLOAD) ?? [];
  merged.delete(DHCP_OPTION.OVERLOAD);
  for (const [bit, { at, end }] of [
    [1, FILE],
    [2, SNAME],
  ] as const) {
    const inField = (overload & bit) !== 0 && collectOptions(bytes.subarray(at, end), merged);
    if (inField) return { error: inField };
  }
  return Array.from(merged, ([code, each]) => ({ code, bytes: each }));
}

/** Why the list cannot be read, if so. */
function collectOptions(list: Uint8Array, merged: Map<number, Uint8Array>): string | undefined {
  for (let at = 0; at < list.length; ) {
    const code = list[at] ?? DHCP_OPTION.END;
    if (code === DHCP_OPTION.END) return undefined;
    if (code === DHCP_OPTION.PAD) {
      at += 1;
      continue;
    }
    const length = list[at + 1];
    const end = at + 2 + (length ?? 0);
    if (length === undefined || end > list.length) return `DHCP option ${code} is cut off`;
    merged.set(code, Uint8Array.of(...(merged.get(code) ?? []), ...list.subarray(at + 2, end)));
    at = end;
  }
  return undefined;
}
