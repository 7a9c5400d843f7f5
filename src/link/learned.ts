/*
 * What the kernel has learned from the routers of a link: addresses and routes, and how to
 * make it forget them.  When to do that: autoconf.ts.
 *
 * Only what the kernel itself has made of advertisements: an address of DHCPv6 (a /128 with a
 * lifetime) or of a person belongs to whoever has given it, and that one cannot know of its loss.
 */
import { SystemError } from '../libc/errno.js';
import type { Netlink } from '../netlink/netlink.js';
import { type Address, addressBytes, addressFromBytes, family } from '../wire/address.js';
import {
  type AddressRecord,
  decodeAddress,
  decodeRoute,
  PROTOCOL,
  type RouteRecord,
  SCOPE,
  TABLE,
} from './rtnetlink.js';
import {
  changeAddress,
  changeRoute,
  getAddresses,
  getRoutes,
  removeNeighbour,
} from './rtnetlink-request.js';

export interface Learned {
  /** Of the interface. */
  index: number;
  addresses: AddressRecord[];
  routes: RouteRecord[];
  /** In the form of prefixOf. */
  prefixes: Set<string>;
  atMs: number;
}

/* The kernel counts lifetimes in steps of 10 ms. */
const LIFETIME_TOLERANCE_MS = 30;

/** What the kernel has learned from the routers on an interface, as of now. */
export function learnedFromRouters(netlink: Netlink, index: number): Learned {
  const all = globalAddresses(netlink, index);
  const advertised = all.filter((a) => a.advertised);
  const autoconfigured = new Set(advertised.map(addressPrefix));
  // A temporary one may as well be made of an address that somebody else has given.
  const temporary = all.filter((a) => a.temporary && autoconfigured.has(addressPrefix(a)));
  const addresses = [...advertised, ...temporary];
  const others = all.filter((a) => !addresses.includes(a)).map(addressPrefix);
  const routes = learnedRoutes(netlink, index).filter((r) => !others.includes(onLinkPrefix(r)));
  const onLink = routes.map(onLinkPrefix).filter((prefix) => prefix !== '');
  const prefixes = new Set([...autoconfigured, ...onLink]);
  return { index, addresses, routes, prefixes, atMs: performance.now() };
}

const globalAddresses = (netlink: Netlink, index: number): AddressRecord[] =>
  netlink
    .request(getAddresses(), 'list the addresses')
    .flatMap((m) => decodeAddress(m) ?? [])
    .filter((a) => a.index === index && family(a.address) === 6 && a.scope === SCOPE.GLOBAL);

const addressPrefix = (a: AddressRecord): string => prefixOf(a.address, a.prefixLength);

/* '' for a route over a gateway.  The kernel makes such a route also for an address with a lifetime
 * that somebody else has given, and does not say which of the two it is.
 */
const onLinkPrefix = (r: RouteRecord): string =>
  r.protocol === PROTOCOL.KERNEL && r.destination ? prefixOf(r.destination, r.prefixLength) : '';

/**
 * Removes what was learned, except addresses with a `confirmed` prefix, and routes that an
 * advertisement has renewed meanwhile: two links may well have routers with the same link-local
 * address.  The addresses that were removed.
 */
export function dropLearned(
  netlink: Netlink,
  interfaceName: string,
  old: Learned,
  confirmed: ReadonlySet<string>,
): Address[] {
  const attempted = `drop what the old link of ${interfaceName} gave`;
  const elapsedMs = performance.now() - old.atMs;
  for (const route of learnedRoutes(netlink, old.index)) {
    const before = old.routes.find((r) => sameRoute(r, route));
    if (before === undefined || isRenewed(before, route, elapsedMs)) continue;
    remove(netlink, attempted, changeRoute('remove', route));
    // A segment that waits for the old router's hardware address is not sent again by TCP until
    // neighbour discovery has failed, 3 s later (tcp_output.c, skb_still_in_host_queue).
    if (route.gateway) remove(netlink, attempted, removeNeighbour(route.gateway, old.index));
  }
  return old.addresses
    .filter((a) => !confirmed.has(prefixOf(a.address, a.prefixLength)))
    .filter((a) => remove(netlink, attempted, changeAddress('remove', a)))
    .map((a) => a.address);
}

/** Routers that have given a default route or another, and have not renewed it since. */
export function silentRouters(netlink: Netlink, old: Learned): Address[] {
  const elapsedMs = performance.now() - old.atMs;
  const silent = learnedRoutes(netlink, old.index).flatMap((route) => {
    const before = old.routes.find((r) => sameRoute(r, route));
    if (before === undefined || isRenewed(before, route, elapsedMs)) return [];
    return route.gateway ?? [];
  });
  return [...new Set(silent)];
}

/** '2001:db8:1::/64': the first bits of an address, as canonical text. */
export function prefixOf(a: Address, prefixLength: number): string {
  const bytes = addressBytes(a).slice();
  for (let i = 0; i < bytes.length; i++) {
    const bits = Math.min(8, Math.max(0, prefixLength - i * 8));
    bytes[i] = (bytes[i] ?? 0) & (0xff00 >> bits);
  }
  return `${addressFromBytes(bytes)}/${prefixLength}`;
}

/* Default and more specific routes are tagged; of the on-link ones only the lifetime tells. */
function learnedRoutes(netlink: Netlink, index: number): RouteRecord[] {
  return netlink
    .request(getRoutes(6, TABLE.MAIN), 'list the IPv6 routes')
    .flatMap((m) => decodeRoute(m) ?? [])
    .filter((r) => r.index === index && !r.cloned)
    .filter(
      (r) =>
        r.protocol === PROTOCOL.ROUTER_ADVERTISEMENT ||
        (r.protocol === PROTOCOL.KERNEL && r.expiresMs !== undefined),
    );
}

const sameRoute = (a: RouteRecord, b: RouteRecord): boolean =>
  a.destination === b.destination &&
  a.prefixLength === b.prefixLength &&
  a.gateway === b.gateway &&
  a.metric === b.metric;

/* Left alone, a lifetime only runs down. */
function isRenewed(before: RouteRecord, now: RouteRecord, elapsedMs: number): boolean {
  if (before.expiresMs === undefined || now.expiresMs === undefined) {
    return before.expiresMs !== now.expiresMs;
  }
  return now.expiresMs > before.expiresMs - elapsedMs + LIFETIME_TOLERANCE_MS;
}

/** False if it was gone already. */
function remove(netlink: Netlink, attempted: string, message: Uint8Array): boolean {
  try {
    netlink.request(message, attempted);
    return true;
  } catch (error) {
    const gone = ['ENOENT', 'ESRCH', 'EADDRNOTAVAIL'];
    if (error instanceof SystemError && gone.includes(error.code)) return false;
    throw error;
  }
}
