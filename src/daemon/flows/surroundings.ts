/* The machine as it is at one instant, made of what the link monitor has seen and of which links have
 * settled: what whereabouts.ts judges by.
 */

import type { Boundary } from '../../boundary/boundary.js';
import type { LinkMonitor } from '../../link/monitor.js';
import { type Address, family } from '../../wire/address.js';
import type { Routes } from '../host/routes.js';
import type { Settling } from '../host/settling.js';
import type { UplinksSeen } from './uplinks.js';
import type { Holder, Surroundings } from './whereabouts.js';

export interface SurroundingsOptions {
  boundary: Pick<Boundary, 'attached'>;
  monitor: Pick<LinkMonitor, 'links' | 'addresses'>;
  settling: Pick<Settling, 'isSettling'>;
  routes: Pick<Routes, 'to'>;
  /** Whether the kernel delivers to an address, though no interface but lo may have it. */
  isLocal: (a: Address) => boolean;
}

/* Nothing that happens to links takes an address from it. */
const LOOPBACK: readonly Holder[] = [{ interface: 'lo', carrier: true }];

/** One picture for many flows: 1,000 of them to one peer ask the kernel once. */
export function lookAround(o: SurroundingsOptions): Surroundings & UplinksSeen {
  const links = o.monitor.links();
  const alive = new Set(links.filter((link) => link.up && link.carrier).map(({ name }) => name));
  const holder = (name: string, of: Address): Holder => ({
    interface: name,
    carrier: alive.has(name) && !o.settling.isSettling(name, family(of)),
  });
  const holders = new Map<Address, Holder[]>();
  for (const a of o.monitor.addresses()) {
    if (a.interface === 'lo') continue;
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
  return {
    holders: holdersOf,
    attached: (name) => attached.has(name),
    routeTo: (peer) => o.routes.to(peer),
    uplink: (index, of) => {
      const name = links.find((link) => link.index === index)?.name;
      return name === undefined || !attached.has(name) ? undefined : holder(name, of);
    },
  };
}
