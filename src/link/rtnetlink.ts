/*
 * What the kernel says in rtnetlink of links, addresses, routes and rules (RFC 3549, section 3;
 * rtnetlink(7)).  What it is asked: rtnetlink-request.ts.
 *
 * Pure.  Only the fields that tiflow needs; unknown attributes are passed over, and a message
 * that lies about a length is undefined, never an exception.
 */

import {
  type Attributes,
  attributeNumber,
  attributeText,
  decodeAttributes,
  type NetlinkMessage,
} from '../netlink/message.js';
import { type Address, addressFromBytes } from '../wire/address.js';

/** RTM_…: the types of messages. */
export const RTM = {
  NEWLINK: 16,
  DELLINK: 17,
  GETLINK: 18,
  NEWADDR: 20,
  DELADDR: 21,
  GETADDR: 22,
  NEWROUTE: 24,
  DELROUTE: 25,
  GETROUTE: 26,
  DELNEIGH: 29,
  GETNEIGH: 30,
  NEWRULE: 32,
  DELRULE: 33,
  GETRULE: 34,
  NEWPREFIX: 52,
  NEWQDISC: 36,
  DELQDISC: 37,
  NEWTFILTER: 44,
  DELTFILTER: 45,
} as const;

/** RTMGRP_…: notifications to subscribe to. */
export const GROUP = {
  LINK: 1 << 0,
  TRAFFIC_CONTROL: 1 << 3,
  IPV4_ADDRESS: 1 << 4,
  IPV4_ROUTE: 1 << 6,
  IPV4_RULE: 1 << 7,
  IPV6_ADDRESS: 1 << 8,
  IPV6_ROUTE: 1 << 10,
  IPV6_PREFIX: 1 << 17,
  IPV6_RULE: 1 << 18,
} as const;

/** RTPROT_…: who made a route. */
export const PROTOCOL = { KERNEL: 2, ROUTER_ADVERTISEMENT: 9 } as const;

export const TABLE = { MAIN: 254, LOCAL: 255 } as const;
export const ROUTE_TYPE = { UNICAST: 1, LOCAL: 2 } as const;
/** FR_ACT_…: what a policy rule does. */
export const RULE_ACTION = { TO_TABLE: 1, GOTO: 2, NOP: 3 } as const;
export const SCOPE = { GLOBAL: 0, LINK: 253, HOST: 254 } as const;

/** AF_INET and AF_INET6. */
export const ADDRESS_FAMILY = { 4: 2, 6: 10 } as const;
export type Version = 4 | 6;

/* RFC 2863, ifOperStatus: UNKNOWN is what drivers say that do not know more than the carrier. */
const OPERATIONAL = { UNKNOWN: 0, UP: 6 } as const;

const IFF = { UP: 0x1, LOWER_UP: 0x10000 } as const;
const IFA_FLAG = { OPTIMISTIC: 0x4, DAD_FAILED: 0x8, DEPRECATED: 0x20, TENTATIVE: 0x40 } as const;
const IFA_PERMANENT = 0x80;
const IFA_TEMPORARY = 0x1;
const IFAPROT_KERNEL_RA = 2;
const ARPHRD_ETHER = 1;
const NUD_INCOMPLETE = 0x1;
/* PERMANENT, NOARP, REACHABLE, PROBE, STALE, DELAY. */
const NUD_VALID = 0xde;
/* USER_HZ is 100 everywhere. */
const TICK_MS = 10;

export interface LinkRecord {
  index: number;
  name: string;
  up: boolean;
  /** Up, with a carrier, and not waiting for keys (Wi-Fi, 802.1X: dormant): packets can go. */
  carrier: boolean;
  /** How often the carrier came or went; tells of a flap that was over before we looked. */
  carrierChanges: number;
  mtu: number;
  ethernet: boolean;
  mac: Uint8Array;
  /** The cable of a VM: a tap that is a port of a bridge. */
  vmTap: boolean;
  /** The bridge, bond, ... whose port it is. */
  master: number | undefined;
}

export interface AddressRecord {
  index: number;
  address: Address;
  prefixLength: number;
  scope: number;
  /** Duplicate address detection has not passed it; not to be used yet. */
  tentative: boolean;
  deprecated: boolean;
  /** With a lifetime: SLAAC or DHCP. */
  dynamic: boolean;
  /** The other end of a point-to-point address. */
  peer: Address | undefined;
  /** Made by the kernel of a router's advertisement. */
  advertised: boolean;
  /** RFC 8981: made by the kernel of another address in the same prefix. */
  temporary: boolean;
}

export interface RouteRecord {
  version: Version;
  table: number;
  type: number;
  scope: number;
  protocol: number;
  cloned: boolean;
  destination: Address | undefined;
  prefixLength: number;
  index: number | undefined;
  /** The links of a route with several next hops. */
  hops: number[];
  gateway: Address | undefined;
  source: Address | undefined;
  metric: number | undefined;
  /** Remaining lifetime; undefined: for ever. */
  expiresMs: number | undefined;
}

export interface RuleRecord {
  version: Version;
  table: number;
  priority: number;
  protocol: number;
  from: Address | undefined;
  to: Address | undefined;
  /** 0: any. */
  mark: number;
  /** IPPROTO_…; without: any. */
  ipProtocol?: number;
  sourcePorts?: PortSpan;
  destinationPorts?: PortSpan;
  /** The interface by which a packet came in; of one by which a socket wants it to leave. */
  inInterface?: string;
  outInterface?: string;
  /** Routes that are no longer than this are passed over. */
  suppressPrefixLength?: number;
  /** What it does other than look up `table`. */
  action?: 'nop' | { goto: number };
}

/** Inclusive; the kernel takes neither 0 nor 65535 for an end of a span of several. */
export type PortSpan = readonly [first: number, last: number];

export interface NeighbourRecord {
  index: number;
  address: Address;
  /** For how long it has been asked for in vain; undefined: it is known, or given up. */
  unresolvedMs: number | undefined;
  /** Its hardware address, as long as the kernel sends there; empty otherwise. */
  mac: Uint8Array;
}

/** An on-link prefix that a valid router advertisement has just carried. */
export interface PrefixRecord {
  index: number;
  prefix: Address;
  prefixLength: number;
}

const AF_BRIDGE = 7;
const SUPPRESS_NOTHING = 0xffffffff;

/**
 * undefined: cannot be read, or is only about the port of a bridge that the link is.  That is told
 * under the same type, without the kind of the link, and as deleted when it leaves the bridge.
 */
export function decodeLink(m: NetlinkMessage): LinkRecord | undefined {
  const parsed = parse(m, 16);
  const name = parsed?.attributes.get(3);
  if (parsed === undefined || name === undefined) return undefined;
  const { header, attributes } = parsed;
  if (header.getUint8(0) === AF_BRIDGE) return undefined;
  const flags = header.getUint32(8, true);
  const up = (flags & IFF.UP) !== 0;
  return {
    index: header.getInt32(4, true),
    name: attributeText(name),
    up,
    carrier: up && (flags & IFF.LOWER_UP) !== 0 && isOperational(attributes.get(16)?.[0]),
    carrierChanges: attributeNumber(attributes.get(35)) ?? 0,
    mtu: attributeNumber(attributes.get(4)) ?? 0,
    ethernet: header.getUint16(2, true) === ARPHRD_ETHER,
    mac: attributes.get(1)?.slice() ?? new Uint8Array(),
    vmTap: attributes.has(10) && linkKind(attributes.get(18)) === 'tun',
    master: attributeNumber(attributes.get(10)),
  };
}

/* IFLA_OPERSTATE; LOWER_UP is there before a Wi-Fi link carries anything. */
const isOperational = (state: number = OPERATIONAL.UNKNOWN): boolean =>
  state === OPERATIONAL.UNKNOWN || state === OPERATIONAL.UP;

/* IFLA_LINKINFO: IFLA_INFO_KIND is the name of the driver. */
function linkKind(info: Uint8Array | undefined): string | undefined {
  const kind = info && decodeAttributes(info)?.get(1);
  return kind && attributeText(kind);
}

export function decodeAddress(m: NetlinkMessage): AddressRecord | undefined {
  const parsed = parse(m, 8);
  if (parsed === undefined) return undefined;
  const { header, attributes } = parsed;
  // On a point-to-point link IFA_ADDRESS is the peer's; IFA_LOCAL, where there is one, is ours.
  const address = ipAddress(attributes.get(2) ?? attributes.get(1));
  if (address === undefined) return undefined;
  const flags = attributeNumber(attributes.get(8)) ?? header.getUint8(2);
  const unproven = (flags & IFA_FLAG.TENTATIVE) !== 0 && (flags & IFA_FLAG.OPTIMISTIC) === 0;
  return {
    index: header.getUint32(4, true),
    address,
    prefixLength: header.getUint8(1),
    scope: header.getUint8(3),
    tentative: unproven || (flags & IFA_FLAG.DAD_FAILED) !== 0,
    deprecated: (flags & IFA_FLAG.DEPRECATED) !== 0,
    dynamic: (flags & IFA_PERMANENT) === 0,
    peer: attributes.has(2) ? unlessSame(ipAddress(attributes.get(1)), address) : undefined,
    // IFA_PROTO, since Linux 5.18: whoever else adds an address leaves it out, or says another.
    advertised: attributes.get(11)?.[0] === IFAPROT_KERNEL_RA,
    // Of IPv4 the same bit means another address of the same subnet.
    temporary: header.getUint8(0) === ADDRESS_FAMILY[6] && (flags & IFA_TEMPORARY) !== 0,
  };
}

const unlessSame = (a: Address | undefined, b: Address): Address | undefined =>
  a === b ? undefined : a;

export function decodeRoute(m: NetlinkMessage): RouteRecord | undefined {
  const parsed = parse(m, 12);
  const version = parsed && ipVersion(parsed.header);
  if (parsed === undefined || version === undefined) return undefined;
  const { header, attributes } = parsed;
  const expires = attributes.get(12); // RTA_CACHEINFO: struct rta_cacheinfo, third field
  const ticks = expires === undefined ? undefined : attributeNumber(expires.subarray(8));
  return {
    version,
    table: attributeNumber(attributes.get(15)) ?? header.getUint8(4),
    type: header.getUint8(7),
    scope: header.getUint8(6),
    protocol: header.getUint8(5),
    cloned: (header.getUint32(8, true) & 0x200) !== 0, // RTM_F_CLONED
    destination: ipAddress(attributes.get(1)),
    prefixLength: header.getUint8(1),
    index: attributeNumber(attributes.get(4)),
    hops: nextHops(attributes.get(9)),
    // RTA_VIA: an IPv6 gateway of an IPv4 route, behind its 2-byte family.
    gateway: ipAddress(attributes.get(5)) ?? ipAddress(attributes.get(18)?.subarray(2)),
    source: ipAddress(attributes.get(7)),
    metric: attributeNumber(attributes.get(6)),
    expiresMs: ticks === undefined || ticks === 0 ? undefined : (ticks | 0) * TICK_MS,
  };
}

/* RTA_MULTIPATH: struct rtnexthop, each with attributes behind it. */
function nextHops(bytes: Uint8Array | undefined): number[] {
  const found: number[] = [];
  if (bytes === undefined) return found;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + 8 <= bytes.length; ) {
    found.push(view.getInt32(at + 4, true));
    at += Math.max(8, (view.getUint16(at, true) + 3) & ~3);
  }
  return found;
}

export function decodeRule(m: NetlinkMessage): RuleRecord | undefined {
  const parsed = parse(m, 12);
  const version = parsed && ipVersion(parsed.header);
  if (parsed === undefined || version === undefined) return undefined;
  const { header, attributes } = parsed;
  return {
    version,
    table: attributeNumber(attributes.get(15)) ?? header.getUint8(4),
    priority: attributeNumber(attributes.get(6)) ?? 0,
    protocol: attributes.get(21)?.[0] ?? 0,
    from: ipAddress(attributes.get(2)),
    to: ipAddress(attributes.get(1)),
    mark: attributeNumber(attributes.get(10)) ?? 0,
    ...ruleDetails(header.getUint8(7), attributes),
  };
}

type RuleDetails = Omit<
  RuleRecord,
  'version' | 'table' | 'priority' | 'protocol' | 'from' | 'to' | 'mark'
>;

function ruleDetails(action: number, attributes: Attributes): RuleDetails {
  const ipProtocol = attributes.get(22)?.[0];
  const sourcePorts = portSpan(attributes.get(23));
  const destinationPorts = portSpan(attributes.get(24));
  const [inInterface, outInterface] = [attributes.get(3), attributes.get(17)];
  const suppressed = attributeNumber(attributes.get(14)) ?? SUPPRESS_NOTHING;
  const target = action === RULE_ACTION.GOTO ? attributeNumber(attributes.get(4)) : undefined;
  return {
    ...(ipProtocol === undefined ? {} : { ipProtocol }),
    ...(sourcePorts === undefined ? {} : { sourcePorts }),
    ...(destinationPorts === undefined ? {} : { destinationPorts }),
    ...(inInterface && { inInterface: attributeText(inInterface) }),
    ...(outInterface && { outInterface: attributeText(outInterface) }),
    ...(suppressed === SUPPRESS_NOTHING ? {} : { suppressPrefixLength: suppressed }),
    ...(target === undefined ? {} : { action: { goto: target } }),
    ...(action === RULE_ACTION.NOP ? { action: 'nop' } : {}),
  };
}

function portSpan(bytes: Uint8Array | undefined): PortSpan | undefined {
  if (bytes === undefined || bytes.length < 4) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return [view.getUint16(0, true), view.getUint16(2, true)];
}

export function decodeNeighbour(m: NetlinkMessage): NeighbourRecord | undefined {
  const parsed = parse(m, 12);
  const address = parsed && ipAddress(parsed.attributes.get(1));
  if (parsed === undefined || address === undefined) return undefined;
  const { header } = parsed;
  const incomplete = (header.getUint16(8, true) & NUD_INCOMPLETE) !== 0;
  // NDA_CACHEINFO: struct nda_cacheinfo, third field, in USER_HZ.
  const ticks = attributeNumber(parsed.attributes.get(3)?.subarray(8)) ?? 0;
  const unresolvedMs = incomplete ? ticks * TICK_MS : undefined;
  const usable = (header.getUint16(8, true) & NUD_VALID) !== 0;
  const mac = (usable && parsed.attributes.get(2)?.slice()) || new Uint8Array();
  return { index: header.getInt32(4, true), address, unresolvedMs, mac };
}

export function decodePrefix(m: NetlinkMessage): PrefixRecord | undefined {
  const parsed = parse(m, 12);
  const prefix = parsed && ipAddress(parsed.attributes.get(1));
  if (parsed === undefined || prefix === undefined) return undefined;
  const { header } = parsed;
  return { index: header.getInt32(4, true), prefix, prefixLength: header.getUint8(9) };
}

function parse(
  m: NetlinkMessage,
  headerBytes: number,
): { header: DataView; attributes: Attributes } | undefined {
  if (m.payload.length < headerBytes) return undefined;
  const attributes = decodeAttributes(m.payload.subarray(headerBytes));
  if (attributes === undefined) return undefined;
  return {
    header: new DataView(m.payload.buffer, m.payload.byteOffset, headerBytes),
    attributes,
  };
}

function ipVersion(header: DataView): Version | undefined {
  const number = header.getUint8(0);
  if (number === ADDRESS_FAMILY[4]) return 4;
  return number === ADDRESS_FAMILY[6] ? 6 : undefined;
}

const ipAddress = (bytes: Uint8Array | undefined): Address | undefined =>
  bytes !== undefined && (bytes.length === 4 || bytes.length === 16)
    ? addressFromBytes(bytes)
    : undefined;
