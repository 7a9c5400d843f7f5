/* What is done about a flow whose kernel does not take what comes in. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FLOW_FLAG, FLOW_SIZE, type Flow, readFlow } from '../../../src/boundary/abi.gen.js';
import { StuckFlows } from '../../../src/daemon/flows/stuck.js';
import { address } from '../../../src/wire/address.js';
import type { Tuple } from '../../../src/wire/tuple.js';
import { FakeClock } from '../../sim/fake-clock.js';

const KERNEL: Tuple = {
  local: address('192.0.2.10'),
  remote: address('203.0.113.7'),
  localPort: 40_000,
  remotePort: 22,
};
const HOLD_MS = 60_000;

/** A flow that is stuck, both ends of which go on sending, and what is done about it. */
function machine() {
  const clock = new FakeClock();
  clock.pass(1_000_000);
  const nowNs = () => BigInt(Math.round(clock.now())) * 1_000_000n;
  const flow: Flow = readFlow(new DataView(new ArrayBuffer(FLOW_SIZE)));
  flow.flags = FLOW_FLAG.STUCK;
  flow.untakenSince = nowNs();
  flow.seenIn = nowNs();
  const done: string[] = [];
  const stuck = new StuckFlows({
    boundary: { flow: () => flow },
    clock,
    holdMs: HOLD_MS,
    end: (_, reason) => done.push(`end ${reason}`),
    emit: ({ event, reason }) => done.push(`${event} ${reason ?? '-'}`),
  });
  return { stuck, flow, clock, nowNs, done };
}

test('told at once, ended when hold is over', () => {
  const { stuck, clock, done } = machine();
  stuck.stuck(KERNEL);
  assert.deepEqual(done.splice(0), ['stuck -']);
  clock.pass(HOLD_MS - 1);
  assert.deepEqual(done, []);
  clock.pass(1);
  assert.deepEqual(done, ['end stuck']);
});

test('our own counter is named, if it is what drops', () => {
  const { stuck, flow, nowNs, done } = machine();
  flow.oldPathAt = nowNs() - 1n;
  stuck.stuck(KERNEL);
  flow.oldPathAt = nowNs() + 1n;
  stuck.stuck(KERNEL);
  assert.deepEqual(done, ['stuck -', 'stuck old-path']);
});

test('taken again before that: told, and all is well', () => {
  const { stuck, flow, clock, done } = machine();
  stuck.revived(KERNEL);
  stuck.stuck(KERNEL);
  clock.pass(1_000);
  flow.flags = 0;
  stuck.revived(KERNEL);
  clock.pass(HOLD_MS);
  assert.deepEqual(done, ['stuck -', 'revived -']);
});

test('stuck again after a move that has changed nothing: hold goes on', () => {
  const { stuck, clock, done } = machine();
  stuck.stuck(KERNEL);
  clock.pass(HOLD_MS - 1);
  stuck.stuck(KERNEL);
  clock.pass(1);
  assert.deepEqual(done, ['stuck -', 'stuck -', 'end stuck']);
});

test('not any more when the event is read, or nobody waits any more: nothing', () => {
  const late = machine();
  late.flow.flags = 0;
  late.stuck.stuck(KERNEL);
  const quiet = machine();
  quiet.flow.seenIn = quiet.nowNs() - 100_000_000_000n;
  quiet.stuck.stuck(KERNEL);
  for (const { clock } of [late, quiet]) clock.pass(HOLD_MS);
  assert.deepEqual([late.done, quiet.done], [[], ['stuck -']]);
});

test('ended, or closed: no timer is left', () => {
  for (const end of ['ended', 'close'] as const) {
    const { stuck, clock, done } = machine();
    stuck.stuck(KERNEL);
    stuck[end](KERNEL);
    clock.pass(HOLD_MS);
    assert.deepEqual(done, ['stuck -']);
  }
});
