/* From one VM's tables to what is shown of it, and told to the operator's hook.  Pure. */

import { FLOW_FLAG, type Flow, type Place } from '../../boundary/abi.gen.js';
import { type Address, family } from '../../wire/address.js';
import type { Mac } from '../../wire/ethernet.js';
import type { AddressMove, OutsideAddresses } from '../flows/moved-hook.js';
import { flowIsAlive } from '../view/flow-views.js';
import type { TapView } from '../view/view.js';
import { isAway } from './place.js';

/** Flags of flows that do not go as their mapping says, or of which nobody knows yet. */
export const UNSETTLED = FLOW_FLAG.HELD | FLOW_FLAG.UNPROVEN;

/** By what a VM is reached at a place: addresses, and the prefix of its IPv6 ones. */
export const outsideOf = (place: Place): Address[] =>
  [place.outside4, place.outside6].filter((a) => a !== '::');

export interface TapFacts {
  name: string;
  mac: Mac | undefined;
  place: Place;
  /** Of this place, as far as it is known; of its home. */
  gateway: Address | null | undefined;
  homeGateway: Address | null | undefined;
  flows: Flow[];
  legacy: number;
}

export function tapView({
  name,
  mac,
  place,
  gateway,
  homeGateway,
  flows,
  legacy,
}: TapFacts): TapView {
  const alive = flows.filter(flowIsAlive);
  return {
    name,
    mac: mac ?? null,
    place: isAway(place) ? 'away' : 'home',
    inside: [place.inside4, place.inside6].filter((a) => a !== '::'),
    outside: outsideOf(place),
    gateway: gateway ?? (isAway(place) ? null : homeGateway) ?? null,
    flows: {
      protected: alive.length,
      moving: alive.filter((flow) => flow.flags & UNSETTLED).length,
      moved: alive.filter((flow) => flow.moves > 0).length,
      legacy,
    },
  };
}

/** As the operator's hook is told it. */
export function addressMove(
  vm: { name: string; mac: Mac | undefined },
  from: Address[],
  to: Address[],
): AddressMove {
  const byFamily = (all: Address[]): OutsideAddresses =>
    Object.fromEntries(all.map((a) => [family(a), a]));
  return { vm: vm.name, mac: vm.mac ?? '', old: byFamily(from), new: byFamily(to) };
}
