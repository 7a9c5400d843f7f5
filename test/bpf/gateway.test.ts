/*
 * The boundary of a gateway: connections of hosts behind it are protected like its own, and known
 * as theirs; those of hosts that have a boundary themselves pass untouched, synchronizations as
 * well.  And the boundary of a host that forwards: it leaves what is not its own alone.
 */
import assert from 'node:assert/strict';
import { after, beforeEach, test } from 'node:test';
import { FLOW_FLAG, type Flow, REASON } from '../../src/boundary/abi.gen.js';
import { seq } from '../../src/wire/seq.js';
import {
  acceptFlow,
  DataPlane,
  FAMILIES,
  type Family,
  freshTuple,
  moveFlow,
  openFlow,
  PEER_OPEN,
  SYN_ACK_OPTIONS,
  SYN_OPTIONS,
  type View,
} from './data-plane.js';

/* In BPF_PROG_TEST_RUN everything is on lo; what is forwarded came by another interface. */
const UPLINK = 1;
const INSIDE = 7;
const MAC = '00112233445566778899aabbccddeeff';

const plane = new DataPlane();
after(() => plane.remove());

beforeEach(() => {
  plane.placement = 'gateway';
  plane.from = INSIDE;
});

const freshView = (f: Family): View => ({ tuple: freshTuple(f), iss: seq(100), irs: seq(1000) });

function both(name: string, run: (f: Family) => void): void {
  for (const f of FAMILIES) test(`${name} (IPv${f})`, () => run(f));
}

function flowOf(view: View): Flow {
  const flow = plane.boundary.flow(view.tuple);
  assert.ok(flow, 'a flow');
  return flow;
}

const isForwarded = (view: View): boolean => (flowOf(view).flags & FLOW_FLAG.FORWARDED) !== 0;

const hex = (half: number): string => (half >>> 0).toString(16).padStart(8, '0');

both('a host behind the gateway opens: a flow, known as its from the handshake on', (f) => {
  const view = openFlow(plane, f);
  plane.expect(view, 'out', 'A 1:1(0) ack 1 win 512', 'same');
  assert.equal(isForwarded(view), true);
  assert.equal(flowOf(view).outside, UPLINK);
});

both('a host behind the gateway is called: a flow, known as its at once', (f) => {
  const view = acceptFlow(plane, f);
  assert.equal(isForwarded(view), true);
  assert.equal(flowOf(view).outside, UPLINK);
});

both('the gateway itself opens and is called: its own flows', (f) => {
  plane.from = 0;
  const called = acceptFlow(plane, f);
  const view = openFlow(plane, f);
  for (const each of [called, view]) {
    plane.expect(each, 'out', 'A 1:1(0) ack 1 win 512', 'same');
    assert.equal(isForwarded(each), false);
  }
});

both('a host that does it itself: its set-up passes untouched, both ways', (f) => {
  const opened = freshView(f);
  plane.expect(opened, 'out', `S 0:0(0) win 1 <${SYN_OPTIONS},${PEER_OPEN}>`, 'same');
  plane.expect(opened, 'in', `SA 0:0(0) ack 1 win 1 <${SYN_ACK_OPTIONS},${PEER_OPEN}>`, 'same');
  const called = freshView(f);
  plane.expect(called, 'in', `S 0:0(0) win 1 <${SYN_OPTIONS},${PEER_OPEN}>`, 'same');
  plane.expect(called, 'out', `SA 0:0(0) ack 1 win 1 <${SYN_ACK_OPTIONS},${PEER_OPEN}>`, 'same');
  for (const view of [opened, called]) {
    plane.expect(view, 'out', 'A 1:1(0) ack 1 win 1', 'same');
    assert.equal(plane.boundary.flow(view.tuple), undefined);
  }
});

/** One line of each kind of a synchronization. */
const synchronization = (halves: string): Array<['out' | 'in', string]> => [
  [
    'in',
    `S 0:0(0) win 1 <mss 1,ti-sync ${halves} epoch 1 tiack 0 nonce 00000001 mac ${MAC.slice(16)}>`,
  ],
  ['out', `SA 0:0(0) ack 1 win 1 <mss 1,ti-sync-ack epoch 1 tiack 0 nonce 00000002 mac ${MAC}>`],
  ['in', `A 1:1(0) ack 1 win 1 <ti-confirm epoch 1 mac ${MAC}>`],
  ['in', `R 1:1(0) win 0 <ti-rst reason 1 epoch 1 mac ${MAC.slice(16)}>`],
  ['in', `SA 0:0(0) ack 1 win 1 <mss 1,ti-sync-ack epoch 1 tiack 0 nonce 00000002 mac ${MAC}>`],
];

both('a host that does it itself: its synchronizations pass untouched', (f) => {
  const view = freshView(f);
  plane.events();
  for (const [direction, line] of synchronization('00000001ffffff01')) {
    const outcome = plane.expect(view, direction, line, 'same');
    if (direction === 'in') assert.ok(outcome.counted.includes('end-to-end'));
  }
  assert.deepEqual(plane.events(), []);
});

both('a synchronization of a flow of this gateway never gets to the host', (f) => {
  const flow = flowOf(openFlow(plane, f));
  plane.events();
  const { initiator, responder } = flow;
  const halves = hex(initiator.tifidHalf) + hex(responder.tifidHalf);
  const wire = freshView(f);
  const [[, syn]] = synchronization(halves) as [['in', string]];
  plane.expect(wire, 'in', syn, 'drop sync');
  assert.deepEqual(
    plane.events().map((e) => e.type),
    ['packet'],
  );
  // Of its SYN/ACK the gateway's own daemon is the sender.
  plane.boundary.setWire(wire.tuple, { kernel: wire.tuple, state: 'pending', ack: seq(0) });
  for (const [direction, line] of synchronization(halves)) {
    if (direction === 'in') plane.expect(wire, 'in', line, 'drop sync');
  }
  plane.boundary.deleteWire(wire.tuple);
});

both('a host that is no gateway: what it forwards is plain TCP, and it says so', (f) => {
  plane.placement = 'host';
  const opened = freshView(f);
  const outcome = plane.expect(opened, 'out', `S 0:0(0) win 1 <${SYN_OPTIONS}>`, 'same');
  assert.ok(outcome.counted.includes('forwarded'));
  const called = freshView(f);
  plane.expect(called, 'in', `S 0:0(0) win 1 <${SYN_OPTIONS},${PEER_OPEN}>`, 'same');
  plane.expect(called, 'out', `SA 0:0(0) ack 1 win 1 <${SYN_ACK_OPTIONS}>`, 'same');
  for (const view of [opened, called]) {
    assert.equal(plane.boundary.flow(view.tuple), undefined);
    const plain = plane.boundary.plain().find(([t]) => t.localPort === view.tuple.localPort);
    assert.equal(plain?.[1].reason, REASON.LEGACY_FORWARDED);
  }
});

both('a host that is no gateway answers a synchronization that it knows nothing of', (f) => {
  plane.placement = 'host';
  const view = freshView(f);
  for (const [direction, line] of synchronization('00000001ffffff01')) {
    if (direction === 'in') plane.expect(view, 'in', line, 'drop sync');
  }
  plane.events();
});

/** A packet of a neighbour in the name of another host behind the gateway, or of that host itself. */
both("a neighbour's reset is believed where a kernel's would be", (f) => {
  for (const line of [
    'R  3000000000:3000000000(0) win 0',
    'RA 3000000000:3000000000(0) ack 77 win 0',
  ]) {
    const flow = moveFlow(plane, f);
    plane.expect(flow.kernel, 'out', line, 'drop below-base');
    assert.equal(flowOf(flow.kernel).flags & FLOW_FLAG.RESET, 0);
  }
  const view = openFlow(plane, f);
  plane.expect(view, 'out', 'PA 1:101(100) ack 1 win 500', 'same');
  for (const at of [0, 102]) plane.expect(view, 'out', `R  ${at}:${at}(0) win 0`, 'same');
  assert.equal(flowOf(view).flags & FLOW_FLAG.RESET, 0);
  // Its own; and if it goes on all the same, it was not.
  for (const at of [1, 101]) {
    const outcome = plane.expect(view, 'out', `R  ${at}:${at}(0) win 0`, 'same');
    assert.ok(outcome.counted.includes('flow-ended'));
    plane.expect(view, 'out', 'A  101:101(0) ack 1 win 500', 'same');
    assert.equal(flowOf(view).flags & FLOW_FLAG.RESET, 0);
  }
});

both("a neighbour's SYN is believed when it is answered", (f) => {
  for (const flow of [{ kernel: openFlow(plane, f) }, moveFlow(plane, f)]) {
    const again: View = { ...flow.kernel, iss: seq(4242) };
    const open = plane.stockHalf();
    plane.expect(again, 'out', 'S  0:0(0) win 1', `S  0:0(0) win 1 <${open}>`);
    const { tifidHalf } = flowOf(flow.kernel).initiator;
    // What its peer answers, who knows the true connection: a challenge ACK.
    plane.expect(
      again,
      'in',
      `SA 0:0(0) ack 2 win 1 <${PEER_OPEN}>`,
      'wire' in flow ? 'drop old-path' : 'same',
    );
    assert.equal(flowOf(flow.kernel).initiator.tifidHalf, tifidHalf);
    plane.expect(again, 'in', `SA 0:0(0) ack 1 win 1 <${PEER_OPEN}>`, 'same');
    assert.notEqual(flowOf(flow.kernel).initiator.tifidHalf, tifidHalf);
    assert.equal(flowOf(flow.kernel).active, 0);
  }
});

both("a neighbour's segment tells nothing if its numbers are not near", (f) => {
  const view = openFlow(plane, f);
  plane.expect(view, 'out', 'PA 1:101(100) ack 1 win 500', 'same');
  const before = flowOf(view);
  for (const line of [
    'PA 90000000:90000100(100) ack 1 win 500',
    'PA 101:201(100) ack 90000000 win 500',
    `FPA ${seq(-90_000_000)}:${seq(-89_999_900)}(100) ack 1 win 500`,
  ])
    plane.expect(view, 'out', line, 'same');
  assert.deepEqual(flowOf(view), before);
  plane.from = 0; // our own kernel's word
  plane.expect(view, 'out', 'PA 101:201(100) ack 90000000 win 500', 'same');
  assert.notDeepEqual(flowOf(view), before);
});
