/*
 * Neighbour discovery on a VM's tap: what is answered in the guest's stead and to it, what the daemon
 * is told of, and what may not pass to the other side while the VM is away.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { Place } from '../../src/boundary/boundary.js';
import { type Address, address } from '../../src/wire/address.js';
import type { Direction } from './data-plane.js';
import {
  AWAY,
  etherFrame,
  GATEWAY,
  GATEWAY_MAC,
  GUEST_MAC,
  HOME,
  HOME_GATEWAY,
  HOME_MAC,
  INSIDE,
  NONE,
  OTHER_MAC,
  OUTSIDE,
  PEER,
  PLACE_FLAG,
  ROUTER,
  Tap,
  withMacs,
} from './tap.js';
import { NA_FLAG, ND, type Nd, ndFrame, solicitedNode } from './tap-neighbour.js';

const tap = new Tap(AWAY);
after(() => tap.remove());

const at = (place: Place, run: () => void): void => tap.at(place, run);
const dropped = (d: Direction, bytes: Uint8Array, told: boolean): void =>
  tap.dropsForeign(d, bytes, told);

const NOT_KNOWN = new Uint8Array(6);

const GUEST_LINK = address('fe80::10');

/** Of the guest: for all that may have the target, or for one. */
function fromGuest(o: Partial<Nd> & { source?: Address; target?: Address }): Uint8Array {
  const target = o.target ?? PEER[6];
  const group = solicitedNode(target);
  const ends = o.ends ?? { source: o.source ?? INSIDE[6], destination: group.address };
  return ndFrame({ type: ND.ns, target, to: group.mac, from: GUEST_MAC, ...o, ends });
}

function fromNetwork(o: Partial<Nd> & { source?: Address; target?: Address }): Uint8Array {
  const target = o.target ?? OUTSIDE[6];
  const group = solicitedNode(target);
  const ends = o.ends ?? { source: o.source ?? GATEWAY[6], destination: group.address };
  return ndFrame({ type: ND.ns, target, to: group.mac, from: GATEWAY_MAC[6], ...o, ends });
}

/** "The target is at this place's gateway". */
const answerToGuest = (target: Address, o: Partial<Nd> & { source?: Address } = {}): Uint8Array =>
  ndFrame({
    type: ND.na,
    ends: { source: target, destination: o.source ?? INSIDE[6] },
    target,
    flags: NA_FLAG.solicited | NA_FLAG.override,
    to: GUEST_MAC,
    from: GATEWAY_MAC[6],
    ...o,
  });

/** "The target is at the guest". */
const answerToNetwork = (target: Address, asker: Address, o: Partial<Nd> = {}): Uint8Array =>
  ndFrame({
    type: ND.na,
    ends: { source: target, destination: asker },
    target,
    flags: NA_FLAG.solicited | NA_FLAG.override,
    to: GATEWAY_MAC[6],
    from: GUEST_MAC,
    ...o,
  });

test('the guest solicits anyone: it is where the gateway of this place is', () => {
  for (const target of [PEER[6], address('2001:db8:1::77')]) {
    for (const source of [INSIDE[6], GUEST_LINK]) {
      tap.answers(
        'out',
        fromGuest({ target, source, option: GUEST_MAC }),
        answerToGuest(target, { source, option: GATEWAY_MAC[6] }),
      );
    }
    // To see whether it is still there, of one alone and without its own hardware address.
    const ends = { source: INSIDE[6], destination: target };
    tap.answers('out', fromGuest({ target, ends, to: HOME_MAC }), answerToGuest(target));
  }
});

test('the guest solicits its router at home: a router answers', () => {
  const flags = NA_FLAG.router | NA_FLAG.solicited | NA_FLAG.override;
  const target = HOME_GATEWAY[6];
  tap.answers(
    'out',
    fromGuest({ target, source: GUEST_LINK, option: GUEST_MAC }),
    answerToGuest(target, { source: GUEST_LINK, option: GATEWAY_MAC[6], flags }),
  );
});

test('the guest claims its addresses, or asks whether anyone else has them', () => {
  dropped('out', fromGuest({ target: INSIDE[6], source: NONE }), false);
  dropped('out', fromGuest({ target: PEER[6], source: NONE }), false);
  const all = { source: INSIDE[6], destination: address('ff02::1') };
  const claim = { type: ND.na, target: INSIDE[6], ends: all, option: GUEST_MAC };
  dropped('out', fromGuest(claim), false);
});

test('link-local addresses are the guest’s own here as well', () => {
  tap.passes('out', fromGuest({ target: GUEST_LINK, source: NONE }));
  tap.passes(
    'out',
    fromGuest({ target: address('fe80::77'), source: GUEST_LINK, option: GUEST_MAC }),
  );
  const ends = { source: GUEST_LINK, destination: GATEWAY[6] };
  tap.passes('out', fromGuest({ type: ND.na, target: GUEST_LINK, ends, option: GUEST_MAC }));
  tap.passes('in', fromNetwork({ target: GUEST_LINK, option: GATEWAY_MAC[6] }));
  tap.passes('in', fromNetwork({ target: GUEST_LINK, source: NONE }));
  const back = { source: GATEWAY[6], destination: GUEST_LINK };
  const answer = { type: ND.na, target: GATEWAY[6], ends: back, to: GUEST_MAC };
  tap.passes('in', fromNetwork({ ...answer, option: GATEWAY_MAC[6] }));
});

test('but for that of the router at home, which is elsewhere', () => {
  dropped('out', fromGuest({ target: HOME_GATEWAY[6], source: NONE }), false);
  const ends = { source: GUEST_LINK, destination: address('ff02::1') };
  dropped('out', fromGuest({ type: ND.na, target: HOME_GATEWAY[6], ends }), false);
});

test('the network solicits an outside address that the guest uses', () => {
  for (const source of [GATEWAY[6], address('2001:db8:2::1')]) {
    tap.answers(
      'in',
      fromNetwork({ source, option: GATEWAY_MAC[6] }),
      answerToNetwork(OUTSIDE[6], source, { option: GUEST_MAC }),
    );
    const ends = { source, destination: OUTSIDE[6] };
    tap.answers('in', fromNetwork({ ends, to: GUEST_MAC }), answerToNetwork(OUTSIDE[6], source));
  }
  at({ ...AWAY, flags: PLACE_FLAG.AWAY }, () => dropped('in', fromNetwork({}), false));
});

test('at home again and not running yet: solicited and answered', () => {
  at({ ...HOME, flags: PLACE_FLAG.ANSWER }, () => {
    tap.answers(
      'in',
      fromNetwork({ target: INSIDE[6], source: HOME_GATEWAY[6], option: GATEWAY_MAC[6] }),
      answerToNetwork(INSIDE[6], HOME_GATEWAY[6], { option: GUEST_MAC }),
    );
    tap.passes('in', fromNetwork({ target: PEER[6] }));
    tap.passes('out', fromGuest({ option: GUEST_MAC }));
    tap.passes('out', fromGuest({ target: INSIDE[6], source: NONE }));
  });
});

test('the network solicits what the guest does not use', () => {
  for (const target of [address('2001:db8:2::11'), INSIDE[6], ROUTER[6]]) {
    dropped('in', fromNetwork({ target, option: GATEWAY_MAC[6] }), false);
  }
  at({ ...AWAY, outside6: NONE }, () => {
    dropped('in', fromNetwork({ option: GATEWAY_MAC[6] }), false);
    dropped('in', fromNetwork({ target: address('::10') }), false);
  });
});

/** RFC 4862, section 5.4.3; told to all, not solicited: RFC 4861, section 7.2.4. */
test('somebody is about to take an outside address: the guest has it', () => {
  const flags = NA_FLAG.override;
  const to = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);
  const answer = answerToNetwork(OUTSIDE[6], address('ff02::1'), { flags, to });
  tap.answers('in', fromNetwork({ source: NONE }), answer);
  at({ ...AWAY, flags: PLACE_FLAG.AWAY }, () => {
    dropped('in', fromNetwork({ source: NONE }), false);
  });
});

test('the gateway is not known yet, or the guest', () => {
  at({ ...AWAY, gateway6Mac: NOT_KNOWN, guestMac: NOT_KNOWN }, () => {
    tap.drops('in', fromNetwork({ option: GATEWAY_MAC[6] }), 'no-next-hop');
    tap.drops('out', fromGuest({ option: GUEST_MAC }), 'no-next-hop');
  });
});

test('what the network advertises is for the daemon', () => {
  const ends = { source: GATEWAY[6], destination: OUTSIDE[6] };
  const answer = { type: ND.na, target: GATEWAY[6], ends, option: GATEWAY_MAC[6], to: GUEST_MAC };
  dropped('in', fromNetwork(answer), true);
  const all = { source: GATEWAY[6], destination: address('ff02::1') };
  const to = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);
  dropped('in', fromNetwork({ ...answer, ends: all, to }), true);
  dropped('in', routerAdvertisement(), true);
});

function routerAdvertisement(o: Partial<Nd> = {}): Uint8Array {
  const prefix = [3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 7, 8, 0, 0, 0, 0];
  return ndFrame({
    type: ND.ra,
    ends: { source: GATEWAY[6], destination: address('ff02::1') },
    to: Uint8Array.of(0x33, 0x33, 0, 0, 0, 1),
    from: GATEWAY_MAC[6],
    more: Uint8Array.of(...new Uint8Array(8), ...prefix, ...new Uint8Array(16)),
    ...o,
  });
}

test('at home, router advertisements are copied, and pass', () => {
  at(HOME, () => {
    tap.told();
    const ra = routerAdvertisement();
    tap.passes('in', ra);
    assert.deepEqual(tap.told(), [[false, 0x86dd, ra.slice(14)]]);
    tap.passes('in', fromNetwork({ type: ND.na, target: GATEWAY[6] }));
    const solicitation = { type: ND.rs, source: GUEST_LINK, option: GUEST_MAC };
    tap.passes('out', fromGuest(solicitation));
    assert.deepEqual(tap.told(), []);
  });
});

test('the guest looks for a router: the daemon will be one', () => {
  const ends = { source: GUEST_LINK, destination: address('ff02::2') };
  const to = Uint8Array.of(0x33, 0x33, 0, 0, 0, 2);
  const rs = ndFrame({ type: ND.rs, ends, to, from: GUEST_MAC, option: GUEST_MAC });
  dropped('out', rs, true);
  dropped(
    'out',
    ndFrame({ type: ND.rs, ends: { ...ends, source: NONE }, to, from: GUEST_MAC }),
    true,
  );
});

test('redirects, and a guest that advertises itself as a router', () => {
  const ends = { source: GATEWAY[6], destination: OUTSIDE[6] };
  const redirect = { type: ND.redirect, target: ROUTER[6], ends, to: GUEST_MAC };
  dropped('in', fromNetwork({ ...redirect, more: new Uint8Array(16) }), false);
  const back = { source: GUEST_LINK, destination: address('ff02::1') };
  dropped('out', fromGuest({ type: ND.redirect, target: ROUTER[6], ends: back }), false);
  dropped('out', fromGuest({ type: ND.ra, ends: back, more: new Uint8Array(8) }), false);
});

/** RFC 4861, sections 6.1 and 7.1: what may come from elsewhere is heeded by nobody. */
test('a hop limit below 255', () => {
  const hopLimit = 254;
  const away = [
    ['out', fromGuest({ option: GUEST_MAC, hopLimit })],
    ['out', fromGuest({ target: GUEST_LINK, source: NONE, hopLimit })],
    ['out', fromGuest({ type: ND.rs, hopLimit })],
    ['in', fromNetwork({ option: GATEWAY_MAC[6], hopLimit })],
    ['in', fromNetwork({ target: GUEST_LINK, hopLimit })],
    ['in', fromNetwork({ type: ND.na, hopLimit })],
    ['in', routerAdvertisement({ hopLimit })],
  ] as const;
  for (const [d, bytes] of away) dropped(d, bytes, false);
  at({ ...HOME, flags: PLACE_FLAG.ANSWER }, () => {
    tap.told();
    tap.passes('in', routerAdvertisement({ hopLimit }));
    tap.passes('in', fromNetwork({ target: INSIDE[6], option: GATEWAY_MAC[6], hopLimit }));
    assert.deepEqual(tap.told(), []);
  });
});

test('solicitations of another length are not answered', () => {
  const nonce = Uint8Array.of(14, 1, 1, 2, 3, 4, 5, 6);
  for (const more of [nonce, new Uint8Array(4)]) {
    dropped('out', fromGuest({ option: GUEST_MAC, more }), false);
    dropped('in', fromNetwork({ option: GATEWAY_MAC[6], more }), false);
  }
  // One that ends before its target, in front of padding that looks like it.
  const cut = fromNetwork({ option: GATEWAY_MAC[6] });
  cut[14 + 5] = 16;
  dropped('in', cut, false);
});

test('in a fragment it is not heeded', () => {
  const whole = fromNetwork({ option: GATEWAY_MAC[6] });
  const header = [58, 0, 0, 1, 0, 0, 0, 9];
  const bytes = Uint8Array.of(...whole.slice(0, 54), ...header, ...whole.slice(54));
  bytes[14 + 5] = 40;
  bytes[14 + 6] = 44;
  dropped('in', bytes, false);
});

test('for another host: not ours', () => {
  const asked = withMacs(fromNetwork({ option: GATEWAY_MAC[6] }), OTHER_MAC);
  assert.deepEqual(tap.passes('in', asked).counted, []);
  const other = etherFrame(OTHER_MAC, GATEWAY_MAC[6], 0x86dd, routerAdvertisement().slice(14));
  assert.deepEqual(tap.passes('in', other).counted, []);
});
