/* The flows of one VM between the tables of this hypervisor and the bytes that travel. */

import { FLOW_FLAG, type Flow, type Plain, REASON } from '../../boundary/abi.gen.js';
import type { Boundary } from '../../boundary/boundary.js';
import { packLuggage, unpackLuggage } from '../../boundary/transfer.js';
import type { Tuple } from '../../wire/tuple.js';
import { tifidText } from '../view/flow-views.js';
import type { ImportView } from '../view/view.js';

export const flowsOf = (boundary: Pick<Boundary, 'flows'>, tap: number): Array<[Tuple, Flow]> =>
  boundary.flows().filter(([kernel]) => kernel.tap === tap);

export const plainOf = (boundary: Pick<Boundary, 'plain'>, tap: number): Array<[Tuple, Plain]> =>
  boundary.plain().filter(([tuple]) => tuple.tap === tap);

/** Holds the flows, and packs them; base64. */
export function packFlows(boundary: Boundary, tap: number, nowNs: bigint): string {
  for (const [kernel] of flowsOf(boundary, tap)) boundary.command({ verb: 'hold', kernel });
  const luggage = { flows: flowsOf(boundary, tap), plain: plainOf(boundary, tap) };
  return Buffer.from(packLuggage(luggage, nowNs)).toString('base64');
}

/** Takes in what packFlows has packed, held.  Throws LuggageError, and has changed nothing then. */
export function takeInFlows(
  boundary: Boundary,
  base64: string,
  { tap, nowNs }: { tap: number; nowNs: bigint },
): ImportView {
  const { flows, plain } = unpackLuggage(Buffer.from(base64, 'base64'), { tap, nowNs });
  for (const [tuple, why] of plain) boundary.setPlain(tuple, why);
  let refused = 0;
  for (const [kernel, flow] of flows) {
    if (isSame(boundary.flow(kernel), flow)) continue; // asked twice
    if (boundary.adopt(kernel, { ...flow, flags: flow.flags | FLOW_FLAG.HELD })) continue;
    // As good as legacy: both its ends are told.
    boundary.setPlain(kernel, { since: flow.created, reason: REASON.LEGACY_TABLE_FULL });
    refused += 1;
  }
  return { version: 1, imported: flows.length - refused, refused };
}

/* Of the same tuple and TIFID. */
const isSame = (known: Flow | undefined, other: Flow): boolean =>
  known !== undefined && tifidText(known) === tifidText(other);
