/* The place of a VM, from home to elsewhere and back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PLACE_FLAG, type Place } from '../../../src/boundary/abi.gen.js';
import {
  atHome,
  isAway,
  nowhere,
  outsideName,
  withGateway,
  withGuest,
  withOutside,
} from '../../../src/daemon/vm/place.js';
import { type GuestState, unknownGuest } from '../../../src/guest/identity.js';
import type { Outside } from '../../../src/guest/place.js';
import { address } from '../../../src/wire/address.js';
import { mac, macBytes } from '../../../src/wire/ethernet.js';
import { GUEST_MAC, INSIDE, OUTSIDE } from '../vm-fixture.js';

const GATEWAY = mac('52:54:00:00:00:01');
const [HOME6, AWAY6, ROUTER] = ['2001:db8:1::', '2001:db8:2::', 'fe80::1'].map(address);
assert.ok(HOME6 && AWAY6 && ROUTER);
const global = (n: number) => address(`2001:db8:1::${n}`);

const GUEST: GuestState = {
  ...unknownGuest(GUEST_MAC),
  inside4: {
    ...{ address: INSIDE, prefix_length: 24, gateway: address('192.0.2.1') },
    ...{ server: address('192.0.2.1'), lease_s: 3600, options: [] },
  },
  inside6: {
    ...{ prefix: HOME6, prefix_length: 64, router: ROUTER, router_mac: null },
    advertisement: '',
  },
  addresses6: [address('fe80::a'), global(1), global(2)],
};
const here: Outside = {
  outside4: { address: OUTSIDE, prefixLength: 24, gateway: null, leaseS: null },
  outside6: { prefix: AWAY6, prefixLength: 64, gateway: ROUTER },
  gatewayMac4: GATEWAY,
};
const home: Outside = {
  outside4: { address: INSIDE, prefixLength: 24, gateway: null, leaseS: null },
  outside6: { prefix: HOME6, prefixLength: 64, gateway: ROUTER },
};
const known = (): Place => ({ ...nowhere(), guestMac: macBytes(GUEST_MAC), since: 7n });

test('of a guest that nobody knows nothing is translated', () => {
  assert.equal(isAway(nowhere()), false);
  assert.equal(nowhere().outside4, '::');
});

test('at home it is called outside what it is called inside', () => {
  const place = atHome(known(), GUEST);
  assert.deepEqual([place.inside4, place.outside4], [INSIDE, INSIDE]);
  assert.deepEqual([place.inside6, place.outside6], [HOME6, HOME6]);
  assert.equal(isAway(place), false);
  assert.equal(place.since, 7n);
});

test('what a guest without a lease was seen with stays its inside address', () => {
  const seen = { ...known(), inside4: INSIDE };
  assert.equal(atHome(seen, unknownGuest(GUEST_MAC)).outside4, INSIDE);
});

test('before it has settled nothing passes, and nothing of a former place is left', () => {
  const former = { ...known(), outside4: OUTSIDE, gateway4Mac: macBytes(GATEWAY) };
  const place = withGuest(former, GUEST);
  assert.equal(place.flags, PLACE_FLAG.AWAY);
  assert.deepEqual([place.outside4, place.outside6], ['::', '::']);
  assert.deepEqual([place.inside4, place.inside6, place.router6], [INSIDE, HOME6, ROUTER]);
  assert.deepEqual(place.gateway4Mac, new Uint8Array(6));
  assert.deepEqual(place.guestMac, macBytes(GUEST_MAC));
  // Link-local ones are the same everywhere, and are no secret of the data plane's.
  assert.deepEqual(place.own6, [global(1), global(2), '::', '::']);
  assert.equal(place.own6Next, 2);
});

test('a guest with more IPv6 addresses than there is room for', () => {
  const addresses6 = [1, 2, 3, 4, 5, 6].map(global);
  const place = withGuest(known(), { ...GUEST, addresses6 });
  assert.deepEqual(place.own6, [1, 2, 3, 4].map(global));
  assert.equal(place.own6Next, 0);
});

test('away: asked for, translated, by the gateway as far as it is known', () => {
  const place = withOutside(withGuest(known(), GUEST), here);
  assert.equal(place.flags, PLACE_FLAG.ANSWER | PLACE_FLAG.AWAY);
  assert.deepEqual([place.outside4, place.outside6], [OUTSIDE, AWAY6]);
  assert.deepEqual(place.gateway4Mac, macBytes(GATEWAY));
  assert.deepEqual(place.gateway6Mac, new Uint8Array(6));
  const next = withGateway(withGateway(place, 6, GATEWAY), 4, GUEST_MAC);
  assert.deepEqual(next.gateway6Mac, macBytes(GATEWAY));
  assert.deepEqual(next.gateway4Mac, macBytes(GUEST_MAC));
});

test('settled where it is at home: asked for until it runs, and not translated', () => {
  assert.equal(withOutside(withGuest(known(), GUEST), home).flags, PLACE_FLAG.ANSWER);
});

test('at home in one family only is not at home', () => {
  for (const half of [
    { ...home, outside4: here.outside4 },
    { ...home, outside6: here.outside6 },
  ]) {
    assert.equal(isAway(withOutside(withGuest(known(), GUEST), half as Outside)), true);
  }
  // This place has no IPv6 at all.
  const { outside6: _, ...four } = home;
  assert.equal(isAway(withOutside(withGuest(known(), GUEST), four)), true);
});

test('an outside name: all of IPv4, the first half of IPv6', () => {
  assert.equal(outsideName(OUTSIDE, INSIDE), OUTSIDE);
  assert.equal(outsideName(AWAY6, address('2001:db8:1::a:b:c:d')), '2001:db8:2:0:a:b:c:d');
  assert.equal(outsideName(AWAY6, address('2001:db8:1:0:1:2:3:4')), '2001:db8:2:0:1:2:3:4');
});
