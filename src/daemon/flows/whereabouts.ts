/* Where a flow stands when addresses, links and routes change, and what has to become of it: pure.
 * mobility.ts acts on it.
 *
 *   home       the wire's address is configured and its link is alive.  `better`: the machine reaches
 *              the peer by another link now, and would be heard there from another address;
 *              `cut`: the flow's own link does not lead to the peer any more
 *   dark       configured, but the link is dead, or may lead elsewhere by now, and there is no
 *              other way: hold and wait for the link
 *   stranded   the address is gone and there is no way to the peer yet: hold and wait
 *   elsewhere  the kernel would reach the peer from another address now: synchronize from there
 *
 * By its address alone a flow is at home wherever packets leave: on many machines they leave by the
 * best link, whatever their source, and work.  So nothing is done where a flow never was kept on one
 * link: only one that has left by where its answers come in can have been left behind.
 */

import type { Route } from '../../link/route.js';
import type { Underway } from '../../sync/agent.js';
import { type Address, family } from '../../wire/address.js';
import { rank } from './prefer.js';

export type Whereabouts =
  | { at: 'home'; interface: string; better?: Route; cut?: true }
  | { at: 'dark' }
  | { at: 'stranded' }
  | { at: 'elsewhere'; source: Address; interface: string };

/** A flow's wire as it is now. */
export interface Wire {
  local: Address;
  remote: Address;
  /** The interface by which it comes in, and is made to leave; undefined: the kernel's choice. */
  kept?: string | undefined;
}

/** An interface that has an address; `carrier`: and can be relied on. */
export interface Holder {
  interface: string;
  carrier: boolean;
}

/** The machine's addresses, links and routes at one instant. */
export interface Surroundings {
  /** Interfaces that hold the address; lo, if the kernel delivers to it and no other has it. */
  holders(address: Address): Holder[];
  /** The ways to the peer, the best first: the kernel's choice, and what else it could do. */
  ways(peer: Address): readonly Route[];
  /** What it costs this flow to live on an interface; the same everywhere unless given. */
  cost?(interfaceName: string): number;
  /** How a packet from an address would be sent to the peer, by an interface or by any. */
  wayFrom(local: Address, peer: Address, by?: string): Route | undefined;
  /** Whether a boundary is attached there: no flow can live on an interface without. */
  attached(interfaceName: string): boolean;
}

export function whereabouts(wire: Wire, s: Surroundings): Whereabouts {
  const holders = s.holders(wire.local);
  const alive = holders.filter((holder) => holder.carrier).map((holder) => holder.interface);
  const home = alive.find((name) => name === wire.kept) ?? alive[0];
  if (home !== undefined) return atHome(home, wire, s);
  const way = waysOf(wire, s)[0];
  // A link that is dead, and that the kernel goes on using: what we moved would not leave.
  const isStuck = holders.some((holder) => holder.interface === s.ways(wire.remote)[0]?.interface);
  if (way === undefined || isStuck) return { at: holders.length === 0 ? 'stranded' : 'dark' };
  return { at: 'elsewhere', source: way.source, interface: way.interface };
}

function atHome(home: string, wire: Wire, s: Surroundings): Whereabouts {
  const at = { at: 'home', interface: home } as const;
  const isStray = wire.kept !== undefined && leavesElsewhere(wire.kept, wire, s);
  // An address that belongs to no link, as those that a routing daemon announces.
  if (isStray && wire.kept !== home) return { ...at, cut: true };
  if (!isStray && s.cost === undefined) return at;
  const isCut = isStray && s.wayFrom(wire.local, wire.remote, home) === undefined;
  const found = isCut ? ({ ...at, cut: true } as const) : at;
  const best = ranked(wire, s).find((way) => usable(way, wire, s, home));
  if (best === undefined || best.interface === home) return found;
  const isCheaper = s.cost !== undefined && s.cost(best.interface) < s.cost(home);
  return isStray || isCheaper ? { ...found, better: best } : found;
}

const ranked = ({ remote }: Wire, s: Surroundings): Route[] => {
  const { cost } = s;
  return rank(s.ways(remote), (name) => cost?.(name) ?? 0);
};

function leavesElsewhere(home: string, { local, remote }: Wire, s: Surroundings): boolean {
  const way = s.wayFrom(local, remote);
  return way !== undefined && way.interface !== home;
}

/** The ways on which a flow could live, the best first. */
export const waysOf = (wire: Wire, s: Surroundings): Route[] =>
  ranked(wire, s).filter((way) => usable(way, wire, s));

/* A retained address can be what the kernel proposes: it is on lo, so nobody holds it.  So can, on a
 * gateway whose uplink has no IPv6 address yet, that of the side of the hosts behind it.
 */
function usable(way: Route, { local, remote }: Wire, s: Surroundings, home?: string): boolean {
  return (
    (way.source !== local || way.interface === home) &&
    family(way.source) === family(remote) &&
    s.attached(way.interface) &&
    s.holders(way.source).some((holder) => holder.carrier && s.attached(holder.interface))
  );
}

export type Course =
  | { do: 'nothing' }
  | { do: 'synchronize'; source: Address; interface: string }
  | { do: 'follow'; from: string; source: Address; interface: string } // when that has been so for a while
  | { do: 'let go' } // where its kernel sends it
  | { do: 'wait' } // held, and nothing is sent: there is nowhere to send it from
  | { do: 'go on' }; // as its mapping says

/** What a flow is doing at this moment. */
export interface Doing {
  /** The local address of the wire that it is on. */
  local: Address;
  held: boolean;
  /** Its mapping waits for the first packet over it. */
  unproven: boolean;
  moved: boolean;
  /** Its mapping names an interface that has not got its address any more: an older one's number. */
  stale: boolean;
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

function courseAtHome(where: Whereabouts & { at: 'home' }, flow: Doing): Course {
  const { local, unproven, underway } = flow;
  if (underway?.source === local) {
    // Confirming, though it is proven: the event that says so is on its way to the agent.
    const goesOn = unproven || flow.trying || underway.state === 'confirming';
    if (goesOn) return { do: 'nothing' };
  }
  if (flow.trying) return { do: 'nothing' };
  // Mapped by an attempt that did not come to its end, perhaps of a daemon before us.
  if (unproven || flow.stale) {
    return { do: 'synchronize', source: local, interface: where.interface };
  }
  // Begun when there was no other way, or for one that is not the better one any more: perhaps it is gone.
  const isFollowing = underway?.gentle === true && underway.source === where.better?.source;
  if (underway !== undefined && !isFollowing) return { do: 'go on' };
  if (where.better !== undefined && !flow.held) return courseAfter(where.better, where, flow);
  if (underway !== undefined || flow.held) return { do: 'go on' };
  return where.cut && !flow.moved ? { do: 'let go' } : { do: 'nothing' };
}

/* Without a way by its own link, one that has moved would be sent to nowhere; any other goes where its
 * kernel sends it, and may be heard there.
 */
function courseAfter(better: Route, home: Whereabouts & { at: 'home' }, flow: Doing): Course {
  const to = { source: better.source, interface: better.interface };
  if (home.cut === undefined) return { do: 'follow', from: home.interface, ...to };
  return flow.moved ? { do: 'synchronize', ...to } : { do: 'let go' };
}
