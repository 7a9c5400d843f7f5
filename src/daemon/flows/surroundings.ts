/* The machine as it is at one instant, made of what the link monitor has seen and of which links have
 * settled: what whereabouts.ts judges by.
 */

import { FLOW_FLAG, type Flow } from '../../boundary/abi.gen.js';
import type { Boundary } from '../../boundary/boundary.js';
import type { LinkMonitor } from '../../link/monitor.js';
import type { Route } from '../../link/route.js';
import { wayOf } from '../../sync/handshake.js';
import { type Address, family } from '../../wire/address.js';
import type { Routes } from '../host/routes.js';
import type { Settling } from '../host/settling.js';
import type { UplinksSeen } from './uplinks.js';
import type { Holder, Surroundings, Wire } from './whereabouts.js';

export interface SurroundingsOptions {
  boundary: Pick<Boundary, 'attached'>;
  monitor: Pick<LinkMonitor, 'links' | 'addresses'>;
  settling: Pick<Settling, 'isSettling'>;
  routes: Pick<Routes, 'to' | 'from'>;
  /** Whether the kernel delivers to an address, though no interface but lo may have it. */
  isLocal: (a: Address) => boolean;
}

export interface Picture extends Surroundings, UplinksSeen {
  /** The name of an interface. */
  nameOf(index: number): string | undefined;
}

/* Nothing that happens to links takes an address from it. */
const LOOPBACK: readonly Holder[] = [{ interface: 'lo', carrier: true }];

/** One picture for many flows: 1,000 of them to one peer ask the kernel once. */
export function lookAround(o: SurroundingsOptions): Picture {
  const links = o.monitor.links();
  const alive = new Set(links.filter((link) => link.up && link.carrier).map(({ name }) => name));
  const holder = (name: string, of: Address): Holder => ({
    interface: name,
    carrier: alive.has(name) && !o.settling.isSettling(name, family(of)),
  });
  const holders = new Map<Address, Holder[]>();
  const addresses = o.monitor.addresses().filter((a) => a.interface !== 'lo');
  for (const a of addresses) {
    const others = holders.get(a.address) ?? [];
    // On trial it is not to be used yet, wherever the kernel would deliver it.
    const more = a.tentative ? [] : [holder(a.interface, a.address)];
    holders.set(a.address, [...others, ...more]);
  }
  const holdersOf = (address: Address): Holder[] => {
    const known = holders.get(address);
    if (known !== undefined) return known;
    const found = o.isLocal(address) ? [...LOOPBACK] : [];
    holders.set(address, found);
    return found;
  };
  const attached = new Set(o.boundary.attached());
  const uplinks = [...attached].filter((name) => alive.has(name));
  const ways = once((peer: Address) => waysTo(peer, { uplinks, addresses, routes: o.routes }));
  const nameOf = (index: number) => links.find((link) => link.index === index)?.name;
  return {
    nameOf,
    holders: holdersOf,
    attached: (name) => attached.has(name),
    ways,
    wayFrom: (local, peer, by) =>
      by === undefined ? o.routes.from(local, peer) : o.routes.to(peer, { from: local, by }),
    uplink: (index, of) => {
      const name = nameOf(index);
      return name === undefined || !attached.has(name) ? undefined : holder(name, of);
    },
  };
}

interface Around {
  uplinks: readonly string[];
  addresses: readonly { address: Address; interface: string; deprecated: boolean }[];
  routes: Pick<Routes, 'to'>;
}

/* The kernel's choice, then one way by each interface with a boundary.  Where each address has a
 * routing table of its own, only a look-up that names it finds the way.
 */
function waysTo(peer: Address, { uplinks, addresses, routes }: Around): Route[] {
  const best = routes.to(peer);
  const others = uplinks.flatMap((name) => {
    if (name === best?.interface) return [];
    const chosen = routes.to(peer, { by: name });
    if (chosen !== undefined) return [chosen];
    const own = addresses.filter(
      (a) => a.interface === name && !a.deprecated && family(a.address) === family(peer),
    );
    for (const { address: from } of own) {
      const way = routes.to(peer, { from, by: name });
      if (way !== undefined) return [way];
    }
    return [];
  });
  return best === undefined ? others : [best, ...others];
}

function once<K, V>(f: (key: K) => V): (key: K) => V {
  const known = new Map<K, V>();
  return (key) => {
    const before = known.get(key);
    if (before !== undefined) return before;
    const fresh = f(key);
    known.set(key, fresh);
    return fresh;
  };
}

/** The interface that a flow is kept on: that of its mapping, or where it comes in and leaves. */
export function keptOn(flow: Flow, picture: Picture): Wire['kept'] {
  const way = wayOf(flow);
  if (way !== 0) return picture.nameOf(way);
  return (flow.flags & FLOW_FLAG.BOTH_WAYS) === 0 ? undefined : picture.nameOf(flow.outside);
}
