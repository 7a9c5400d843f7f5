/*
 * A new connection where a flow is or was: a SYN on the kernel tuple of a flow that lives elsewhere,
 * and one of our own on a flow's wire.  None is let through, and the daemon is told.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { Flow } from '../../src/boundary/boundary.js';
import { monotonicNs } from '../../src/libc/monotonic.js';
import { seq, seqDiff } from '../../src/wire/seq.js';
import { DataPlane, FAMILIES, type Family, moveFlow, type View } from './data-plane.js';

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

/** A flow that has moved, with nothing told yet. */
function moved(f: Family) {
  const flow = moveFlow(plane, f);
  plane.events();
  return flow;
}

const told = (): string[] => plane.events().map((e) => e.type);
const SYN = 'S  0:0(0) win 65535 <mss 1460>';

both('a SYN on the kernel tuple is told, but not each of a flood', (f) => {
  const { kernel } = moved(f);
  for (let i = 0; i < 20; i++) plane.expect(kernel, 'in', SYN, 'drop old-path');
  assert.deepEqual(told(), ['knock']);
  const { knock, knockedAt } = flowOf(kernel);
  assert.notEqual(knock, 0);
  const flow = { ...flowOf(kernel), knockedAt: knockedAt - 300_000_000n };
  plane.boundary.command({ verb: 'forget', kernel: kernel.tuple });
  assert.ok(plane.boundary.adopt(kernel.tuple, flow));
  plane.expect(kernel, 'in', SYN, 'drop old-path');
  assert.deepEqual(told(), ['knock']);
  assert.equal(flowOf(kernel).knock, knock, 'one question while it is asked');
  const old = { ...flowOf(kernel), knockedAt: monotonicNs() - 11_000_000_000n };
  plane.boundary.command({ verb: 'forget', kernel: kernel.tuple });
  assert.ok(plane.boundary.adopt(kernel.tuple, old));
  plane.expect(kernel, 'in', SYN, 'drop old-path');
  assert.notEqual(flowOf(kernel).knock, knock, 'another one later');
});

both('what answers our question is told, other resets and SYN/ACKs are not', (f) => {
  const { kernel } = moved(f);
  plane.expect(kernel, 'in', 'R  0:0(0) win 0', 'drop old-path');
  plane.expect(kernel, 'in', 'SA 0:0(0) ack 1 win 0', 'drop old-path');
  assert.deepEqual(told(), []);
  plane.expect(kernel, 'in', SYN, 'drop old-path');
  assert.deepEqual(told(), ['knock']);
  const at = seqDiff(seq(flowOf(kernel).knock), kernel.irs) >>> 0;
  plane.expect(kernel, 'in', `R  ${at}:${at}(0) win 0`, 'drop old-path');
  plane.expect(kernel, 'in', `R  ${at + 1}:${at + 1}(0) win 0`, 'drop old-path');
  assert.deepEqual(told(), ['knock']);
});

both('our question goes to who knocks; all else to where the flow lives', (f) => {
  const flow = moved(f);
  const { kernel } = flow;
  plane.expect(kernel, 'in', SYN, 'drop old-path');
  const ack = seqDiff(seq(flowOf(kernel).knock), kernel.irs) >>> 0;
  plane.expect(kernel, 'out', `A  1:1(0) ack ${ack} win 0`, 'same');
  flow.out('A  1:1(0) ack 1 win 10', 'A  1001:1001(0) ack 5001 win 10');
});

both('a SYN of our own on the wire of a flow is told, so that its program can be', (f) => {
  const { wire } = moved(f);
  plane.expect(wire, 'out', SYN, 'drop tuple-in-use');
  assert.deepEqual(told(), ['in-use']);
  plane.expect(wire, 'out', 'SA 0:0(0) ack 1 win 0', 'drop tuple-in-use');
  assert.deepEqual(told(), []);
});
