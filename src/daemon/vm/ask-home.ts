/* What a guest's home knows of it: asked for before the guest leaves, for later nobody answers. */

import type { Place } from '../../boundary/abi.gen.js';
import type { GuestCare } from '../../guest/guest-care.js';
import { isAway } from './place.js';

/** Asks for what is not known yet; no-op elsewhere.  Up to 3 s. */
export async function askHome(care: GuestCare, place: Place): Promise<void> {
  if (isAway(place)) return;
  const { inside4, inside6 } = care.state();
  const own = place.inside4 === '::' ? undefined : place.inside4;
  const knows = inside4 !== null && (own === undefined || inside4.address === own);
  const [informed] = await Promise.all([
    knows || care.inform(own),
    inside6 !== null || !speaks6(place) || care.solicit(),
  ]);
  // What nobody answers is what the guest says of itself.
  if (!informed && own !== undefined)
    care.assume({ address: own, prefixLength: 32, gateway: null });
}

/* A guest without IPv6 is not asked about for 3 s. */
const speaks6 = (place: Place): boolean => place.own6.some((a) => a !== '::');
