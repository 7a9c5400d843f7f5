/*
 * What a place should do to a packet, written a second time: on bytes, with checksums summed over
 * everything.  Independent of bpf/ on purpose.
 */
import { type Address, addressBytes, addressFromBytes } from '../../src/wire/address.js';
import type { Direction } from './data-plane.js';
import { naiveSum, naiveTransportSum } from './model.js';
import { INSIDE, OUTSIDE } from './tap.js';

export type Fate = 'translated' | 'same' | 'foreign' | 'malformed';

/** An IP packet as far as translation needs it. */
export interface Layout {
  six: boolean;
  source: Address;
  destination: Address;
  /** Of the transport header; not there: in another fragment. */
  transport?: { at: number; end: number; protocol: number };
}

/** Undefined if its headers lie.  `six`: what the frame says that it is. */
export function layoutOf(ip: Uint8Array, six: boolean): Layout | undefined {
  if ((ip[0] ?? 0) >> 4 !== (six ? 6 : 4) || ip.length < (six ? 40 : 20)) return undefined;
  return six ? layout6(ip) : layout4(ip);
}

const word = (ip: Uint8Array, at: number): number => ((ip[at] ?? 0) << 8) | (ip[at + 1] ?? 0);

function layout4(ip: Uint8Array): Layout | undefined {
  const at = ((ip[0] ?? 0) & 15) * 4;
  const end = word(ip, 2) || ip.length;
  if (at < 20 || end < at || end > ip.length) return undefined;
  const ends = {
    six: false,
    source: addressFromBytes(ip.subarray(12, 16)),
    destination: addressFromBytes(ip.subarray(16, 20)),
  };
  if ((word(ip, 6) & 0x1fff) !== 0) return ends;
  return { ...ends, transport: { at, end, protocol: ip[9] ?? 0 } };
}

function layout6(ip: Uint8Array): Layout | undefined {
  const end = word(ip, 4) === 0 ? ip.length : 40 + word(ip, 4);
  const [source, destination] = [ip.subarray(8, 24), ip.subarray(24, 40)].map(addressFromBytes);
  // RFC 4291, section 2.5.5.2: mapped addresses are read as IPv4, and have no business here.
  if (!source?.includes(':') || !destination?.includes(':')) return undefined;
  const ends = { six: true, source, destination };
  let [at, protocol] = [40, ip[6] ?? 0];
  for (let headers = 0; [0, 43, 44, 60].includes(protocol); headers++) {
    if (headers === 4 || at + 4 > ip.length) return undefined;
    if (protocol === 44 && (word(ip, at + 2) & 0xfff8) !== 0) {
      return end > ip.length || end < at ? undefined : ends;
    }
    const length = protocol === 44 ? 8 : 8 + (ip[at + 1] ?? 0) * 8;
    protocol = ip[at] ?? 0;
    at += length;
  }
  if (end > ip.length || end < at) return undefined;
  return { ...ends, transport: { at, end, protocol } };
}

const CHECKSUM_AT = { tcp: 16, udp: 6, icmp: 2 } as const;
const TCP = 6;
const UDP = 17;
const ICMP4 = 1;
const ICMP6 = 58;

/** Where the checksum is that knows the addresses; undefined: there is none. */
export function checksumAt(l: Layout): number | undefined {
  const { transport } = l;
  if (transport === undefined) return undefined;
  switch (transport.protocol) {
    case TCP:
      return transport.at + CHECKSUM_AT.tcp;
    case UDP:
      return transport.at + CHECKSUM_AT.udp;
    case ICMP6:
      return transport.at + CHECKSUM_AT.icmp;
    default:
      return undefined;
  }
}

const sameNetwork = (a: Address, b: Address): boolean =>
  a.includes(':') ? b.includes(':') && prefixOf(a) === prefixOf(b) : a === b;

const prefixOf = (a: Address): string =>
  Buffer.from(addressBytes(a).subarray(0, 8)).toString('hex');

const linkLocal = (a: Address): boolean => /^fe[89ab]/.test(prefixOf(a)) && a.includes(':');

/** Of no network yet: the source of whoever has no address. */
const ofNowhere = (a: Address): boolean =>
  a.includes(':') ? prefixOf(a) === '0000000000000000' : a === '0.0.0.0';

const ofMany = (a: Address): boolean => {
  const [first = 0] = addressBytes(a);
  return a.includes(':') ? first === 0xff : first >= 224;
};

/** The guest's name, of this family, inside or outside. */
const nameOf = (names: typeof INSIDE, six: boolean): Address => names[six ? 6 : 4];

/** What becomes of a packet that is no flow's and none of neighbour discovery and DHCP. */
export function fate(l: Layout | undefined, direction: Direction): Fate {
  if (l === undefined) return 'malformed';
  const [own, names] =
    direction === 'out' ? [l.source, INSIDE] : ([l.destination, OUTSIDE] as const);
  if (direction === 'in' && (ofMany(own) || linkLocal(own))) return 'same';
  if (!sameNetwork(own, nameOf(names, l.six))) {
    return direction === 'out' && (linkLocal(own) || ofNowhere(own)) ? 'same' : 'foreign';
  }
  const check = checksumAt(l);
  const cut = check !== undefined && check + 2 > (l.transport?.end ?? 0);
  return cut ? 'malformed' : 'translated';
}

/** The other name of an address of the guest. */
export function renamed(own: Address, direction: Direction): Address {
  const name = (direction === 'out' ? OUTSIDE : INSIDE)[own.includes(':') ? 6 : 4];
  if (!own.includes(':')) return name;
  const bytes = addressBytes(name).slice();
  bytes.set(addressBytes(own).subarray(8), 8);
  return addressFromBytes(bytes);
}

/** The guest's end of an IP header that begins at `l3`, in bytes of the packet. */
const ownField = (l3: number, six: boolean, source: boolean): [number, number] =>
  six ? [l3 + (source ? 8 : 24), 8] : [l3 + (source ? 12 : 16), 4];

/** Which bytes of a translated packet may differ: [offset, length]. */
export function changeable(ip: Uint8Array, l: Layout, direction: Direction): [number, number][] {
  const source = direction === 'out';
  const check = checksumAt(l);
  const fields: [number, number][] = [ownField(0, l.six, source)];
  if (!l.six) fields.push([10, 2]);
  if (check !== undefined) fields.push([check, 2]);
  const quoted = quotedAt(ip, l);
  if (quoted === undefined) return fields;
  fields.push(ownField(quoted, l.six, !source));
  if (!l.six) fields.push([quoted + 10, 2]);
  return fields;
}

/** Where the packet is that an ICMP error quotes; undefined: it is none. */
export function quotedAt(ip: Uint8Array, l: Layout): number | undefined {
  const { transport } = l;
  if (transport?.protocol !== (l.six ? ICMP6 : ICMP4)) return undefined;
  const type = ip[transport.at] ?? 0;
  const error = l.six ? type >= 1 && type <= 4 : [3, 11, 12].includes(type);
  const at = transport.at + 8;
  return error && at + (l.six ? 40 : 20) <= transport.end ? at : undefined;
}

/**
 * What the sums over a packet leave, of its IPv4 header and of its message with the pseudo-header:
 * translation must not change them, right or wrong as they may be.
 */
export function sums(ip: Uint8Array, l: Layout): number[] {
  const { transport } = l;
  const header = l.six ? [] : [naiveSum([ip.subarray(0, ((ip[0] ?? 0) & 15) * 4)]) % 0xffff];
  if (transport === undefined) return header;
  const message = ip.subarray(transport.at, transport.end);
  if (!l.six && transport.protocol === ICMP4) return [...header, naiveSum([message]) % 0xffff];
  if (checksumAt(l) === undefined) return header;
  if (transport.protocol === UDP && word(message, CHECKSUM_AT.udp) === 0) return [...header, 0];
  return [...header, naiveTransportSum(l, transport.protocol, message) % 0xffff];
}
