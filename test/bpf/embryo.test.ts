/*
 * Flows whose SYN/ACK has had no answer: anyone can make us begin them, with a made-up source, so they
 * take no room from the others.  SECURITY.md, "off the path".
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { FLOW_FLAG, REASON } from '../../src/boundary/abi.gen.js';
import { seq, seqDiff } from '../../src/wire/seq.js';
import {
  acceptEmbryo,
  acceptFlow,
  DataPlane,
  FAMILIES,
  type Family,
  freshTuple,
  openFlow,
  remap,
  type View,
} from './data-plane.js';
import { TAP, UNKNOWN } from './tap.js';

const plane = new DataPlane();
after(() => plane.remove());

function both(name: string, run: (f: Family) => void): void {
  for (const f of FAMILIES) test(`${name} (IPv${f})`, () => run(f));
}

const isThere = (view: View): boolean => plane.boundary.flow(view.tuple) !== undefined;
const isEmbryonic = (view: View): boolean =>
  ((plane.boundary.flow(view.tuple)?.flags ?? 0) & FLOW_FLAG.EMBRYONIC) !== 0;

for (const placement of ['host', 'gateway', 'tap'] as const) {
  both(`a flood from made-up sources has a quarter of the table for itself: ${placement}`, (f) => {
    const small = new DataPlane({ flows: 64 });
    small.placement = placement;
    const embryo = () => {
      small.boundary.setPlace(TAP, UNKNOWN); // and no MAC of a guest's learned
      const tuple = freshTuple(f);
      return acceptEmbryo(small, f, placement === 'tap' ? { ...tuple, tap: TAP } : tuple);
    };
    const open = () => {
      const view = embryo();
      small.boundary.setPlace(TAP, UNKNOWN);
      small.expect(view, 'in', 'A  1:1(0) ack 1 win 502', 'same');
      return view;
    };
    try {
      const honest = open();
      for (let i = 0; i < 80; i++) embryo();
      assert.equal(small.boundary.flows().length, 1 + 16);
      for (let i = 0; i < 47; i++) open();
      const flags = small.boundary.flows().map(([, flow]) => flow.flags & FLOW_FLAG.EMBRYONIC);
      assert.equal(flags.filter((flag) => flag === 0).length, 1 + 47);
      assert.ok(small.boundary.flow(honest.tuple), 'who has answered stays');
    } finally {
      small.remove();
    }
  });
}

both('in a full table the embryonic ones make room for what we open', (f) => {
  const small = new DataPlane({ flows: 16 });
  try {
    for (let i = 0; i < 4; i++) acceptEmbryo(small, f);
    for (let i = 0; i < 16; i++) openFlow(small, f);
    const flags = small.boundary.flows().map(([, flow]) => flow.flags);
    assert.deepEqual(flags, Array(16).fill(0));
    assert.throws(() => openFlow(small, f), /a flow/);
  } finally {
    small.remove();
  }
});

both('who is driven out is plain TCP, with its reason', (f) => {
  const small = new DataPlane({ flows: 16 });
  try {
    const first = acceptEmbryo(small, f);
    for (let i = 0; i < 4; i++) acceptEmbryo(small, f);
    assert.equal(small.boundary.flow(first.tuple), undefined);
    const [[tuple, plain] = []] = small.boundary.plain();
    assert.deepEqual([tuple, plain?.reason], [first.tuple, REASON.LEGACY_EVICTED]);
    const late = small.expect(first, 'in', 'PA 1:11(10) ack 1 win 502', 'same');
    assert.deepEqual(late.counted, []);
  } finally {
    small.remove();
  }
});

both('open with the ACK of our SYN/ACK, and only then told', (f) => {
  plane.events();
  const view = acceptEmbryo(plane, f);
  for (const line of ['A  1:1(0) ack 2 win 502', 'A  1:1(0) ack 0 win 502']) {
    plane.expect(view, 'in', line, 'same');
    assert.equal(isEmbryonic(view), true);
  }
  assert.deepEqual(plane.events(), []);
  const third = plane.expect(view, 'in', 'PA 1:11(10) ack 1 win 502', 'same');
  assert.deepEqual([isEmbryonic(view), third.counted], [false, ['flow-opened']]);
  assert.deepEqual(
    plane.events().map((e) => [e.type, e.tuple]),
    [['opened', view.tuple]],
  );
  assert.equal(seqDiff(plane.boundary.flow(view.tuple)?.rcvMax ?? view.irs, view.irs), 11);
});

both('a listener with SYN cookies: its first segment tells which ISN was acknowledged', (f) => {
  for (const line of ['PA 1:101(100) ack 1 win 500', 'A  1:1(0) ack 301 win 500']) {
    const view = acceptEmbryo(plane, f);
    const later = { ...view, iss: seq(123_456) };
    const open = plane.boundary.flow(view.tuple)?.responder;
    assert.ok(open);
    const half = Buffer.from(open.keyHalf).toString('hex');
    const option = `ti-open ${open.tifidHalf.toString(16).padStart(8, '0')} key ${half}`;
    const answer = 'SA 0:0(0) ack 1 win 1';
    plane.expect(later, 'out', answer, `${answer} <${option}>`);
    // The third ACK is that of the first SYN/ACK: the kernel knows, we do not.
    plane.expect(view, 'in', 'PA 1:301(300) ack 1 win 502', 'same');
    // What it answers to a segment that it refuses says nothing.
    plane.expect(later, 'out', 'A  1:1(0) ack 1 win 500', 'same');
    assert.equal(isEmbryonic(view), true);
    plane.expect(view, 'out', line, 'same');
    const flow = plane.boundary.flow(view.tuple);
    assert.deepEqual([isEmbryonic(view), flow?.iss], [false, view.iss]);
    assert.equal(flow?.sndUna, seq(view.iss + 1));
    plane.expect(view, 'in', 'A  301:301(0) ack 1 win 502', 'same');
    // A SYN/ACK that was on its way still changes nothing.
    plane.expect(later, 'out', answer, `${answer} <${option}>`);
    assert.equal(plane.boundary.flow(view.tuple)?.iss, view.iss);
  }
});

both('reset, it is forgotten at once, and nobody is told of an end without a beginning', (f) => {
  plane.events();
  for (const [direction, line] of [
    ['in', 'R  1:1(0) win 0'],
    ['out', 'R  1:1(0) win 0'],
  ] as const) {
    const view = acceptEmbryo(plane, f);
    plane.expect(view, 'in', 'R  2:2(0) win 0', 'same');
    assert.ok(isThere(view));
    plane.expect(view, direction, line, 'same');
    assert.ok(!isThere(view));
  }
  assert.deepEqual(plane.events(), []);
});

both('a SYN without TI_OPEN that comes late does not end a flow that is open', (f) => {
  const syn = 'S  0:0(0) win 1 <mss 1460>';
  const view = acceptFlow(plane, f);
  plane.expect(view, 'in', syn, 'same');
  assert.ok(isThere(view));
  const embryo = acceptEmbryo(plane, f);
  plane.expect(embryo, 'in', syn, 'same');
  assert.ok(!isThere(embryo));
});

both('who confirms a synchronization has had our SYN/ACK', (f) => {
  const view = acceptEmbryo(plane, f);
  remap(plane, view, f, {});
  assert.equal(isEmbryonic(view), false);
});
