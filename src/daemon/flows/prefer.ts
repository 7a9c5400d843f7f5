/* Which of a flow's ways are the better ones: by what the operator says of interfaces ([[prefer]] in the
 * configuration), and among equals by the kernel's routes.  Pure.
 */

import { matchesName } from '../config/interface-pattern.js';

export interface Preference {
  /** Name or pattern. */
  interface: string;
  /** Of no interest where nothing else has another cost. */
  cost: number;
  /** No flow lives there, if it can live anywhere else. */
  never: boolean;
  /** Counts only for flows with this port at one end. */
  port?: number | undefined;
}

/** What an interface costs that nothing is said of. */
const COST = 0;

/** What it costs a flow to live on an interface: by the first that matches; Infinity: never. */
export function costOf(
  name: string,
  prefer: readonly Preference[],
  ports: { localPort: number; remotePort: number },
): number {
  const found = prefer.find(
    ({ interface: pattern, port }) =>
      matchesName(pattern, name) &&
      (port === undefined || port === ports.localPort || port === ports.remotePort),
  );
  if (found === undefined) return COST;
  return found.never ? Number.POSITIVE_INFINITY : found.cost;
}

/** The cheapest first, those of one cost in the order that they are in; without those of never. */
export function rank<W extends { interface: string }>(
  ways: readonly W[],
  cost: (interfaceName: string) => number,
): W[] {
  return ways
    .map((way) => ({ way, costs: cost(way.interface) }))
    .filter(({ costs }) => costs !== Number.POSITIVE_INFINITY)
    .sort((a, b) => a.costs - b.costs)
    .map(({ way }) => way);
}
