/* The legacy connections of one VM that have stayed behind: both their ends are told.  What they are
 * told is in stranded.ts.
 */

import type { Boundary } from '../../boundary/boundary.js';
import type { Address } from '../../wire/address.js';
import type { Tuple } from '../../wire/tuple.js';
import type { DaemonOutlet } from '../flows/outlet.js';
import { farewell, provocation } from './farewell.js';
import { plainOf } from './luggage.js';
import { outsideName } from './place.js';

export interface Stranding {
  tap: number;
  boundary: Pick<Boundary, 'plain' | 'deletePlain'>;
  outlet: Pick<DaemonOutlet, 'toKernel' | 'toWireVerbatim'>;
}

/** Makes the guest say where it is in its connections of before `since`, ns. */
export function provoke({ tap, boundary, outlet }: Stranding, since: bigint): void {
  for (const [tuple, plain] of plainOf(boundary, tap)) {
    if (plain.since <= since) outlet.toKernel(provocation(tuple), tuple);
  }
}

/**
 * It has said so in `packet`: its peer is told in the name of its `former` address, and the guest in
 * its peer's.  False: that packet needs no answer.
 */
export function tellEnds(
  { tap, boundary, outlet }: Stranding,
  o: { tuple: Tuple; packet: Uint8Array; former: Address | undefined },
): boolean {
  const { tuple, packet, former } = o;
  const told = farewell(packet, former && outsideName(former, tuple.local));
  boundary.deletePlain(tuple);
  if (told === undefined) return false;
  outlet.toKernel(told.toGuest, tuple);
  for (const each of told.toPeer) outlet.toWireVerbatim(each, tap);
  return true;
}
