/*
 * Neighbour discovery messages of IPv6 (RFC 4861, section 4), from the IPv6 header on.
 *
 * Options are a list, verbatim: what is not known to us (RDNSS, routes, nonces) is kept as it
 * is.  What would have to be discarded (hop limit, checksum, code, an option of length 0; RFC
 * 4861, sections 6.1 and 7.1) is an error.
 */
import { type Address, address, addressBytes, addressFromBytes, family } from './address.js';
import { checksumAdd, checksumFold, pseudoHeaderSum } from './checksum.js';
import { type Mac, macBytes, macFromBytes } from './ethernet.js';
import { IP_PROTOCOL_ICMP6, ipHeaderBytes, parseIpHeader, writeIpHeader } from './ip.js';

/** An option: `bytes` are those after type and length, so 6 or 14 or 22 … of them. */
export interface NeighbourOption {
  type: number;
  bytes: Uint8Array;
}

export interface RouterAdvertisement {
  kind: 'router-advertisement';
  hopLimit: number;
  /** M, O and the rest of that byte. */
  flags: number;
  routerLifetimeS: number;
  reachableMs: number;
  retransMs: number;
  options: NeighbourOption[];
}

export type NeighbourMessage =
  | { kind: 'router-solicitation'; options: NeighbourOption[] }
  | RouterAdvertisement
  | { kind: 'neighbour-solicitation'; target: Address; options: NeighbourOption[] }
  | {
      kind: 'neighbour-advertisement';
      /** This node forwards; without it neighbours strike a router off their list. */
      router: boolean;
      solicited: boolean;
      /** Also where another hardware address is known. */
      override: boolean;
      target: Address;
      options: NeighbourOption[];
    };

export interface NeighbourPacket<M extends NeighbourMessage = NeighbourMessage> {
  source: Address;
  destination: Address;
  message: M;
}

export const UNSPECIFIED = address('::');
export const ALL_NODES = address('ff02::1');
export const ALL_ROUTERS = address('ff02::2');

const TYPE = {
  'router-solicitation': 133,
  'router-advertisement': 134,
  'neighbour-solicitation': 135,
  'neighbour-advertisement': 136,
} as const;
const OPTION = { SOURCE_MAC: 1, TARGET_MAC: 2, PREFIX: 3 } as const;
const FLAG = { ROUTER: 0x80, SOLICITED: 0x40, OVERRIDE: 0x20 } as const;

/** Section 4: receivers discard it if it is less, for it may come from afar. */
const HOP_LIMIT = 255;

/** Bytes before the options. */
const FIXED_BYTES: Record<NeighbourMessage['kind'], number> = {
  'router-solicitation': 8,
  'router-advertisement': 16,
  'neighbour-solicitation': 24,
  'neighbour-advertisement': 24,
};

/** ff02::1:ffXX:XXXX of an address (RFC 4291, section 2.7.1). */
export function solicitedNode(a: Address): Address {
  const bytes = Uint8Array.from(addressBytes(address('ff02::1:ff00:0')));
  bytes.set(addressBytes(a).subarray(13), 13);
  return addressFromBytes(bytes);
}

export const sourceMacOption = (m: Mac): NeighbourOption => ({
  type: OPTION.SOURCE_MAC,
  bytes: macBytes(m),
});

export const targetMacOption = (m: Mac): NeighbourOption => ({
  type: OPTION.TARGET_MAC,
  bytes: macBytes(m),
});

export const isSourceMac = (o: NeighbourOption): boolean => o.type === OPTION.SOURCE_MAC;

/** The sender's hardware address in its options: source in questions, target in answers. */
export function linkLayerAddress(message: NeighbourMessage): Mac | undefined {
  const type = message.kind === 'neighbour-advertisement' ? OPTION.TARGET_MAC : OPTION.SOURCE_MAC;
  const found = message.options.find((o) => o.type === type && o.bytes.length === 6);
  return found && macFromBytes(found.bytes);
}

export interface PrefixInformation {
  prefix: Address;
  prefixLength: number;
  onLink: boolean;
  autonomous: boolean;
  validS: number;
  preferredS: number;
}

/** What an advertisement says of prefixes (section 4.6.2). */
export const prefixInformation = (message: RouterAdvertisement): PrefixInformation[] =>
  message.options
    .filter((o) => o.type === OPTION.PREFIX && o.bytes.length === 30)
    .map(({ bytes }) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      return {
        prefixLength: view.getUint8(0),
        onLink: (view.getUint8(1) & 0x80) !== 0,
        autonomous: (view.getUint8(1) & 0x40) !== 0,
        validS: view.getUint32(2),
        preferredS: view.getUint32(6),
        prefix: addressFromBytes(bytes.subarray(14, 30)),
      };
    });

export function prefixOption(p: PrefixInformation): NeighbourOption {
  const bytes = new Uint8Array(30);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, p.prefixLength);
  view.setUint8(1, (p.onLink ? 0x80 : 0) | (p.autonomous ? 0x40 : 0));
  view.setUint32(2, p.validS);
  view.setUint32(6, p.preferredS);
  bytes.set(addressBytes(p.prefix), 14);
  return { type: OPTION.PREFIX, bytes };
}

/** `a` is at `m`: to all nodes of the link, unasked (section 7.2.6), from the IPv6 header on. */
export const unsolicitedAdvertisement = (
  m: Mac,
  a: Address,
  o: { router: boolean; override: boolean },
): Uint8Array =>
  encodeNeighbour({
    source: a,
    destination: ALL_NODES,
    message: {
      kind: 'neighbour-advertisement',
      ...o,
      solicited: false,
      target: a,
      options: [targetMacOption(m)],
    },
  });

/** From the IPv6 header on.  Throws RangeError if an option's length is not possible. */
export function encodeNeighbour(p: NeighbourPacket): Uint8Array {
  const header = ipHeaderBytes(6);
  const options = p.message.options.map(encodeOption);
  const fixed = FIXED_BYTES[p.message.kind];
  const packet = new Uint8Array(header + fixed + options.reduce((sum, o) => sum + o.length, 0));
  writeIpHeader(packet, {
    source: addressBytes(p.source),
    destination: addressBytes(p.destination),
    protocol: IP_PROTOCOL_ICMP6,
    hopLimit: HOP_LIMIT,
  });
  const message = packet.subarray(header);
  message[0] = TYPE[p.message.kind];
  writeFixed(message, p.message);
  let at = fixed;
  for (const option of options) {
    message.set(option, at);
    at += option.length;
  }
  const pseudo = pseudoHeaderSum(p.source, p.destination, IP_PROTOCOL_ICMP6, message.length);
  const checksum = checksumFold(checksumAdd(message, pseudo));
  new DataView(packet.buffer).setUint16(header + 2, checksum);
  return packet;
}

function writeFixed(bytes: Uint8Array, m: NeighbourMessage): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  switch (m.kind) {
    case 'router-solicitation':
      return;
    case 'router-advertisement':
      bytes.set([m.hopLimit, m.flags], 4);
      view.setUint16(6, m.routerLifetimeS);
      view.setUint32(8, m.reachableMs);
      view.setUint32(12, m.retransMs);
      return;
    case 'neighbour-solicitation':
      bytes.set(addressBytes(m.target), 8);
      return;
    case 'neighbour-advertisement':
      bytes[4] =
        (m.router ? FLAG.ROUTER : 0) |
        (m.solicited ? FLAG.SOLICITED : 0) |
        (m.override ? FLAG.OVERRIDE : 0);
      bytes.set(addressBytes(m.target), 8);
      return;
  }
}

function encodeOption(o: NeighbourOption): Uint8Array {
  const length = 2 + o.bytes.length;
  if (length % 8 !== 0 || length > 255 * 8) throw new RangeError(`option of ${length} bytes`);
  return Uint8Array.of(o.type, length / 8, ...o.bytes);
}

/** The message in a whole packet, from the IPv6 header on.  Never throws. */
export function decodeNeighbour(packet: Uint8Array): NeighbourPacket | { error: string } {
  const header = parseIpHeader(packet, false);
  if ('error' in header) return header;
  if (header.version !== 6 || header.protocol !== IP_PROTOCOL_ICMP6) return { error: 'not ICMPv6' };
  if (header.hopLimit !== HOP_LIMIT) return { error: `hop limit ${header.hopLimit}` };
  const source = addressFromBytes(header.source);
  const destination = addressFromBytes(header.destination);
  const bytes = packet.subarray(header.headerBytes, header.endByte);
  if (family(source) !== 6 || family(destination) !== 6) return { error: 'mapped addresses' };
  const pseudo = pseudoHeaderSum(source, destination, IP_PROTOCOL_ICMP6, bytes.length);
  if (checksumFold(checksumAdd(bytes, pseudo)) !== 0) return { error: 'ICMPv6 checksum' };
  if (bytes[1] !== 0) return { error: `ICMPv6 code ${bytes[1]}` };
  const message = decodeMessage(bytes);
  return 'error' in message ? message : { source, destination, message };
}

function decodeMessage(bytes: Uint8Array): NeighbourMessage | { error: string } {
  const kind = (Object.keys(TYPE) as NeighbourMessage['kind'][]).find((k) => TYPE[k] === bytes[0]);
  if (kind === undefined) return { error: `ICMPv6 type ${bytes[0]}` };
  const fixed = FIXED_BYTES[kind];
  if (bytes.length < fixed) return { error: `${kind} of ${bytes.length} bytes` };
  const options = decodeOptions(bytes.subarray(fixed));
  if ('error' in options) return options;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (kind === 'router-solicitation') return { kind, options };
  if (kind === 'router-advertisement') {
    return {
      kind,
      hopLimit: view.getUint8(4),
      flags: view.getUint8(5),
      routerLifetimeS: view.getUint16(6),
      reachableMs: view.getUint32(8),
      retransMs: view.getUint32(12),
      options,
    };
  }
  const target = addressFromBytes(bytes.subarray(8, 24));
  if (family(target) !== 6) return { error: 'mapped addresses' };
  if (kind === 'neighbour-solicitation') return { kind, target, options };
  const flags = view.getUint8(4);
  return {
    kind,
    router: (flags & FLAG.ROUTER) !== 0,
    solicited: (flags & FLAG.SOLICITED) !== 0,
    override: (flags & FLAG.OVERRIDE) !== 0,
    target,
    options,
  };
}

function decodeOptions(bytes: Uint8Array): NeighbourOption[] | { error: string } {
  const options: NeighbourOption[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = (bytes[at + 1] ?? 0) * 8;
    if (length === 0) return { error: 'option of length 0' };
    if (at + length > bytes.length) return { error: 'option ends behind the packet' };
    options.push({ type: bytes[at] ?? 0, bytes: bytes.slice(at + 2, at + length) });
    at += length;
  }
  return options;
}
