/*
 * What the kernel is asked and told in rtnetlink: dumps, look-ups, changes of addresses, routes
 * and rules (RFC 3549, section 3; rtnetlink(7)).  What it says: rtnetlink.ts.  Pure.
 */

import { attribute, encodeMessage, FLAG } from '../netlink/message.js';
import { type Address, addressBytes, family } from '../wire/address.js';
import {
  ADDRESS_FAMILY,
  type PortSpan,
  RTM,
  RULE_ACTION,
  type RuleRecord,
  type Version,
} from './rtnetlink.js';

const IFA_NOPREFIXROUTE = 0x200;
const TABLE_COMPAT = 252;
const RTAX_HOPLIMIT = 10;
const RTNH_F_ONLINK = 4;
const RTM_F_FIB_MATCH = 0x2000;
const RTM_F_LOOKUP_TABLE = 0x1000;
const ALL_BITS = 0xffffffff;

/** All links, without their statistics. */
export const getLinks = (): Uint8Array =>
  encodeMessage(RTM.GETLINK, FLAG.REQUEST | FLAG.DUMP, [
    new Uint8Array(16),
    attribute(29, 1 << 3), // IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS
  ]);

/** One link by its index. */
export function getLink(index: number): Uint8Array {
  const header = new Uint8Array(16);
  new DataView(header.buffer).setInt32(4, index, true);
  return encodeMessage(RTM.GETLINK, FLAG.REQUEST | FLAG.ACK, [header]);
}

/** All addresses of both families. */
export const getAddresses = (): Uint8Array =>
  encodeMessage(RTM.GETADDR, FLAG.REQUEST | FLAG.DUMP, [new Uint8Array(8)]);

/** The addresses of one interface. */
export function getAddressesOf(version: Version, index: number): Uint8Array {
  const header = new Uint8Array(8);
  header[0] = ADDRESS_FAMILY[version];
  new DataView(header.buffer).setUint32(4, index, true);
  return encodeMessage(RTM.GETADDR, FLAG.REQUEST | FLAG.DUMP, [header]);
}

/** The routes of one table. */
export const getRoutes = (version: Version, table: number): Uint8Array =>
  encodeMessage(RTM.GETROUTE, FLAG.REQUEST | FLAG.DUMP, [
    routeHeader({ version, prefixLength: 0, table: 0, protocol: 0, scope: 0, type: 0 }),
    attribute(15, table), // RTA_TABLE
  ]);

/** What a look-up of a route may name beside the destination. */
export interface LookUp {
  mark?: number | undefined;
  /** The packet's source, by which policy rules choose a table. */
  source?: Address | undefined;
  /** The index of the interface that it is to leave by. */
  index?: number | undefined;
}

/** The route that a packet to `peer` would take. */
export function lookupRoute(peer: Address, { mark, source, index }: LookUp = {}): Uint8Array {
  const version = family(peer);
  const prefixLength = version === 4 ? 32 : 128;
  const header = routeHeader({ version, prefixLength, table: 0, protocol: 0, scope: 0, type: 0 });
  if (version === 4) header[9] = RTM_F_LOOKUP_TABLE >> 8;
  const parts = [header, attribute(1, addressBytes(peer))];
  if (mark !== undefined) parts.push(attribute(16, mark)); // RTA_MARK
  if (index !== undefined) parts.push(attribute(4, index)); // RTA_OIF
  if (source !== undefined) {
    header[2] = prefixLength;
    parts.push(attribute(2, addressBytes(source))); // RTA_SRC
  }
  return encodeMessage(RTM.GETROUTE, FLAG.REQUEST | FLAG.ACK, parts);
}

/** The entry of a table that a packet of ours to an address would go by, as it was made. */
export function matchRoute(to: Address): Uint8Array {
  const version = family(to);
  const prefixLength = version === 4 ? 32 : 128;
  const header = routeHeader({ version, prefixLength, table: 0, protocol: 0, scope: 0, type: 0 });
  new DataView(header.buffer).setUint32(8, RTM_F_FIB_MATCH, true);
  const parts = [header, attribute(1, addressBytes(to))];
  return encodeMessage(RTM.GETROUTE, FLAG.REQUEST | FLAG.ACK, parts);
}

/** All policy rules of a family. */
export function getRules(version: Version): Uint8Array {
  const header = new Uint8Array(12);
  header[0] = ADDRESS_FAMILY[version];
  return encodeMessage(RTM.GETRULE, FLAG.REQUEST | FLAG.DUMP, [header]);
}

export interface AddressChange {
  address: Address;
  prefixLength: number;
  index: number;
  scope: number;
  /** The other end; the prefix is that one's. */
  peer?: Address | undefined;
}

/** Adds or removes an address; without a prefix route. */
export function changeAddress(verb: 'add' | 'remove', a: AddressChange): Uint8Array {
  const header = new Uint8Array(8);
  header.set([ADDRESS_FAMILY[family(a.address)], a.prefixLength, 0, a.scope]);
  new DataView(header.buffer).setUint32(4, a.index, true);
  const [own, peer] = [addressBytes(a.address), addressBytes(a.peer ?? a.address)];
  const parts = [header, attribute(2, own), attribute(1, peer)]; // IFA_LOCAL, IFA_ADDRESS
  if (verb === 'add') parts.push(attribute(8, IFA_NOPREFIXROUTE)); // IFA_FLAGS
  return encodeMessage(...changing(verb, RTM.NEWADDR, RTM.DELADDR), parts);
}

export interface RouteChange {
  version: Version;
  destination?: Address | undefined;
  prefixLength: number;
  table: number;
  protocol: number;
  scope: number;
  type: number;
  index?: number | undefined;
  gateway?: Address | undefined;
  /** The gateway is a neighbour on the interface, whatever the addresses say. */
  onLink?: boolean;
  metric?: number | undefined;
  hopLimit?: number | undefined;
}

/** Adds a route, replacing an equal one, or removes it. */
export function changeRoute(verb: 'add' | 'remove', r: RouteChange): Uint8Array {
  const header = routeHeader(r);
  if (r.onLink) header[8] = RTNH_F_ONLINK;
  const parts = [header, attribute(15, r.table)];
  if (r.destination !== undefined) parts.push(attribute(1, addressBytes(r.destination)));
  if (r.index !== undefined) parts.push(attribute(4, r.index));
  if (r.gateway !== undefined) parts.push(gatewayAttribute(r.gateway, r.version));
  if (r.metric !== undefined) parts.push(attribute(6, r.metric));
  // To remove a route, one need not know its metrics.
  if (r.hopLimit !== undefined && verb === 'add') {
    parts.push(attribute(8, [attribute(RTAX_HOPLIMIT, r.hopLimit)]));
  }
  return encodeMessage(...changing(verb, RTM.NEWROUTE, RTM.DELROUTE, FLAG.REPLACE), parts);
}

/** All neighbours of both families. */
export const getNeighbours = (): Uint8Array =>
  encodeMessage(RTM.GETNEIGH, FLAG.REQUEST | FLAG.DUMP, [new Uint8Array(12)]);

/** One neighbour. */
export function getNeighbour(neighbour: Address, index: number): Uint8Array {
  const header = new Uint8Array(12);
  header[0] = ADDRESS_FAMILY[family(neighbour)];
  new DataView(header.buffer).setInt32(4, index, true);
  const parts = [header, attribute(1, addressBytes(neighbour))]; // NDA_DST
  return encodeMessage(RTM.GETNEIGH, FLAG.REQUEST | FLAG.ACK, parts);
}

/** Forgets a neighbour, and with it the packets that wait for its hardware address. */
export function removeNeighbour(neighbour: Address, index: number): Uint8Array {
  const header = new Uint8Array(12);
  header[0] = ADDRESS_FAMILY[family(neighbour)];
  new DataView(header.buffer).setInt32(4, index, true);
  const parts = [header, attribute(1, addressBytes(neighbour))]; // NDA_DST
  return encodeMessage(RTM.DELNEIGH, FLAG.REQUEST | FLAG.ACK, parts);
}

/** Adds a policy rule (EEXIST if there is an equal one) or removes it. */
export function changeRule(verb: 'add' | 'remove', r: RuleRecord): Uint8Array {
  const length = (a: Address | undefined) => (a === undefined ? 0 : addressBytes(a).length * 8);
  const header = new Uint8Array(12);
  header.set([ADDRESS_FAMILY[r.version], length(r.to), length(r.from), 0]);
  header[7] = actionNumber(r.action);
  const parts = [header, attribute(6, r.priority), attribute(15, r.table)];
  parts.push(attribute(21, Uint8Array.of(r.protocol))); // FRA_PROTOCOL
  if (r.to !== undefined) parts.push(attribute(1, addressBytes(r.to)));
  if (r.from !== undefined) parts.push(attribute(2, addressBytes(r.from)));
  if (r.mark !== 0) parts.push(attribute(10, r.mark), attribute(16, ALL_BITS));
  if (r.inInterface !== undefined) parts.push(attribute(3, textBytes(r.inInterface)));
  if (r.outInterface !== undefined) parts.push(attribute(17, textBytes(r.outInterface)));
  if (r.suppressPrefixLength !== undefined) parts.push(attribute(14, r.suppressPrefixLength));
  if (typeof r.action === 'object') parts.push(attribute(4, r.action.goto));
  if (r.ipProtocol !== undefined) parts.push(attribute(22, Uint8Array.of(r.ipProtocol)));
  if (r.sourcePorts !== undefined) parts.push(attribute(23, spanBytes(r.sourcePorts)));
  if (r.destinationPorts !== undefined) parts.push(attribute(24, spanBytes(r.destinationPorts)));
  return encodeMessage(...changing(verb, RTM.NEWRULE, RTM.DELRULE, FLAG.EXCLUSIVE), parts);
}

const textBytes = (text: string): Uint8Array => new TextEncoder().encode(`${text}\0`);

function actionNumber(action: RuleRecord['action']): number {
  if (action === undefined) return RULE_ACTION.TO_TABLE;
  return action === 'nop' ? RULE_ACTION.NOP : RULE_ACTION.GOTO;
}

const spanBytes = (span: PortSpan): Uint8Array => new Uint8Array(Uint16Array.from(span).buffer);

/* RTA_GATEWAY, or RTA_VIA where the families differ. */
function gatewayAttribute(gateway: Address, version: Version): Uint8Array {
  const bytes = addressBytes(gateway);
  if (family(gateway) === version) return attribute(5, bytes);
  return attribute(18, Uint8Array.of(ADDRESS_FAMILY[family(gateway)], 0, ...bytes));
}

function routeHeader(
  r: Pick<RouteChange, 'version' | 'prefixLength' | 'table' | 'protocol' | 'scope' | 'type'>,
): Uint8Array {
  const header = new Uint8Array(12);
  const table = r.table > 255 ? TABLE_COMPAT : r.table;
  header.set([ADDRESS_FAMILY[r.version], r.prefixLength, 0, 0, table, r.protocol, r.scope, r.type]);
  return header;
}

function changing(
  verb: 'add' | 'remove',
  add: number,
  remove: number,
  unless: number = FLAG.EXCLUSIVE,
): [type: number, flags: number] {
  const acknowledged = FLAG.REQUEST | FLAG.ACK;
  return verb === 'add' ? [add, acknowledged | FLAG.CREATE | unless] : [remove, acknowledged];
}
