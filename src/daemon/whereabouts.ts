/* Where a flow stands when addresses and links change: pure.  mobility.ts acts on it.
 *
 *   home       the wire's address is configured and its link is alive: nothing to do
 *   dark       configured, but the link is dead, or may lead elsewhere by now, and there is no
 *              other way: hold and wait for the link
 *   stranded   the address is gone and there is no way to the peer yet: hold and wait
 *   elsewhere  the kernel would reach the peer from another address now: synchronize from there
 */

import type { Route } from '../link/route.js';
import { type Address, family } from '../wire/address.js';

export type Whereabouts =
  | { at: 'home' }
  | { at: 'dark' }
  | { at: 'stranded' }
  | { at: 'elsewhere'; source: Address; interface: string };

/** The machine's addresses and links at one instant. */
export interface Surroundings {
  /** Interfaces other than lo that hold the address; `carrier`: and can be relied on. */
  holders(address: Address): { interface: string; carrier: boolean }[];
  /** How the kernel would reach the peer; undefined: not at all. */
  routeTo(peer: Address): Route | undefined;
  /** Whether a boundary is attached there: no flow can live on an interface without. */
  attached(interfaceName: string): boolean;
}

/** `local`, `remote`: of the wire that the flow is on now. */
export function whereabouts(local: Address, remote: Address, s: Surroundings): Whereabouts {
  const holders = s.holders(local);
  if (holders.some((holder) => holder.carrier)) return { at: 'home' };
  const route = s.routeTo(remote);
  const lost = holders.length === 0;
  if (route === undefined || !usable(route, local, remote, s)) {
    return { at: lost ? 'stranded' : 'dark' };
  }
  return { at: 'elsewhere', source: route.source, interface: route.interface };
}

/* A retained address can be what the kernel proposes: it is on lo, so nobody holds it.  So can, on a
 * gateway whose uplink has no IPv6 address yet, that of the side of the hosts behind it.
 */
function usable(route: Route, local: Address, remote: Address, s: Surroundings): boolean {
  return (
    route.source !== local &&
    family(route.source) === family(remote) &&
    s.attached(route.interface) &&
    s.holders(route.source).some((holder) => holder.carrier && s.attached(holder.interface))
  );
}
