/* The kernel's routes to peers, asked for once where a thousand flows want to know at once. */

import type { Netlink } from '../link/netlink.js';
import { type Route, routeTo } from '../link/route.js';
import type { Address } from '../wire/address.js';
import { monotonicMs } from './clock.js';

/* Changes of routes are told, changes of policy rules are not. */
const AGE_MAX_MS = 1000;

export class Routes {
  #netlink: Netlink;
  #known = new Map<Address, Route | undefined>();
  #since = 0;

  constructor(netlink: Netlink) {
    this.#netlink = netlink;
  }

  /** How the kernel would reach a peer; undefined: not at all. */
  to(peer: Address): Route | undefined {
    if (monotonicMs() - this.#since > AGE_MAX_MS) this.changed();
    if (!this.#known.has(peer)) this.#known.set(peer, routeTo(this.#netlink, peer));
    return this.#known.get(peer);
  }

  /** To be called when an address, a link or a route has changed. */
  changed(): void {
    this.#known.clear();
    this.#since = monotonicMs();
  }

  /** Whether packets to `wanted` need another next hop than those to `known`. */
  differ(known: Address, wanted: Address): boolean {
    if (known === wanted) return false;
    const [a, b] = [this.to(known), this.to(wanted)];
    if (a === undefined || b === undefined) return false;
    return nextHop(a, known) !== nextHop(b, wanted);
  }
}

/* On-link the next hop is the peer itself. */
const nextHop = (route: Route, peer: Address): string =>
  `${route.interface} ${route.gateway ?? peer}`;
