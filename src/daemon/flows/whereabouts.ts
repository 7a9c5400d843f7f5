/* Where a flow stands when addresses and links change, and what has to become of it: pure.
 * mobility.ts acts on it.
 *
 *   home       the wire's address is configured and its link is alive: nothing to do
 *   dark       configured, but the link is dead, or may lead elsewhere by now, and there is no
 *              other way: hold and wait for the link
 *   stranded   the address is gone and there is no way to the peer yet: hold and wait
 *   elsewhere  the kernel would reach the peer from another address now: synchronize from there
 */

import type { Route } from '../../link/route.js';
import type { Underway } from '../../sync/agent.js';
import { type Address, family } from '../../wire/address.js';

export type Whereabouts =
  | { at: 'home'; interface: string }
  | { at: 'dark' }
  | { at: 'stranded' }
  | { at: 'elsewhere'; source: Address; interface: string };

/** An interface that has an address; `carrier`: and can be relied on. */
export interface Holder {
  interface: string;
  carrier: boolean;
}

/** The machine's addresses and links at one instant. */
export interface Surroundings {
  /** Interfaces that hold the address; lo, if the kernel delivers to it and no other has it. */
  holders(address: Address): Holder[];
  /** How the kernel would reach the peer; undefined: not at all. */
  routeTo(peer: Address): Route | undefined;
  /** Whether a boundary is attached there: no flow can live on an interface without. */
  attached(interfaceName: string): boolean;
}

/** `local`, `remote`: of the wire that the flow is on now. */
export function whereabouts(local: Address, remote: Address, s: Surroundings): Whereabouts {
  const holders = s.holders(local);
  const home = holders.find((holder) => holder.carrier);
  if (home !== undefined) return { at: 'home', interface: home.interface };
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

export type Course =
  | { do: 'nothing' }
  | { do: 'synchronize'; source: Address; interface: string }
  | { do: 'wait' } // held, and nothing is sent: there is nowhere to send it from
  | { do: 'go on' }; // as its mapping says

/** What a flow is doing at this moment. */
export interface Doing {
  /** The local address of the wire that it is on. */
  local: Address;
  held: boolean;
  /** Its mapping waits for the first packet over it. */
  unproven: boolean;
  /** The synchronization that runs for it. */
  underway: Underway | undefined;
  /** It runs although the flow is at home, as nothing comes back (stalls.ts). */
  trying: boolean;
}

/**
 * From what is, never from how it came to be: a flow that was on its way to another address may be
 * home again by now, with its mapping proven or not, and the other way round.
 */
export function course(where: Whereabouts, flow: Doing): Course {
  switch (where.at) {
    case 'home':
      return courseAtHome(where, flow);
    case 'dark':
    case 'stranded':
      return { do: 'wait' };
    case 'elsewhere':
      return { do: 'synchronize', source: where.source, interface: where.interface };
  }
}

function courseAtHome({ interface: name }: { interface: string }, flow: Doing): Course {
  const { local, unproven, underway } = flow;
  if (underway?.source === local) {
    // Confirming, though it is proven: the event that says so is on its way to the agent.
    const goesOn = unproven || flow.trying || underway.state === 'confirming';
    if (goesOn) return { do: 'nothing' };
  }
  // Mapped by an attempt that did not come to its end, perhaps of a daemon before us.
  if (unproven) return { do: 'synchronize', source: local, interface: name };
  return underway !== undefined || flow.held ? { do: 'go on' } : { do: 'nothing' };
}
