/*
 * How the data plane finds that a flow's kernel does not take what comes in, and that it is content
 * with a kernel that only has a hole to fill, or no room.  Times are put into the flow.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { FLOW_FLAG } from '../../src/boundary/abi.gen.js';
import type { Flow } from '../../src/boundary/boundary.js';
import { monotonicNs } from '../../src/libc/monotonic.js';
import { DataPlane, FAMILIES, type Family, moveFlow, openFlow, type View } from './data-plane.js';

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

/** As if all that the flow has seen had happened so much earlier. */
function age(view: View, ms: number): void {
  const earlier = (at: bigint): bigint => (at === 0n ? 0n : at - BigInt(ms) * 1_000_000n);
  const flow = flowOf(view);
  const { seenIn, seenOut, tookAt, untakenSince, behindSince } = flow;
  const times = Object.entries({ seenIn, seenOut, tookAt, untakenSince, behindSince });
  const change = Object.fromEntries(times.map(([name, at]) => [name, earlier(at)]));
  plane.boundary.command({ verb: 'forget', kernel: view.tuple });
  assert.ok(plane.boundary.adopt(view.tuple, { ...flow, ...change }));
}

const isStuck = (view: View): boolean => (flowOf(view).flags & FLOW_FLAG.STUCK) !== 0;
const told = (): string[] => plane.events().map((e) => e.type);

/** A flow that has said and taken something, a while ago; nothing is told of it yet. */
function lively(f: Family): View {
  const view = openFlow(plane, f);
  plane.expect(view, 'out', 'A  1:1(0) ack 1 win 1', 'same');
  age(view, 5_000);
  plane.events();
  return view;
}

const DATA = 'PA 1:101(100) ack 1 win 1';

/** The peer's data comes, and once more each 600 ms. */
function comesAgain(view: View, between: () => void = () => undefined): void {
  for (let i = 0; i < 4; i++) {
    plane.expect(view, 'in', DATA, 'same');
    between();
    age(view, 600);
  }
}

both('data comes again and again, and nothing is said to it: stuck, and told once', (f) => {
  const view = lively(f);
  comesAgain(view);
  assert.deepEqual([told(), isStuck(view)], [['stuck'], true]);
  comesAgain(view);
  assert.deepEqual(told(), []);
  plane.expect(view, 'out', 'A  1:1(0) ack 101 win 1', 'same');
  assert.deepEqual([told(), isStuck(view)], [['revived'], false]);
});

both('three in less than a second are none, nor are two', (f) => {
  const view = lively(f);
  for (let i = 0; i < 9; i++) plane.expect(view, 'in', DATA, 'same');
  assert.equal(isStuck(view), false);
  const slow = lively(f);
  plane.expect(slow, 'in', DATA, 'same');
  age(slow, 3_000);
  plane.expect(slow, 'in', DATA, 'same');
  assert.equal(isStuck(slow), false);
});

both('its kernel waits for what was lost before, or has no room: an ACK of the old number', (f) => {
  const view = lively(f);
  const hole = 'PA 101:201(100) ack 1 win 1';
  for (let i = 0; i < 4; i++) {
    plane.expect(view, 'in', hole, 'same');
    age(view, 50);
    plane.expect(view, 'out', 'A  1:1(0) ack 1 win 0', 'same');
    age(view, 600);
  }
  assert.deepEqual([told(), isStuck(view)], [[], false]);
});

both('what it sends by its own timers says nothing of what comes in', (f) => {
  const view = lively(f);
  plane.expect(view, 'out', 'PA 1:51(50) ack 1 win 1', 'same');
  age(view, 100);
  plane.expect(view, 'in', 'A  1:1(0) ack 51 win 1', 'same');
  comesAgain(view, () => plane.expect(view, 'out', 'A  50:50(0) ack 1 win 1', 'same'));
  assert.equal(isStuck(view), true);
});

both('new data of its own does not hide that it takes none', (f) => {
  const view = lively(f);
  let sent = 1;
  comesAgain(view, () => {
    plane.expect(view, 'out', `PA ${sent}:${sent + 10}(10) ack 1 win 1`, 'same');
    sent += 10;
  });
  assert.equal(isStuck(view), true);
});

both('what the peer has acknowledged is sent again and again: stuck', (f) => {
  const view = lively(f);
  plane.expect(view, 'out', DATA, 'same');
  for (let i = 0; i < 4; i++) {
    plane.expect(view, 'in', 'A  1:1(0) ack 101 win 1', 'same');
    age(view, 600);
    plane.expect(view, 'out', DATA, 'same');
  }
  assert.deepEqual([told(), isStuck(view)], [['stuck'], true]);
  plane.expect(view, 'out', 'PA 101:201(100) ack 1 win 1', 'same');
  assert.deepEqual([told(), isStuck(view)], [['revived'], false]);
});

both('what nobody has acknowledged is a stall, if anything', (f) => {
  const view = lively(f);
  for (let i = 0; i < 4; i++) {
    plane.expect(view, 'out', DATA, 'same');
    age(view, 600);
  }
  assert.equal(isStuck(view), false);
});

both('a held flow says nothing, and so is not stuck', (f) => {
  const view = lively(f);
  plane.boundary.command({ verb: 'hold', kernel: view.tuple });
  comesAgain(view);
  assert.equal(isStuck(view), false);
});

both('a move begins anew; what the old path drops is noted', (f) => {
  const moved = moveFlow(plane, f);
  plane.events();
  const { oldPathAt } = flowOf(moved.kernel);
  assert.equal(oldPathAt, 0n);
  plane.expect(moved.kernel, 'in', DATA, 'drop old-path');
  assert.ok(flowOf(moved.kernel).oldPathAt > agoMs(1_000));
});
