/*
 * When a flow is over, and which resets are believed: here and in the daemon it is one question
 * (flowIsOver).  PROTOCOL.md, section "End of a flow".
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { FLOW_FLAG } from '../../src/boundary/abi.gen.js';
import type { Flow } from '../../src/boundary/boundary.js';
import { flowIsOver } from '../../src/daemon/view/flow-views.js';
import { monotonicNs } from '../../src/libc/monotonic.js';
import {
  acceptFlow,
  DataPlane,
  type Direction,
  FAMILIES,
  type Family,
  moveFlow,
  type Outcome,
  openFlow,
  type View,
} from './data-plane.js';

const plane = new DataPlane();
after(() => plane.remove());

function both(name: string, run: (f: Family) => void): void {
  for (const f of FAMILIES) test(`${name} (IPv${f})`, () => run(f));
}

function flowOf(view: View): Flow {
  const flow = plane.boundary.flow(view.tuple);
  assert.ok(flow, 'a flow');
  return flow;
}

/** Plays lines; the last one ends the flow, none before does. */
function play(view: View, lines: Array<[Direction, string]>): Outcome[] {
  const outcomes = lines.map(([direction, line], i) => {
    plane.events();
    const outcome = plane.expect(view, direction, line, 'same');
    const isLast = i === lines.length - 1;
    const flow = plane.boundary.flow(view.tuple);
    assert.equal(flow === undefined || flowIsOver(flow), isLast, `over after ${line}`);
    assert.equal(outcome.counted.includes('flow-ended'), isLast, `counted after ${line}`);
    const told = plane.events().filter((e) => e.type === 'ended');
    assert.deepEqual(
      told.map((e) => e.tuple),
      isLast ? [view.tuple] : [],
    );
    return outcome;
  });
  return outcomes;
}

both(
  'half-closed by the client: over when the last byte and FIN of the server are acknowledged',
  (f) => {
    const view = acceptFlow(plane, f);
    play(view, [
      ['in', 'FA 1:1(0) ack 1 win 500'],
      ['out', 'A  1:1(0) ack 2 win 500'],
      ['out', 'A  1:1401(1400) ack 2 win 500'],
      ['out', 'FPA 1401:2801(1400) ack 2 win 500'],
      ['in', 'A  2:2(0) ack 1401 win 500'],
      ['out', 'FPA 1401:2801(1400) ack 2 win 500'],
      ['in', 'A  2:2(0) ack 2801 win 500'],
      ['in', 'A  2:2(0) ack 2802 win 500'],
    ]);
  },
);

both('closed at once at both ends, and FINs that cross', (f) => {
  play(openFlow(plane, f), [
    ['out', 'FA 1:1(0) ack 1 win 500'],
    ['in', 'FA 1:1(0) ack 1 win 500'],
    ['in', 'A  2:2(0) ack 2 win 500'],
    ['out', 'A  2:2(0) ack 2 win 500'],
  ]);
  play(openFlow(plane, f), [
    ['out', 'FA 1:1(0) ack 1 win 500'],
    ['in', 'FA 1:1(0) ack 2 win 500'],
    ['out', 'A  2:2(0) ack 2 win 500'],
  ]);
});

both(
  'over and not moved: its entry is free at once; the next connection of the tuple has it',
  (f) => {
    const small = new DataPlane({ flows: 4 });
    try {
      for (let i = 0; i < 12; i++) {
        const view = openFlow(small, f);
        small.expect(view, 'out', 'FA 1:1(0) ack 1 win 500', 'same');
        small.expect(view, 'in', 'FA 1:1(0) ack 2 win 500', 'same');
        small.expect(view, 'out', 'A  2:2(0) ack 2 win 500', 'same');
        assert.equal(small.boundary.flow(view.tuple), undefined);
        // The last ACK was lost: what comes is plain TCP, and needs nothing of us.
        small.expect(view, 'in', 'FA 1:1(0) ack 2 win 500', 'same');
      }
      for (let i = 0; i < 8; i++)
        small.expect(openFlow(small, f), 'out', 'R  1:1(0) win 0', 'same');
      assert.deepEqual(small.boundary.flows(), []);
    } finally {
      small.remove();
    }
  },
);

both('a reset before our delayed ACK: between the last ACK and the end of what has come', (f) => {
  for (const placement of ['host', 'gateway'] as const) {
    plane.placement = placement;
    const view = openFlow(plane, f);
    plane.expect(view, 'in', 'PA 1:25(24) ack 1 win 500', 'same');
    for (const at of [0, 26, 3_000_000_000]) {
      plane.expect(view, 'in', `R  ${at}:${at}(0) win 0`, 'same');
      assert.equal(flowIsOver(flowOf(view)), false);
    }
    play(view, [['in', 'R  25:25(0) win 0']]);
    plane.placement = 'host';
  }
});

both('who goes on after the reset of its peer has not believed it', (f) => {
  const view = openFlow(plane, f);
  plane.expect(view, 'in', 'PA 1:101(100) ack 1 win 500', 'same');
  play(view, [['in', 'R  51:51(0) win 0']]);
  plane.expect(view, 'out', 'A  1:1(0) ack 101 win 500', 'same'); // a challenge ACK
  assert.equal(flowIsOver(flowOf(view)), false);
  play(view, [['in', 'R  101:101(0) win 0']]);
  assert.equal(plane.boundary.command({ verb: 'go-on', kernel: view.tuple }).result, 'ok');
  assert.equal(flowIsOver(flowOf(view)), false);
});

both('on a path in doubt only a reset that may be believed is kept back', (f) => {
  const silent = openFlow(plane, f);
  plane.expect(silent, 'out', 'PA 1:101(100) ack 1 win 500', 'same');
  const flow = { ...flowOf(silent), seenIn: monotonicNs() - 9_000_000_000n };
  plane.boundary.command({ verb: 'forget', kernel: silent.tuple });
  assert.ok(plane.boundary.adopt(silent.tuple, { ...flow, resumedAt: 0n }));
  const held = openFlow(plane, f);
  plane.boundary.command({ verb: 'hold', kernel: held.tuple });
  plane.events();
  for (const view of [silent, held]) {
    for (const at of [0, 2, 0x12345678]) {
      const { counted } = plane.expect(view, 'in', `R  ${at}:${at}(0) win 0`, 'same');
      assert.deepEqual(counted, []);
    }
    assert.deepEqual(plane.events(), []);
    plane.expect(view, 'in', 'R  1:1(0) win 0', 'drop rst-quarantine');
    assert.deepEqual(
      plane.events().map((e) => e.type),
      ['rst'],
    );
  }
});

both('a moved flow that is over stays, until the daemon forgets it', (f) => {
  const flow = moveFlow(plane, f);
  flow.in('R  5001:5001(0) win 0', 'R  1:1(0) win 0');
  assert.equal(flowOf(flow.kernel).flags & FLOW_FLAG.RESET, FLOW_FLAG.RESET);
  assert.ok(plane.boundary.wire(flow.wire.tuple));
});
