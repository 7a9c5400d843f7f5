/* The kernel's routes to peers, asked for once where a thousand flows want to know at once. */

import type { Route } from '../../link/route.js';
import type { Address } from '../../wire/address.js';

/* Changes of routes are told, changes of policy rules are not. */
const AGE_MAX_MS = 1000;

export class Routes {
  readonly #known = new Map<Address, Route | undefined>();
  #since = 0;

  /** `ask`: the kernel. */
  constructor(
    private readonly ask: (peer: Address) => Route | undefined,
    private readonly nowMs: () => number,
  ) {}

  /** How the kernel would reach a peer; undefined: not at all. */
  to(peer: Address): Route | undefined {
    if (this.nowMs() - this.#since > AGE_MAX_MS) this.changed();
    if (!this.#known.has(peer)) this.#known.set(peer, this.ask(peer));
    return this.#known.get(peer);
  }

  /** To be called when an address, a link or a route has changed. */
  changed(): void {
    this.#known.clear();
    this.#since = this.nowMs();
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
