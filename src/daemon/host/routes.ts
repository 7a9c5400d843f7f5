/* The kernel's routes to peers, asked for once where a thousand flows want to know at once. */

import type { Route, Way } from '../../link/route.js';
import type { Address } from '../../wire/address.js';

/* Changes of routes are told, changes of policy rules are not. */
const AGE_MAX_MS = 1000;

export class Routes {
  readonly #known = new Map<string, Route | undefined>();
  #since = 0;

  /** `ask`: the kernel. */
  constructor(
    private readonly ask: (peer: Address, way: Way) => Route | undefined,
    private readonly nowMs: () => number,
  ) {}

  /** How the kernel would send such a packet to a peer; undefined: not at all. */
  to(peer: Address, way: Way = {}): Route | undefined {
    if (this.nowMs() - this.#since > AGE_MAX_MS) this.changed();
    const key = `${peer} ${way.from} ${way.by}`;
    if (!this.#known.has(key)) this.#known.set(key, this.ask(peer, way));
    return this.#known.get(key);
  }

  /**
   * By which way packets from an address of ours leave.  Where it is another machine's, which we
   * are the gateway of, or nobody's, the kernel has no answer, and it is the way of all.
   */
  from(source: Address, peer: Address): Route | undefined {
    return this.to(peer, { from: source }) ?? this.to(peer);
  }

  /** To be called when an address, a link or a route has changed. */
  changed(): void {
    this.#known.clear();
    this.#since = this.nowMs();
  }

  /** Whether packets to `wanted` need another next hop than those to `known`, each from its source. */
  differ(known: Ends, wanted: Ends): boolean {
    if (known.remote === wanted.remote && known.local === wanted.local) return false;
    const [a, b] = [known, wanted].map(({ local, remote }) => this.from(local, remote));
    if (a === undefined || b === undefined) return false;
    return nextHop(a, known.remote) !== nextHop(b, wanted.remote);
  }
}

/** The addresses of a tuple. */
export interface Ends {
  local: Address;
  remote: Address;
}

/* On-link the next hop is the peer itself. */
const nextHop = (route: Route, peer: Address): string =>
  `${route.interface} ${route.gateway ?? peer}`;
