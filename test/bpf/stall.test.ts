/*
 * How the data plane finds that a flow stalls, which resets it does not believe, and that a frozen
 * flow tells nobody of a window.  Times are put into the flow; nothing waits.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { FLOW_FLAG } from '../../src/boundary/abi.gen.js';
import type { Flow } from '../../src/boundary/boundary.js';
import { monotonicNs } from '../../src/libc/monotonic.js';
import {
  DataPlane,
  FAMILIES,
  type Family,
  moveFlow,
  openFlow,
  remap,
  type View,
} from './data-plane.js';

const plane = new DataPlane();
after(() => plane.remove());

function both(name: string, run: (f: Family) => void): void {
  for (const f of FAMILIES) test(`${name} (IPv${f})`, () => run(f));
}

function flowOf(view: View): Flow {
  const flow = plane.boundary.flow(view.tuple);
  assert.ok(flow);
  return flow;
}

const agoMs = (ms: number): bigint => monotonicNs() - BigInt(ms) * 1_000_000n;

/** As if the flow had come to this by now. */
function put(view: View, change: Partial<Flow>): void {
  const flow = { ...flowOf(view), ...change };
  plane.boundary.command({ verb: 'forget', kernel: view.tuple });
  assert.ok(plane.boundary.adopt(view.tuple, flow));
}

/** 100 bytes out, and nothing came back; the last packet out is 400 ms old. */
function unanswered(f: Family): View {
  const view = openFlow(plane, f);
  plane.expect(view, 'out', 'PA 1:101(100) ack 1 win 1', 'same');
  put(view, { seenOut: agoMs(400), seenIn: agoMs(9000) });
  plane.events();
  return view;
}

const told = (): string[] => plane.events().map((e) => e.type);
const isStalled = (view: View): boolean => (flowOf(view).flags & FLOW_FLAG.STALLED) !== 0;

const AGAIN = 'PA 1:101(100) ack 1 win 1';

both('two retransmissions, a second apart, and nothing in: stalled', (f) => {
  const view = unanswered(f);
  plane.expect(view, 'out', AGAIN, 'same');
  assert.equal(flowOf(view).resent, 1);
  put(view, { seenOut: agoMs(1200), resentSince: agoMs(1200) });
  assert.deepEqual([told(), isStalled(view)], [[], false]);
  plane.expect(view, 'out', AGAIN, 'same');
  assert.deepEqual([told(), isStalled(view)], [['stalled'], true]);
});

both('three retransmissions in less than a second are none', (f) => {
  const view = unanswered(f);
  for (let i = 0; i < 4; i++) {
    plane.expect(view, 'out', AGAIN, 'same');
    put(view, { seenOut: agoMs(150) });
  }
  assert.deepEqual([told(), isStalled(view)], [[], false]);
});

both('new data is no retransmission, a burst is one', (f) => {
  const view = unanswered(f);
  plane.expect(view, 'out', 'PA 101:201(100) ack 1 win 1', 'same');
  assert.equal(flowOf(view).resent, 0);
  put(view, { seenOut: agoMs(400) });
  for (let i = 0; i < 3; i++) plane.expect(view, 'out', AGAIN, 'same');
  assert.equal(flowOf(view).resent, 1);
});

both('a pure ACK is none, a keepalive is a probe', (f) => {
  const view = unanswered(f);
  plane.expect(view, 'out', 'A  101:101(0) ack 1 win 1', 'same');
  assert.equal(flowOf(view).resent, 0);
  put(view, { seenOut: agoMs(1000) });
  plane.expect(view, 'out', 'A  100:100(0) ack 1 win 1', 'same');
  assert.equal(flowOf(view).resent, 1);
});

both('whatever comes in begins the count anew', (f) => {
  const view = unanswered(f);
  put(view, { resent: 7, resentSince: agoMs(5000), seenIn: agoMs(2000) });
  plane.expect(view, 'out', AGAIN, 'same');
  assert.deepEqual([flowOf(view).resent, told()], [1, []]);
});

both('but for what has been overtaken: it acknowledges less than is known', (f) => {
  const view = openFlow(plane, f);
  plane.expect(view, 'out', 'PA 1:201(200) ack 1 win 1', 'same');
  plane.expect(view, 'in', 'A  1:1(0) ack 101 win 1', 'same');
  const before = { resent: 1, resentSince: agoMs(1200), seenOut: agoMs(400), seenIn: agoMs(2000) };
  put(view, before);
  plane.expect(view, 'in', 'A  1:1(0) ack 1 win 1', 'same');
  assert.equal(flowOf(view).seenIn, before.seenIn);
  plane.events();
  plane.expect(view, 'out', 'PA 101:201(100) ack 1 win 1', 'same');
  plane.expect(view, 'in', 'A  1:1(0) ack 1 win 1', 'same');
  assert.deepEqual([told(), isStalled(view)], [['stalled'], true]);
});

both('each probe of a stalled flow is told, and the end of the stall', (f) => {
  const view = unanswered(f);
  put(view, { resent: 5, resentSince: agoMs(5000) });
  plane.expect(view, 'out', AGAIN, 'same');
  put(view, { seenOut: agoMs(400) });
  plane.expect(view, 'out', AGAIN, 'same');
  assert.deepEqual(told(), ['stalled', 'stalled']);
  plane.expect(view, 'in', 'A  1:1(0) ack 1 win 1', 'same');
  assert.deepEqual([told(), isStalled(view)], [['revived'], false]);
});

both('an answer to what was sent again once, after a silence, is told', (f) => {
  for (const [silentMs, resumedMs, expected] of [
    [9000, 9000, ['revived']],
    [500, 9000, []],
    [9000, 500, []],
  ] as const) {
    const view = unanswered(f);
    plane.expect(view, 'out', AGAIN, 'same');
    const since = { seenIn: agoMs(silentMs), resumedAt: agoMs(resumedMs) };
    put(view, { ...since, resentSince: agoMs(100) });
    plane.expect(view, 'in', 'A  1:1(0) ack 1 win 1', 'same');
    assert.deepEqual(told(), expected);
  }
});

both('the answer to a keepalive is not', (f) => {
  const view = openFlow(plane, f);
  put(view, { seenOut: agoMs(5000), seenIn: agoMs(5000) });
  plane.events();
  plane.expect(view, 'out', 'A  0:0(0) ack 1 win 1', 'same');
  plane.expect(view, 'in', 'A  1:1(0) ack 1 win 1', 'same');
  assert.deepEqual(told(), []);
});

both('a held flow is told with the first probe', (f) => {
  const view = unanswered(f);
  plane.boundary.command({ verb: 'hold', kernel: view.tuple });
  plane.expect(view, 'out', AGAIN, 'stolen held');
  assert.deepEqual(told(), ['stalled']);
});

both('a move begins the count anew', (f) => {
  const view = unanswered(f);
  put(view, { resent: 5, resentSince: agoMs(5000), flags: FLOW_FLAG.STALLED });
  remap(plane, view, f, { sndBase: 1, rcvBase: 1 });
  assert.deepEqual([flowOf(view).resent, isStalled(view)], [0, false]);
});

const RESET = 'R  1:1(0) win 0';

both('a reset that is the first answer after a pause is not believed', (f) => {
  const view = openFlow(plane, f);
  put(view, { seenOut: agoMs(5000), seenIn: agoMs(5000) });
  plane.expect(view, 'out', 'PA 1:101(100) ack 1 win 1', 'same');
  plane.expect(view, 'in', RESET, 'drop rst-quarantine');
});

both('nor one that answers a keepalive', (f) => {
  const view = openFlow(plane, f);
  put(view, { seenOut: agoMs(5000), seenIn: agoMs(5000) });
  plane.expect(view, 'out', 'A  0:0(0) ack 1 win 1', 'same');
  plane.expect(view, 'in', RESET, 'drop rst-quarantine');
});

both(
  'but who has sent FIN may reset what comes after, and so may who answers data in time',
  (f) => {
    const closed = openFlow(plane, f);
    plane.expect(closed, 'in', 'FA 1:1(0) ack 1 win 1', 'same');
    put(closed, { seenOut: agoMs(5000), seenIn: agoMs(5000) });
    plane.expect(closed, 'out', 'PA 1:101(100) ack 2 win 1', 'same');
    plane.expect(closed, 'in', 'R  2:2(0) win 0', 'same');
    const busy = openFlow(plane, f);
    plane.expect(busy, 'out', 'PA 1:101(100) ack 1 win 1', 'same');
    plane.expect(busy, 'in', RESET, 'same');
  },
);

const freeze = (view: View, forMs: number): void => {
  const until = monotonicNs() + BigInt(forMs) * 1_000_000n;
  plane.boundary.command({ verb: 'freeze', kernel: view.tuple, until });
};

both('frozen: neither end is told of a window, and the true ones are noted', (f) => {
  const view = openFlow(plane, f);
  freeze(view, 60_000);
  plane.expect(view, 'out', 'PA 1:101(100) ack 1 win 500', 'PA 1:101(100) ack 1 win 0');
  plane.expect(view, 'in', 'A  1:1(0) ack 101 win 600', 'A  1:1(0) ack 101 win 0');
  const { windowOut, windowIn } = flowOf(view);
  assert.deepEqual([windowOut, windowIn], [500, 600]);
});

both('frozen on a wire of its own', (f) => {
  const flow = moveFlow(plane, f, { sndBase: 1, rcvBase: 1 });
  freeze(flow.kernel, 60_000);
  flow.out('PA 1:101(100) ack 1 win 500', 'PA 1001:1101(100) ack 5001 win 0');
  flow.in('A  5001:5001(0) ack 1101 win 600', 'A  1:1(0) ack 101 win 0');
});

both('closed: the window opens with the first ACK of what is in flight', (f) => {
  const view = unanswered(f);
  plane.boundary.command({ verb: 'close', kernel: view.tuple });
  plane.expect(view, 'in', 'PA 1:11(10) ack 1 win 600', 'PA 1:11(10) ack 1 win 0');
  plane.expect(view, 'out', 'PA 101:201(100) ack 11 win 500', 'same');
  plane.expect(view, 'in', 'A  11:11(0) ack 101 win 600', 'same');
  plane.expect(view, 'in', 'A  11:11(0) ack 101 win 600', 'same');
});

both('closed: a kernel that probes has nothing in flight, and hears of the window', (f) => {
  const view = openFlow(plane, f);
  plane.boundary.command({ verb: 'close', kernel: view.tuple });
  plane.expect(view, 'in', 'A  1:1(0) ack 1 win 600', 'A  1:1(0) ack 1 win 0');
  plane.expect(view, 'out', 'A  0:0(0) ack 1 win 500', 'same');
  plane.expect(view, 'in', 'A  1:1(0) ack 1 win 600', 'same');
  const waiting = unanswered(f);
  plane.boundary.command({ verb: 'close', kernel: waiting.tuple });
  plane.expect(waiting, 'out', 'A  0:0(0) ack 1 win 500', 'same');
  plane.expect(waiting, 'in', 'A  1:1(0) ack 1 win 600', 'A  1:1(0) ack 1 win 0');
});

both('told of no window with data in flight: an ACK goes as it would with one', (f) => {
  const view = unanswered(f);
  const ack = 'A  1:1(0) ack 11 win 500';
  plane.expect(view, 'out', ack, 'same');
  plane.boundary.command({ verb: 'close', kernel: view.tuple });
  plane.expect(view, 'out', ack, 'A  101:101(0) ack 11 win 500');
  plane.expect(view, 'out', 'A  0:0(0) ack 11 win 500', 'same'); // a probe, or a keepalive
  plane.expect(view, 'out', 'FA 1:1(0) ack 11 win 500', 'same');
  const frozen = unanswered(f);
  freeze(frozen, 60_000);
  plane.expect(frozen, 'out', ack, 'A  101:101(0) ack 11 win 0');
  const idle = openFlow(plane, f);
  freeze(idle, 60_000);
  plane.expect(idle, 'out', 'A  1:1(0) ack 1 win 500', 'A  1:1(0) ack 1 win 0');
  const flow = moveFlow(plane, f, { sndBase: 1, rcvBase: 1 });
  flow.out('PA 1:101(100) ack 1 win 500', 'PA 1001:1101(100) ack 5001 win 500');
  freeze(flow.kernel, 60_000);
  flow.out('A  1:1(0) ack 1 win 500', 'A  1101:1101(0) ack 5001 win 0');
});

both('a move that acknowledges something opens the window', (f) => {
  for (const [base, flags] of [
    [51, 0],
    [1, FLOW_FLAG.CLOSED],
  ] as const) {
    const view = unanswered(f);
    plane.boundary.command({ verb: 'close', kernel: view.tuple });
    remap(plane, view, f, { sndBase: base, rcvBase: 1 });
    assert.equal(flowOf(view).flags & FLOW_FLAG.CLOSED, flags);
  }
});

both('a freeze ends: with its time, a release, a move', (f) => {
  const late = openFlow(plane, f);
  freeze(late, -100);
  plane.expect(late, 'out', 'PA 1:101(100) ack 1 win 500', 'same');
  const released = openFlow(plane, f);
  freeze(released, 60_000);
  plane.boundary.command({ verb: 'release', kernel: released.tuple });
  plane.expect(released, 'out', 'PA 1:101(100) ack 1 win 500', 'same');
  const moved = openFlow(plane, f);
  freeze(moved, 60_000);
  remap(plane, moved, f, { sndBase: 1, rcvBase: 1 });
  assert.equal(flowOf(moved).frozenUntil, 0n);
});
