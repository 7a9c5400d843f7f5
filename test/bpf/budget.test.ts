/*
 * What anybody can send to the daemon: each sender up to its own budget, and none at the cost of
 * another, or of the room that others have in the rings.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { parsePacketLine } from '../../src/wire/notation.js';
import { encodePacket } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import {
  acceptFlow,
  DataPlane,
  ETHER_HEADER,
  frameOf,
  freshTuple,
  packetOf,
  type View,
} from './data-plane.js';
import {
  dhcp,
  endsOf,
  HOME,
  INSIDE,
  ipMessage,
  ROUTER,
  TAP,
  frame as tapFrame,
  UDP,
  udp,
} from './tap.js';

const plane = new DataPlane();
after(() => plane.remove());

const FLOOD = 5000;
const MAC = '0102030405060708';
const hex = (half = 0): string => (half >>> 0).toString(16).padStart(8, '0');

const fresh = (): View => ({ tuple: freshTuple(4), iss: seq(0), irs: seq(0) });
const claimOf = (halves: string): string =>
  `S 0:0(0) win 1 <mss 1,ti-sync ${halves} epoch 1 tiack 0 nonce 00000001 mac ${MAC}>`;
const frame = (view: View, line: string): Uint8Array =>
  frameOf(encodePacket(packetOf(view, 'in', line)));

const halvesOf = (view: View): string => {
  const flow = plane.boundary.flow(view.tuple);
  return hex(flow?.initiator.tifidHalf) + hex(flow?.responder.tifidHalf);
};

/** The same frame so often, and unread; then another.  How many of the first are told. */
function flood(often: Uint8Array, once: Uint8Array): number {
  plane.events();
  for (let i = 0; i < FLOOD; i++) plane.boundary.testRun('ingress', often);
  plane.boundary.testRun('ingress', once);
  const events = plane.events();
  const last = events.pop();
  assert.deepEqual(last?.packet, once.slice(ETHER_HEADER));
  return events.length;
}

test('a flood of unknown TIFIDs: a few are told; a known one still is', () => {
  const known = halvesOf(acceptFlow(plane, 4));
  const told = flood(frame(fresh(), claimOf('0000000100000002')), frame(fresh(), claimOf(known)));
  assert.ok(told >= 200 && told < 1000, `${told}`);
});

test('a flood for one flow, from who knows its name: another flow is heard', () => {
  const [mallorys, other] = [halvesOf(acceptFlow(plane, 4)), halvesOf(acceptFlow(plane, 4))];
  const told = flood(frame(fresh(), claimOf(mallorys)), frame(fresh(), claimOf(other)));
  assert.ok(told >= 200 && told < 1400, `${told}`);
});

test('a flood on one wire: what comes on another is heard', () => {
  const [mallorys, other] = [fresh(), fresh()];
  for (const { tuple } of [mallorys, other])
    plane.boundary.setWire(tuple, { kernel: tuple, state: 'pending', ack: seq(1) });
  const confirm = `A 1:1(0) ack 1 win 1 <ti-confirm epoch 1 mac ${MAC}${MAC}>`;
  const told = flood(frame(mallorys, confirm), frame(other, confirm));
  assert.ok(told >= 200 && told < 1400, `${told}`);
});

test("a guest's flood: the other guest, and a flow, are heard", () => {
  const message = ipMessage(endsOf('out', INSIDE[4], ROUTER[4]), UDP, udp(dhcp(300), [68, 67]));
  const asked = tapFrame('out', message);
  plane.boundary.setPlace(TAP, HOME);
  plane.events();
  for (let i = 0; i < FLOOD; i++) plane.run('out', asked, {}, 'tap');
  const told = plane.events().filter(({ type }) => type === 'guest').length;
  assert.ok(told >= 30 && told < 200, `${told}`);
  const view = acceptFlow(plane, 4);
  plane.expect(fresh(), 'in', claimOf(halvesOf(view)), 'drop sync');
  assert.equal(plane.events().filter(({ type }) => type === 'packet').length, 1);
});

test('20,000 connections that nobody has read of: a synchronization is heard', () => {
  plane.events();
  const view = acceptFlow(plane, 4);
  const ends = { source: view.tuple.remote, destination: view.tuple.local, destinationPort: 80 };
  // Each RST ends one flow; told without a packet.
  for (let i = 0; i < 20_000; i++) {
    plane.boundary.adopt(
      { ...view.tuple, localPort: 80, remotePort: i + 1 },
      { ...flowLike(view), responder: { ...flowLike(view).responder, tifidHalf: i + 1 } },
    );
    const reset = parsePacketLine('R 1:1(0) win 0', {
      ...{ ...ends, sourcePort: i + 1, base: { seq: view.irs, ack: view.iss } },
      fill: () => new Uint8Array(0),
    });
    plane.boundary.testRun('ingress', frameOf(encodePacket(reset)));
    const kernel = { ...view.tuple, localPort: 80, remotePort: i + 1 };
    plane.boundary.command({ verb: 'forget', kernel });
  }
  plane.expect(fresh(), 'in', claimOf(halvesOf(view)), 'drop sync');
  const types = plane.events().map(({ type }) => type);
  assert.ok(types.includes('packet'), `${types.length} events`);
  assert.ok(types.filter((type) => type === 'ended').length > 10_000);
});

function flowLike(view: View) {
  const flow = plane.boundary.flow(view.tuple);
  assert.ok(flow);
  return flow;
}
