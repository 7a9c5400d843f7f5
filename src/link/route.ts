/*
 * Which way, and from which address, the kernel would send to a peer: the place to move to.
 * Not for changing routes: those belong to the operator and to the network manager.
 */
import { SystemError } from '../libc/errno.js';
import { interfaceIndex } from '../libc/socket.js';
import type { Netlink } from '../netlink/netlink.js';
import { type Address, isLinkLocal } from '../wire/address.js';
import { decodeLink, decodeRoute, type RouteRecord } from './rtnetlink.js';
import { getLink, type LookUp, lookupRoute } from './rtnetlink-request.js';

export interface Route {
  /** What a new connection to the peer would be sent from, or what was asked for. */
  source: Address;
  interface: string;
  gateway?: Address;
}

/** What the kernel does with a packet that is sent to an address, by the numbers of rtnetlink(7). */
const ROUTE_TYPES = ['unspec', 'unicast', 'local', 'broadcast', 'anycast', 'multicast'] as const;
export type RouteType = (typeof ROUTE_TYPES)[number] | 'other';

/* No route; "unreachable", "blackhole" and "prohibit" routes; no such interface any more. */
const UNREACHABLE = ['ENETUNREACH', 'EHOSTUNREACH', 'EINVAL', 'EACCES', 'ENETDOWN', 'ENODEV'];

/** What a packet is like whose way is asked for, beside its destination. */
export interface Way {
  mark?: number;
  /** Its source: policy rules may choose a routing table by it. */
  from?: Address;
  /** The interface that it is to leave by. */
  by?: string;
}

/**
 * The kernel's route to `peer` for such a packet; undefined if there is none that a connection
 * could use: no route, or a source address of link scope only.  Throws SystemError.
 */
export function routeTo(netlink: Netlink, peer: Address, way: Way = {}): Route | undefined {
  const route = lookUpWay(netlink, peer, way);
  const source = way.from ?? route?.source;
  if (route?.index === undefined || source === undefined) return undefined;
  // While an address is tentative, the kernel answers with the link-local one.
  if (isLinkLocal(source) && !isLinkLocal(peer)) return undefined;
  const name = interfaceName(netlink, route.index);
  if (name === undefined) return undefined;
  const found = { source, interface: name };
  return route.gateway === undefined ? found : { ...found, gateway: route.gateway };
}

function lookUpWay(netlink: Netlink, peer: Address, way: Way): RouteRecord | undefined {
  const { mark, from: source, by } = way;
  const index = by === undefined ? undefined : interfaceIndex(by);
  if (by !== undefined && index === undefined) return undefined;
  const route = lookUp(netlink, peer, { mark, source, index });
  /* Asked for an interface without any route, IPv4 takes every destination for a neighbour there
   * (ip_route_output_key_hash_rcu); then it names no table.
   */
  return route?.table === 0 ? undefined : route;
}

/** Of what kind the kernel's route to an address is; undefined: there is none.  Throws SystemError. */
export function routeType(netlink: Netlink, to: Address): RouteType | undefined {
  const route = lookUp(netlink, to);
  return route && (ROUTE_TYPES[route.type] ?? 'other');
}

function lookUp(netlink: Netlink, peer: Address, o: LookUp = {}): RouteRecord | undefined {
  return unlessUnreachable(() => {
    const [answer] = netlink.request(lookupRoute(peer, o), `look up the route to ${peer}`);
    return answer === undefined ? undefined : decodeRoute(answer);
  });
}

function interfaceName(netlink: Netlink, index: number): string | undefined {
  return unlessUnreachable(() => {
    const [answer] = netlink.request(getLink(index), `name of interface ${index}`);
    return answer === undefined ? undefined : decodeLink(answer)?.name;
  });
}

function unlessUnreachable<T>(ask: () => T): T | undefined {
  try {
    return ask();
  } catch (error) {
    if (error instanceof SystemError && UNREACHABLE.includes(error.code)) return undefined;
    throw error;
  }
}
