/* Flows of VMs on their way: who waits for them, who is told what when one cannot be moved.
 * Time is a fake clock's.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Flow } from '../../../src/boundary/abi.gen.js';
import type { NewEvent } from '../../../src/daemon/view/monitor-events.js';
import { VmFlows } from '../../../src/daemon/vm/vm-flows.js';
import type { MoveOptions, SyncEvent } from '../../../src/sync/agent.js';
import type { Address } from '../../../src/wire/address.js';
import { seq } from '../../../src/wire/seq.js';
import { type Tuple, tupleKey, tupleText } from '../../../src/wire/tuple.js';
import { FakeClock } from '../../sim/fake-clock.js';
import { flowOf, read, TAP, tupleOf } from '../vm-fixture.js';

const GIVE_UP_MS = 60_000;
const BEGIN = { mtu: 1400, epochAbove: 0 };

/** VmFlows, and all that it has done, in order. */
function machine() {
  const clock = new FakeClock();
  const tables = new Map<string, Flow>();
  const done: string[] = [];
  /** When the turn of each came; of those that are to wait for it: not yet. */
  const begun = new Map<number, number>();
  const moves: Array<{ kernel: Tuple; source: Address; o: MoveOptions }> = [];
  const events: NewEvent[] = [];
  const told: Array<{ packet: Uint8Array; kernel: Tuple }> = [];
  const flows = new VmFlows({
    boundary: {
      flow: (kernel) => tables.get(tupleKey(kernel)),
      command: ({ verb, kernel }) => {
        done.push(`${verb} ${kernel.localPort}`);
        if (verb === 'forget') tables.delete(tupleKey(kernel));
        return { result: 'ok' };
      },
    },
    agent: {
      move: (kernel, source, options) => {
        moves.push({ kernel, source, o: options });
        begun.set(kernel.localPort, clock.now());
      },
      cancel: (kernel) => done.push(`cancel ${kernel.localPort}`),
      underway: ({ localPort }) => ({
        ...{ source: tupleOf(localPort).local, state: 'syncing' },
        since: begun.get(localPort),
      }),
      together: (body) => body(),
      reasonNow: (_, before) => before ?? 'no-answer',
    },
    mtuOf: () => 1500,
    outlet: {
      toKernel: (packet, kernel) => told.push({ packet, kernel }),
    },
    clock,
    giveUpMs: GIVE_UP_MS,
    emit: (event) => events.push(event),
  });
  const begin = (ports: number[], more: Partial<typeof BEGIN> = {}, tap = TAP) => {
    const all = ports.map((port): [Tuple, Flow] => [tupleOf(port, tap), flowOf()]);
    for (const [kernel, flow] of all) tables.set(tupleKey(kernel), flow);
    flows.begin(tap, all, { ...BEGIN, ...more });
  };
  const pass = (ms: number) => clock.pass(ms);
  return { flows, clock, done, moves, events, told, begin, pass, tables, begun };
}

const proven = (port: number, tap = TAP): SyncEvent => ({
  ...{ type: 'proven', kernel: tupleOf(port, tap), wire: tupleOf(port, tap), epoch: 4, at: 0 },
});
const failed = (port: number, final: boolean, reason: 'refused' | 'reset'): SyncEvent => ({
  ...{ type: 'failed', kernel: tupleOf(port), reason, final, at: 0 },
});

test('each is asked of the agent, from the inside address, by the gateway', () => {
  const { begin, moves } = machine();
  begin([1, 2]);
  const o = { mtu: 1400, redirect: true, newest: 3 };
  assert.deepEqual(
    moves,
    [1, 2].map((port) => ({ kernel: tupleOf(port), source: tupleOf(port).local, o })),
  );
});

test('epochs that another machine may have used are passed over, also around the end', () => {
  const { flows, moves } = machine();
  flows.begin(TAP, [[tupleOf(1), flowOf({ epoch: 0xfff0 })]], { mtu: 1400, epochAbove: 64 });
  assert.equal(moves[0]?.o.newest, 0x30);
});

test('settled when the last has been proven', async () => {
  const { flows, begin } = machine();
  begin([1, 2]);
  let answer: unknown;
  const settled = flows.settled(TAP, 3000).then((view) => {
    answer = view;
  });
  flows.synchronized(proven(1));
  await Promise.resolve();
  assert.equal(answer, undefined);
  flows.synchronized(proven(2));
  await settled;
  assert.deepEqual(answer, { version: 1, moved: 2, failed: 0, pending: 0, failures: [] });
});

test('nothing to move: settled at once', async () => {
  const { flows, begin } = machine();
  begin([]);
  const view = await flows.settled(TAP, 3000);
  assert.deepEqual(view, { version: 1, moved: 0, failed: 0, pending: 0, failures: [] });
});

test('time is up: how it stands; asked again, the rest is waited for', async () => {
  const { flows, begin, pass, moves } = machine();
  begin([1, 2]);
  flows.synchronized(proven(1));
  const first = flows.settled(TAP, 500);
  pass(500);
  assert.deepEqual(await first, { version: 1, moved: 1, failed: 0, pending: 1, failures: [] });
  // Those that are on their way are not begun again.
  begin([2]);
  assert.equal(moves.length, 2);
  const second = flows.settled(TAP, 500);
  flows.synchronized(proven(2));
  assert.deepEqual(await second, { version: 1, moved: 2, failed: 0, pending: 0, failures: [] });
});

test('two who wait for one tap are both told; another tap is another matter', async () => {
  const { flows, begin } = machine();
  begin([1]);
  begin([1], {}, TAP + 1);
  const both = [flows.settled(TAP, 500), flows.settled(TAP, 500)];
  flows.synchronized(proven(1));
  for (const each of both) assert.equal((await each).moved, 1);
  let other = false;
  const waits = flows.settled(TAP + 1, 500).then((view) => {
    other = true;
    return view;
  });
  await Promise.resolve();
  assert.equal(other, false);
  flows.synchronized(proven(1, TAP + 1));
  assert.equal((await waits).moved, 1);
});

test('a final failure: forgotten, the guest gets a reset at exactly what it expects', async () => {
  const { flows, begin, done, told, events, tables } = machine();
  begin([1]);
  flows.synchronized(failed(1, true, 'reset'));
  assert.deepEqual(done, ['cancel 1', 'forget 1']);
  assert.equal(tables.size, 0);
  const [reset] = told.map(({ packet }) => read(packet));
  const kernel = tupleOf(1);
  assert.equal(told.length, 1);
  assert.deepEqual(
    { ...reset, hopLimit: undefined, payload: undefined, options: undefined },
    {
      source: kernel.remote,
      sourcePort: kernel.remotePort,
      destination: kernel.local,
      destinationPort: kernel.localPort,
      flags: 'R',
      seq: seq(0xffff_fff0),
      ack: 0,
      window: 0,
      hopLimit: undefined,
      payload: undefined,
      options: undefined,
    },
  );
  assert.deepEqual(events, [
    { event: 'move-failed', kernel: tupleText(kernel), reason: 'reset' },
    { event: 'flow-reset', kernel: tupleText(kernel), reason: 'reset' },
  ]);
  assert.deepEqual(await flows.settled(TAP, 500), {
    ...{ version: 1, moved: 0, failed: 1, pending: 0 },
    failures: [{ kernel: tupleText(kernel), reason: 'reset' }],
  });
});

test('an attempt that failed is no end; given up in time, with the last reason', async () => {
  const { flows, begin, pass, events, told } = machine();
  begin([1]);
  pass(20_000);
  begin([2]);
  flows.synchronized(failed(1, false, 'refused'));
  pass(GIVE_UP_MS - 20_001);
  assert.equal(told.length, 0);
  pass(1);
  assert.deepEqual(
    told.map(({ kernel }) => kernel.localPort),
    [1],
  );
  assert.equal(events[0]?.reason, 'refused');
  pass(19_999);
  assert.equal(told.length, 1);
  pass(1);
  assert.equal(told.length, 2);
  assert.equal(events.at(-1)?.reason, 'no-answer');
  assert.equal((await flows.settled(TAP, 0)).pending, 0);
});

test('the time in which a flow waits for its turn does not count', () => {
  const { begin, begun, clock, pass, told } = machine();
  begin([1]);
  begun.delete(1);
  pass(2 * GIVE_UP_MS);
  assert.equal(told.length, 0);
  begun.set(1, clock.now());
  pass(GIVE_UP_MS - 1);
  assert.equal(told.length, 0);
  pass(GIVE_UP_MS);
  assert.equal(told.length, 1);
});

test('a flow that is gone from the tables when it fails: no reset is made up', () => {
  const { flows, begin, told, tables } = machine();
  begin([1]);
  tables.clear();
  flows.synchronized(failed(1, true, 'refused'));
  assert.deepEqual(told, []);
});

test('a flow that ends meanwhile is waited for no longer', async () => {
  const { flows, begin, done } = machine();
  begin([1]);
  const waits = flows.settled(TAP, 500);
  flows.ended(tupleOf(1));
  assert.deepEqual(done, ['cancel 1']);
  const failures = [{ kernel: tupleText(tupleOf(1)), reason: 'ended' }];
  assert.deepEqual(await waits, { version: 1, moved: 0, failed: 1, pending: 0, failures });
});

test('events of flows that are not on their way mean nothing', async () => {
  const { flows, begin, done, events } = machine();
  begin([1]);
  flows.synchronized(proven(9));
  flows.synchronized(proven(1, TAP + 1));
  flows.synchronized({ ...failed(9, true, 'reset') });
  assert.deepEqual([done, events], [[], []]);
  flows.close();
  assert.equal((await flows.settled(TAP + 1, 0)).moved, 0);
});

test('closed: who waits is answered, and no timer is left', async () => {
  const { flows, begin, pass, told } = machine();
  begin([1]);
  const waits = flows.settled(TAP, 3000);
  flows.close();
  assert.equal((await waits).pending, 1);
  pass(2 * GIVE_UP_MS);
  assert.deepEqual(told, []);
});

test('a full table is begun and given up, in time that grows with it and no faster', async () => {
  const { flows, begin, pass } = machine();
  begin(Array.from({ length: 65_535 }, (_, port) => port));
  pass(GIVE_UP_MS);
  assert.equal((await flows.settled(TAP, 0)).failed, 65_535);
});
