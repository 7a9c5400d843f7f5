import { after, test } from 'node:test';
import type { Place } from '../../src/boundary/boundary.js';
import { address } from '../../src/wire/address.js';
import type { Direction } from './data-plane.js';
import {
  AWAY,
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
} from './tap.js';
import { type Arp, arpFrame, NOBODY } from './tap-neighbour.js';

const tap = new Tap(AWAY);
after(() => tap.remove());

const at = (place: Place, run: () => void): void => tap.at(place, run);
const dropped = (d: Direction, bytes: Uint8Array, told: boolean): void =>
  tap.dropsForeign(d, bytes, told);

const NOT_KNOWN = new Uint8Array(6);
const arp = (d: Direction, a: Arp): Uint8Array => arpFrame(a, d);

for (const [who, target] of [
  ['its gateway at home', HOME_GATEWAY[4]],
  ['a neighbour at home', address('192.0.2.77')],
  ['anyone at all', PEER[4]],
] as const) {
  test(`the guest asks for ${who}: it is where the gateway of this place is`, () => {
    const question = { operation: 1, sender: INSIDE[4], target };
    const answer = arpFrame(
      {
        operation: 2,
        sender: target,
        senderMac: GATEWAY_MAC[4],
        target: INSIDE[4],
        targetMac: GUEST_MAC,
      },
      'in',
    );
    tap.answers('out', arp('out', question), answer);
    // Asked of one alone, to see whether it is still there (RFC 1122, section 2.3.2.1).
    tap.answers('out', arp('out', { ...question, to: HOME_MAC }), answer);
  });
}

test('the guest claims its address, or asks whether anyone else has it', () => {
  dropped('out', arp('out', { operation: 1, sender: NOBODY, target: INSIDE[4] }), false);
  dropped('out', arp('out', { operation: 1, sender: INSIDE[4], target: INSIDE[4] }), false);
  dropped('out', arp('out', { operation: 2, sender: INSIDE[4], target: INSIDE[4] }), false);
  dropped('out', arp('out', { operation: 2, sender: INSIDE[4], target: PEER[4] }), false);
});

test('the gateway is not known yet: the guest will ask again', () => {
  at({ ...AWAY, gateway4Mac: NOT_KNOWN }, () => {
    const question = arp('out', { operation: 1, sender: INSIDE[4], target: PEER[4] });
    tap.drops('out', question, 'no-next-hop');
  });
});

for (const [who, sender] of [
  ['the gateway', GATEWAY[4]],
  ['somebody who is about to take it (RFC 5227)', NOBODY],
] as const) {
  const question: Arp = { operation: 1, sender, target: OUTSIDE[4] };
  const answer = arpFrame(
    {
      operation: 2,
      sender: OUTSIDE[4],
      senderMac: GUEST_MAC,
      target: sender,
      targetMac: GATEWAY_MAC[4],
    },
    'out',
  );
  test(`${who} asks for the outside address: the guest has it`, () => {
    tap.answers('in', arp('in', question), answer);
    tap.answers('in', arp('in', { ...question, to: GUEST_MAC }), answer);
  });
  test(`${who} asks while nobody is to answer`, () => {
    at({ ...AWAY, flags: PLACE_FLAG.AWAY }, () => dropped('in', arp('in', question), false));
  });
}

test('at home again and not running yet: answered as well', () => {
  at({ ...HOME, flags: PLACE_FLAG.ANSWER }, () => {
    const question: Arp = { operation: 1, sender: HOME_GATEWAY[4], target: INSIDE[4] };
    const answer: Arp = {
      operation: 2,
      sender: INSIDE[4],
      senderMac: GUEST_MAC,
      target: HOME_GATEWAY[4],
      targetMac: GATEWAY_MAC[4],
    };
    tap.answers('in', arp('in', question), arp('out', answer));
    tap.passes('in', arp('in', { ...question, target: PEER[4] }));
    tap.passes('out', arp('out', { operation: 1, sender: INSIDE[4], target: PEER[4] }));
  });
});

test('without an outside address nobody is answered for', () => {
  at({ ...AWAY, outside4: NONE }, () => {
    dropped('in', arp('in', { operation: 1, sender: GATEWAY[4], target: NOBODY }), false);
  });
});

test('the network asks for somebody else, or for the inside address', () => {
  for (const target of [ROUTER[4], INSIDE[4]]) {
    dropped('in', arp('in', { operation: 1, sender: GATEWAY[4], target }), false);
  }
});

test('what the network answers, or claims, is for the daemon', () => {
  const reply = { operation: 2, sender: GATEWAY[4], target: OUTSIDE[4], targetMac: GUEST_MAC };
  dropped('in', arp('in', reply), true);
  for (const operation of [1, 2]) {
    for (const sender of [GATEWAY[4], OUTSIDE[4]]) {
      dropped('in', arp('in', { operation, sender, target: sender }), true);
    }
  }
});

test('ARP between others, and what is no ARP for IPv4 over Ethernet, passes', () => {
  const reply = { operation: 2, sender: GATEWAY[4], target: OUTSIDE[4], to: OTHER_MAC };
  tap.passes('in', arp('in', reply));
  const question: Arp = { operation: 1, sender: INSIDE[4], target: PEER[4] };
  for (const d of ['out', 'in'] as const) {
    tap.passes(d, arp(d, { ...question, target: OUTSIDE[4], hardware: 6 }));
    tap.passes(d, arp(d, { ...question, target: OUTSIDE[4] }).slice(0, 14 + 27));
  }
});

test('ARP frames padded to 60 bytes are answered', () => {
  const padded = (bytes: Uint8Array) => Uint8Array.of(...bytes, ...new Uint8Array(18));
  const question = arp('in', { operation: 1, sender: GATEWAY[4], target: OUTSIDE[4] });
  const [from, to] = [OUTSIDE[4], GATEWAY[4]];
  const answer = { operation: 2, sender: from, senderMac: GUEST_MAC, target: to };
  const expected = arp('out', { ...answer, targetMac: GATEWAY_MAC[4] });
  tap.answers('in', padded(question), padded(expected));
});
