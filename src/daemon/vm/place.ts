/* The place of a VM as the data plane has it, from what is known of its guest and of its addresses
 * here.  Pure.
 */

import { PLACE_FLAG, type Place } from '../../boundary/abi.gen.js';
import type { GuestState } from '../../guest/identity.js';
import type { Outside } from '../../guest/place.js';
import {
  type Address,
  addressBytes,
  addressFromBytes,
  type Family,
  family,
  isLinkLocal,
} from '../../wire/address.js';
import { type Mac, macBytes } from '../../wire/ethernet.js';

const NONE = '::' as Address;
const NO_MAC = new Uint8Array(6);
const OWN_ADDRESSES = 4;

/** Of a VM that nobody knows: at home, as it is. */
export const nowhere = (): Place => ({
  inside4: NONE,
  outside4: NONE,
  inside6: NONE,
  outside6: NONE,
  router6: NONE,
  own6: [NONE, NONE, NONE, NONE],
  since: 0n,
  guestMac: NO_MAC,
  gateway4Mac: NO_MAC,
  gateway6Mac: NO_MAC,
  flags: 0,
  own6Next: 0,
});

/** What its addresses are is known; nothing is translated. */
export function atHome(place: Place, guest: GuestState): Place {
  const inside4 = guest.inside4?.address ?? place.inside4;
  const inside6 = guest.inside6?.prefix ?? NONE;
  return { ...place, inside4, outside4: inside4, inside6, outside6: inside6 };
}

/** A guest that is to have a place here, and has none yet: nothing passes but what gets one. */
export function withGuest(place: Place, guest: GuestState): Place {
  const own = guest.addresses6.filter((a) => !isLinkLocal(a)).slice(0, OWN_ADDRESSES);
  const [a = NONE, b = NONE, c = NONE, d = NONE] = own;
  return {
    ...place,
    inside4: guest.inside4?.address ?? NONE,
    outside4: NONE,
    inside6: guest.inside6?.prefix ?? NONE,
    outside6: NONE,
    router6: guest.inside6?.router ?? NONE,
    own6: [a, b, c, d],
    own6Next: own.length % OWN_ADDRESSES,
    gateway4Mac: NO_MAC,
    gateway6Mac: NO_MAC,
    flags: PLACE_FLAG.AWAY,
  };
}

/** It has settled: it can be asked for, and is at home if it is called there what it is here. */
export function withOutside(place: Place, outside: Outside): Place {
  const here = {
    ...place,
    outside4: outside.outside4?.address ?? NONE,
    outside6: outside.outside6?.prefix ?? NONE,
    gateway4Mac: outside.gatewayMac4 ? macBytes(outside.gatewayMac4) : NO_MAC,
    gateway6Mac: outside.gatewayMac6 ? macBytes(outside.gatewayMac6) : NO_MAC,
  };
  const away = here.outside4 !== here.inside4 || here.outside6 !== here.inside6;
  return { ...here, flags: PLACE_FLAG.ANSWER | (away ? PLACE_FLAG.AWAY : 0) };
}

/** The gateway has another hardware address. */
export const withGateway = (place: Place, which: Family, gateway: Mac): Place =>
  which === 4
    ? { ...place, gateway4Mac: macBytes(gateway) }
    : { ...place, gateway6Mac: macBytes(gateway) };

export const isAway = (place: Place): boolean => (place.flags & PLACE_FLAG.AWAY) !== 0;

/** An inside address as it is called outside: IPv4 as a whole, of IPv6 the first half. */
export function outsideName(outside: Address, inside: Address): Address {
  if (family(outside) === 4) return outside;
  const [prefix, own] = [addressBytes(outside), addressBytes(inside)];
  return addressFromBytes(Uint8Array.of(...prefix.subarray(0, 8), ...own.subarray(8)));
}
