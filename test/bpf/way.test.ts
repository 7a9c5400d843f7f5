/*
 * By which interface a flow leaves: it is kept where it comes in and has left before, whatever its
 * kernel's routes say by now; one that has moved leaves by the interface of its new address.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, test } from 'node:test';
import { FLOW_FLAG } from '../../src/boundary/abi.gen.js';
import { monotonicNs } from '../../src/libc/monotonic.js';
import { interfaceIndex } from '../../src/libc/socket.js';
import { encodePacket } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import {
  acceptFlow,
  DataPlane,
  FAMILIES,
  type Family,
  frameOf,
  movedTuple,
  openFlow,
  packetOf,
  type View,
} from './data-plane.js';

/* BPF_PROG_TEST_RUN's device, where everything comes in, and another one. */
const LO = 1;
const NAME = `tw${process.pid}`;
execFileSync('ip', ['link', 'add', NAME, 'type', 'veth', 'peer', `${NAME}p`]);
process.on('exit', () => execFileSync('ip', ['link', 'del', NAME]));
const OTHER = interfaceIndex(NAME) ?? 0;

const plane = new DataPlane();
after(() => plane.remove());

function both(name: string, run: (f: Family) => void): void {
  for (const f of FAMILIES) test(`${name} (IPv${f})`, () => run(f));
}

const isKept = (view: View) =>
  ((plane.boundary.flow(view.tuple)?.flags ?? 0) & FLOW_FLAG.BOTH_WAYS) !== 0;

/** Sends a line by an interface; the verdict. */
function leave(view: View, line: string, ifindex: number): string {
  const frame = frameOf(encodePacket(packetOf(view, 'out', line)));
  return plane.run('out', frame, { ifindex }).verdict;
}

test('what its kernel sends elsewhere is sent where it comes in, and counts there', () => {
  const view = openFlow(plane, 4);
  assert.equal(leave(view, 'A  1:1(0) ack 1 win 500', LO), 'pass');
  assert.ok(isKept(view));
  const before = plane.boundary.flow(view.tuple);
  assert.equal(leave(view, 'PA 1:11(10) ack 1 win 500', OTHER), 'redirect');
  assert.deepEqual(plane.boundary.flow(view.tuple), before);
  assert.equal(leave(view, 'PA 1:11(10) ack 1 win 500', LO), 'pass');
  assert.equal(plane.boundary.flow(view.tuple)?.sndNxt, seq(view.iss + 11));
});

both('where the path is asymmetric, its kernel decides', (f) => {
  for (const view of [openFlow(plane, f), acceptFlow(plane, f)]) {
    assert.equal(leave(view, 'A  1:1(0) ack 1 win 500', OTHER), 'pass');
    plane.expect(view, 'in', 'PA 1:11(10) ack 1 win 500', 'same');
    assert.equal(leave(view, 'A  1:1(0) ack 11 win 500', OTHER), 'pass');
    assert.ok(!isKept(view));
  }
});

both('the daemon lets it go', (f) => {
  const view = openFlow(plane, f);
  leave(view, 'A  1:1(0) ack 1 win 500', LO);
  assert.equal(plane.boundary.command({ verb: 'let-go', kernel: view.tuple }).result, 'ok');
  assert.equal(leave(view, 'PA 1:11(10) ack 1 win 500', OTHER), 'pass');
});

test('nothing comes back, and its TCP has sent again twice: its kernel decides', () => {
  for (const [resent, expected] of [
    [1, 'redirect'],
    [2, 'pass'],
  ] as const) {
    const view = openFlow(plane, 4);
    leave(view, 'PA 1:11(10) ack 1 win 500', LO);
    const flow = plane.boundary.flow(view.tuple);
    assert.ok(flow);
    plane.boundary.command({ verb: 'forget', kernel: view.tuple });
    const now = monotonicNs();
    const silent = { resent, resentSince: now, seenIn: now - 1_000_000_000n };
    assert.ok(plane.boundary.adopt(view.tuple, { ...flow, ...silent }));
    assert.equal(leave(view, 'PA 11:21(10) ack 1 win 500', OTHER), expected);
  }
});

test('IPv6 has no way to be sent by a worse route: its kernel decides', () => {
  const view = openFlow(plane, 6);
  assert.equal(leave(view, 'A  1:1(0) ack 1 win 500', LO), 'pass');
  assert.ok(isKept(view));
  assert.equal(leave(view, 'PA 1:11(10) ack 1 win 500', OTHER), 'pass');
});

test('one that has moved leaves by the interface of its address, translated', () => {
  const view = openFlow(plane, 4);
  const map = (epoch: number, way: number) =>
    plane.boundary.command({
      ...{ verb: 'map', kernel: view.tuple, epoch, unproven: false, held: false },
      mapping: {
        wire: { ...movedTuple(view.tuple, 4), localPort: 40_000 + epoch },
        ...{ sndDelta: seq(0), rcvDelta: seq(0), redirect: way << 1 },
        ...{ sndBase: seq(view.iss + 1), rcvBase: seq(view.irs + 1) },
      },
    });
  assert.equal(map(1, OTHER).result, 'ok');
  assert.equal(leave(view, 'PA 1:11(10) ack 1 win 500', LO), 'redirect');
  assert.equal(leave(view, 'PA 11:21(10) ack 1 win 500', OTHER), 'pass');
  assert.equal(map(2, LO).result, 'ok');
  assert.equal(leave(view, 'PA 21:31(10) ack 1 win 500', LO), 'pass');
});
