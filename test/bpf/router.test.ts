/*
 * A machine that runs tiflow for itself, as a host, and forwards: what is not for one of its own
 * addresses is none of its business, also where it looks like a synchronization.
 *
 *   hosts behind ── lo (198.51.100.0/24, 2001:db8:2::/64) ── this ── lo ── network
 *                                            192.0.2.10, 2001:db8:1::10
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { address } from '../../src/wire/address.js';
import { seq } from '../../src/wire/seq.js';
import { ownNetwork, run } from '../libc/own-network.js';
import {
  acceptFlow,
  DataPlane,
  FAMILIES,
  type Family,
  freshTuple,
  type View,
} from './data-plane.js';

const BEHIND = { 4: address('198.51.100.7'), 6: address('2001:db8:2::7') };
const MAC = '00112233445566778899aabbccddeeff';

ownNetwork();
for (const line of [
  'link set lo up',
  'addr add 192.0.2.10/32 dev lo',
  'addr add 2001:db8:1::10/128 dev lo',
  'route add 198.51.100.0/24 dev lo',
  '-6 route add 2001:db8:2::/64 dev lo',
]) {
  run('ip', ...line.split(' '));
}
const plane = new DataPlane();
after(() => plane.remove());

function forward(on: boolean): void {
  writeFileSync('/proc/sys/net/ipv4/conf/all/forwarding', on ? '1' : '0');
  writeFileSync('/proc/sys/net/ipv6/conf/all/forwarding', on ? '1' : '0');
}

const fresh = (f: Family): View => ({ tuple: freshTuple(f), iss: seq(100), irs: seq(1000) });

/** What of a synchronization comes in, from either end. */
const incoming = (halves: string): string[] => [
  `S 0:0(0) win 1 <mss 1,ti-sync ${halves} epoch 1 tiack 0 nonce 00000001 mac ${MAC.slice(16)}>`,
  `SA 0:0(0) ack 1 win 1 <mss 1,ti-sync-ack epoch 1 tiack 0 nonce 00000002 mac ${MAC}>`,
  `A 1:1(0) ack 1 win 1 <ti-confirm epoch 1 mac ${MAC}>`,
  `R 1:1(0) win 0 <ti-rst reason 1 epoch 1 mac ${MAC.slice(16)}>`,
];

for (const f of FAMILIES) {
  test(`it forwards: what is for a host behind passes, what is for itself does not (IPv${f})`, () => {
    forward(true);
    const own = fresh(f);
    const behind = { ...own, tuple: { ...own.tuple, local: BEHIND[f] } };
    plane.events();
    for (const line of incoming('00000001ffffff01')) {
      const outcome = plane.expect(behind, 'in', line, 'same');
      assert.deepEqual(outcome.counted, ['end-to-end']);
    }
    assert.deepEqual(plane.events(), []);
    for (const line of incoming('00000001ffffff01')) plane.expect(own, 'in', line, 'drop sync');
    assert.equal(plane.events().length, 4);
  });

  test(`it does not forward: nothing passes (IPv${f})`, () => {
    forward(false);
    const own = fresh(f);
    const elsewhere = { ...own, tuple: { ...own.tuple, local: BEHIND[f] } };
    for (const line of incoming('00000001ffffff01')) {
      plane.expect(own, 'in', line, 'drop sync');
      plane.expect(elsewhere, 'in', line, 'drop sync');
    }
    plane.events();
  });

  test(`a synchronization of a flow of its own is its own, whatever it is sent to (IPv${f})`, () => {
    forward(true);
    const { tuple } = acceptFlow(plane, f);
    const { initiator, responder } = plane.boundary.flow(tuple) ?? {};
    const hex = (half = 0): string => (half >>> 0).toString(16).padStart(8, '0');
    const own = fresh(f);
    const former = { ...own, tuple: { ...own.tuple, local: BEHIND[f] } };
    const [syn = ''] = incoming(hex(initiator?.tifidHalf) + hex(responder?.tifidHalf));
    plane.expect(former, 'in', syn, 'drop sync');
  });
}
