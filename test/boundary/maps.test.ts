/*
 * Flows, wires, counters and stock as the control plane reads and writes them, and how long
 * that takes when there are many.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  encodeTuple,
  FLOW_AT,
  FLOW_SIZE,
  HALF_SIZE,
  LIMIT,
  REASON,
  reasonClass,
  reasonName,
  WIRE_STATE,
} from '../../src/boundary/abi.gen.js';
import { Boundary } from '../../src/boundary/boundary.js';
import { pinDirectory } from '../../src/boundary/bpffs.js';
import { objectGet } from '../../src/boundary/libbpf.js';
import { BpfMap } from '../../src/boundary/map.js';
import { address } from '../../src/wire/address.js';
import { seq } from '../../src/wire/seq.js';
import { type Tuple, tupleText } from '../../src/wire/tuple.js';
import { runDirectory } from './runtime-directory.js';

const runDir = runDirectory();
const boundary = Boundary.open({ runDir });
const pinned = (name: string): BpfMap =>
  new BpfMap(objectGet(join(pinDirectory(runDir), name)), name);

const tupleOf = (n: number): Tuple => ({
  local: n % 2 === 0 ? address('192.0.2.10') : address('2001:db8::10'),
  remote: n % 2 === 0 ? address('203.0.113.7') : address('2001:db8:3::7'),
  localPort: n & 0xffff,
  remotePort: 1 + (n >> 16),
});

function fillFlows(count: number): void {
  const flows = pinned('flows');
  const value = new Uint8Array(FLOW_SIZE);
  const view = new DataView(value.buffer);
  for (let n = 0; n < count; n++) {
    view.setUint32(FLOW_AT.iss, n, true);
    assert.ok(flows.set(encodeTuple(tupleOf(n)), value));
  }
  flows.close();
}

function timed<T>(run: () => T): { value: T; ms: number } {
  const start = performance.now();
  const value = run();
  return { value, ms: performance.now() - start };
}

test('no flows, no wires', () => {
  assert.deepEqual(boundary.flows(), []);
  assert.equal(boundary.flow(tupleOf(1)), undefined);
  assert.equal(boundary.wire(tupleOf(1)), undefined);
  assert.equal(boundary.tupleOfHalf(0x01020304), undefined);
  assert.deepEqual(boundary.plain(), []);
});

test('1,000 flows are read at once, each once', () => {
  fillFlows(1000);
  boundary.flows(); // the first run pays for compiling
  const { value, ms } = timed(() => boundary.flows());
  assert.equal(value.length, 1000);
  assert.equal(new Set(value.map(([t]) => tupleText(t))).size, 1000);
  for (const [t, flow] of value) assert.deepEqual(t, tupleOf(flow.iss));
  assert.ok(ms < 100, `${ms.toFixed(1)} ms; 20 on a machine that does nothing else`);
});

test('65,536 flows are read, each once', () => {
  fillFlows(LIMIT.FLOWS_MAX);
  const { value, ms } = timed(() => boundary.flows());
  assert.equal(value.length, LIMIT.FLOWS_MAX);
  assert.equal(new Set(value.map(([, flow]) => flow.iss)).size, LIMIT.FLOWS_MAX);
  assert.ok(ms < 10_000, `${ms.toFixed(0)} ms`);
  const flows = pinned('flows');
  const oneMore = { ...tupleOf(1), remotePort: 9999 };
  assert.equal(flows.set(encodeTuple(oneMore), new Uint8Array(FLOW_SIZE)), false);
  for (let n = 0; n < LIMIT.FLOWS_MAX; n++) flows.delete(encodeTuple(tupleOf(n)));
  flows.close();
  assert.equal(boundary.flows().length, 0);
});

test('wires are noted and forgotten', () => {
  const [wire, kernel] = [tupleOf(1), tupleOf(2)];
  boundary.setWire(wire, { kernel, state: 'syncing' });
  assert.deepEqual(boundary.wire(wire), { kernel, ack: 0, state: WIRE_STATE.SYNCING });
  boundary.setWire(wire, { kernel, state: 'pending', ack: seq(7) });
  assert.deepEqual(boundary.wire(wire), { kernel, ack: 7, state: WIRE_STATE.PENDING });
  boundary.deleteWire(wire);
  assert.equal(boundary.wire(wire), undefined);
  boundary.deleteWire(wire); // nothing there: nothing to do
});

test('the stock is filled once, with halves of its own', () => {
  const { value, ms } = timed(() => boundary.stockHalves());
  assert.equal(value, LIMIT.HALVES_MAX);
  assert.ok(ms < 1000, `${ms.toFixed(0)} ms`);
  assert.equal(boundary.stockHalves(), 0);
  assert.equal(pinned('halves').valueSize, HALF_SIZE);
});

test('every reason has a counter, a class and a label', () => {
  const counters = boundary.counters();
  assert.equal(counters.size, REASON.REASON_END);
  assert.ok([...counters.values()].every((count) => count === 0n));
  assert.equal(reasonName(REASON.LEGACY_PEER_PLAIN), 'peer-plain');
  assert.equal(reasonClass(REASON.LEGACY_PEER_PLAIN), 'legacy');
  assert.equal(reasonClass(REASON.DROP_HELD), 'drop');
  assert.equal(reasonClass(REASON.COUNT_FLOW_OPENED), 'count');
  assert.equal(reasonName(4711), '4711');
  const labels = Array.from(
    { length: REASON.REASON_END },
    (_, n) => reasonClass(n) + reasonName(n),
  );
  assert.equal(new Set(labels).size, REASON.REASON_END);
});

test('settings change one by one; the version is not ours to change', () => {
  const before = boundary.settings();
  boundary.writeSettings({ markGuest: 0xdeadbeef, abiVersion: 99 });
  assert.deepEqual(boundary.settings(), { ...before, markGuest: 0xdeadbeef });
  boundary.writeSettings({ keyIds: new Uint8Array(32).fill(0xff), keyId: 1 });
  const after = boundary.settings();
  assert.equal(after.markGuest, 0xdeadbeef);
  assert.deepEqual(after.keyIds, new Uint8Array(32).fill(0xff));
});

test('a command on a flow that is not there', () => {
  const kernel = tupleOf(3);
  for (const verb of ['hold', 'release', 'forget'] as const) {
    assert.deepEqual(boundary.command({ verb, kernel }), { result: 'no-flow' });
  }
});
