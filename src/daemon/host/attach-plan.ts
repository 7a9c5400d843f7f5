/* Where a boundary has to be put, or taken off: wanted against observed.  Pure.
 *
 *   wants      in order: those of the configuration, then what was asked for since
 *   a link     belongs to the last want that matches it, by name, pattern or default route
 *   a pattern  leaves out what nobody means by it: no Ethernet, ports of a bridge or bond, taps of VMs
 */

import type { Attached, Placement } from '../../boundary/boundary.js';
import { DEFAULT_ROUTE, isPattern, matchesName } from '../config/interface-pattern.js';
import type { MissingView } from '../view/view.js';

export interface Want {
  /** A name, a pattern, or "default". */
  pattern: string;
  /** none: not there, whatever was said before. */
  as: Placement | 'none';
}

export interface ObservedLink {
  index: number;
  name: string;
  ethernet: boolean;
  /** A tap that is a port of a bridge. */
  vmTap: boolean;
  /** The bridge or bond whose port it is. */
  master: number | undefined;
}

export interface ObservedHooks {
  links: readonly ObservedLink[];
  attached: readonly Attached[];
  /** The links that have a default route. */
  defaults: ReadonlySet<number>;
  /** Whether what is loaded is pinned where the next daemon looks. */
  pinned: boolean;
}

export type AttachStep =
  | { do: 'pin'; because: string }
  | { do: 'attach'; interface: string; as: Placement; because: string }
  | { do: 'detach'; interface: string; as: Placement | undefined; because: string };

export interface AttachPlan {
  steps: AttachStep[];
  /** What is wanted and cannot be had, whatever is tried. */
  missing: MissingView[];
}

/** What is to be done; nothing when all is as it should be. */
export function planAttachments(wants: readonly Want[], seen: ObservedHooks): AttachPlan {
  const placed = new Map(
    seen.links.flatMap((link) => {
      const as = placementOf(link, wants, seen);
      return as === undefined ? [] : [[link.index, as] as const];
    }),
  );
  // A tap's is about its guest, that of its bridge about this machine.
  const isOwn = (index: number) => ['host', 'gateway'].includes(placed.get(index) ?? 'none');
  const hidden = seen.links.filter(
    ({ index, master }) => isOwn(index) && master !== undefined && isOwn(master),
  );
  for (const { index } of hidden) placed.delete(index);
  return {
    steps: [
      ...(seen.pinned ? [] : [{ do: 'pin', because: 'its pins are gone' } as const]),
      ...seen.links.flatMap((link) => stepsOf(link, placed.get(link.index), seen)),
    ],
    missing: [
      ...hidden.map((port) => behindItsMaster(port, seen)),
      ...wants.flatMap((want) => unmatched(want, seen)),
    ],
  };
}

function placementOf(
  link: ObservedLink,
  wants: readonly Want[],
  seen: ObservedHooks,
): Placement | undefined {
  const want = wants.findLast((each) => matches(each, link, seen));
  if (want === undefined || want.as === 'none') return undefined;
  return link.vmTap && want.as === 'host' ? 'tap' : want.as;
}

function matches({ pattern, as }: Want, link: ObservedLink, seen: ObservedHooks): boolean {
  if (!isPattern(pattern)) return pattern === link.name;
  if (as === 'none') return matchesName(pattern, link.name);
  if (as === 'tap') return link.vmTap && matchesName(pattern, link.name);
  if (!link.ethernet || link.vmTap || link.master !== undefined) return false;
  return pattern === DEFAULT_ROUTE
    ? seen.defaults.has(link.index)
    : matchesName(pattern, link.name);
}

function stepsOf(
  { index, name }: ObservedLink,
  as: Placement | undefined,
  { attached }: ObservedHooks,
): AttachStep[] {
  const there = attached.find((each) => each.index === index);
  if (as === undefined) {
    if (there === undefined) return [];
    const because = 'nobody wants it there';
    return [{ do: 'detach', interface: name, as: there.placement, because }];
  }
  if (there?.placement === as) return [];
  // Its VM has to be taken leave of.
  if (there?.placement === 'tap') {
    const because = `it is the tap of a VM no more, but ${as}`;
    return [{ do: 'detach', interface: name, as: 'tap', because }];
  }
  const because =
    there === undefined
      ? 'it is not there'
      : there.placement === undefined
        ? 'what is there is not whole, or of a boundary that nobody has in hand'
        : `it is there as ${there.placement}`;
  return [{ do: 'attach', interface: name, as, because }];
}

function behindItsMaster(port: ObservedLink, { links }: ObservedHooks): MissingView {
  const master = links.find(({ index }) => index === port.master)?.name;
  return {
    name: port.name,
    gateway: false,
    why: `what passes it passes ${master}, too, which has a boundary: one of the two is enough`,
  };
}

function unmatched(want: Want, seen: ObservedHooks): MissingView[] {
  const isMatched = seen.links.some((link) => matches(want, link, seen));
  // Taps come with their VMs.
  if (isMatched || want.as === 'none' || want.as === 'tap') return [];
  const why =
    want.pattern === DEFAULT_ROUTE
      ? 'no Ethernet interface has a default route'
      : isPattern(want.pattern)
        ? 'no Ethernet interface is called so'
        : 'no such interface';
  return [{ name: want.pattern, gateway: want.as === 'gateway', why }];
}
