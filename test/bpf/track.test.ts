/*
 * What a flow notes of the packets that pass, moved or not: the two TIAcks come from it.
 * PROTOCOL.md, section "TIAck".
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { FLOW_FLAG } from '../../src/boundary/abi.gen.js';
import type { Flow } from '../../src/boundary/boundary.js';
import { encodePacket } from '../../src/wire/packet.js';
import { seq, seqDiff } from '../../src/wire/seq.js';
import {
  acceptFlow,
  DataPlane,
  FAMILIES,
  type Family,
  frameOf,
  moveFlow,
  openFlow,
  packetOf,
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

/** SND.UNA, SND.NXT, RCV.NXT and the end of the highest segment received, from the ISNs. */
function numbers(view: View): [number, number, number, number] {
  const f = flowOf(view);
  const [sent, received] = [view.iss, view.irs];
  return [
    seqDiff(f.sndUna, sent),
    seqDiff(f.sndNxt, sent),
    seqDiff(f.rcvNxt, received),
    seqDiff(f.rcvMax, received),
  ];
}

both('a flow begins with nothing but the handshake', (f) => {
  for (const view of [openFlow(plane, f), acceptFlow(plane, f)]) {
    assert.deepEqual(numbers(view), [1, 1, 1, 1]);
  }
});

both('what is sent, acknowledged, received; across 2^32', (f) => {
  const view = openFlow(plane, f, { iss: 0xffffffc0, irs: 0xffffffe0 });
  plane.expect(view, 'out', 'PA 1:101(100) ack 1 win 500', 'same');
  assert.deepEqual(numbers(view), [1, 101, 1, 1]);
  plane.expect(view, 'in', 'PA 1:201(200) ack 51 win 600', 'same');
  assert.deepEqual(numbers(view), [51, 101, 1, 201]);
  plane.expect(view, 'out', 'A  101:101(0) ack 201 win 700', 'same');
  assert.deepEqual(numbers(view), [51, 101, 201, 201]);
  const flow = flowOf(view);
  assert.deepEqual([flow.windowOut, flow.windowIn], [700, 600]);
  plane.expect(view, 'in', 'A  201:201(0) ack 101 win 600', 'same');
  assert.deepEqual(numbers(view), [101, 101, 201, 201]);
});

both('old segments and acknowledgements move nothing back', (f) => {
  const view = openFlow(plane, f);
  plane.expect(view, 'out', 'PA 1:1001(1000) ack 1 win 1', 'same');
  plane.expect(view, 'in', 'PA 1:501(500) ack 1001 win 1', 'same');
  plane.expect(view, 'out', 'A  1001:1001(0) ack 501 win 1', 'same');
  plane.expect(view, 'out', 'A  1001:1001(0) ack 1 win 1', 'same');
  plane.expect(view, 'in', 'PA 1:101(100) ack 101 win 1', 'same');
  assert.deepEqual(numbers(view), [1001, 1001, 501, 501]);
});

both('an ACK of what was never sent, or a segment far off, teaches nothing', (f) => {
  const view = openFlow(plane, f);
  plane.expect(view, 'in', 'A  1:1(0) ack 5000 win 1', 'same');
  plane.expect(view, 'in', 'PA 90000000:90000100(100) ack 1 win 1', 'same');
  assert.deepEqual(numbers(view), [1, 1, 1, 1]);
});

both('a FIN counts as one, in both directions', (f) => {
  const view = openFlow(plane, f);
  plane.expect(view, 'out', 'FPA 1:11(10) ack 1 win 1', 'same');
  assert.deepEqual(numbers(view), [1, 12, 1, 1]);
  const told = () => flowOf(view).flags & ~FLOW_FLAG.BOTH_WAYS;
  assert.equal(told(), FLOW_FLAG.FIN_SENT);
  plane.expect(view, 'in', 'FA 1:1(0) ack 12 win 1', 'same');
  assert.deepEqual(numbers(view), [12, 12, 1, 2]);
  assert.equal(told(), FLOW_FLAG.FIN_SENT | FLOW_FLAG.FIN_SEEN);
});

both('an ACK of long ago is too old for our kernel, and for us (RFC 5961, section 5.2)', (f) => {
  const view = openFlow(plane, f);
  plane.expect(view, 'in', 'A  1:1(0) ack 1 win 2000', 'same'); // 2000 << 9: 1,024,000
  plane.expect(view, 'in', 'A  1:1(0) ack 1 win 500', 'same');
  const before = flowOf(view);
  const forged = `FPA 60000:61000(1000) ack ${seq(1 - 1_030_000)} win 0`;
  plane.expect(view, 'in', forged, 'same');
  assert.deepEqual(flowOf(view), before);
  // In the largest window that the peer has ever told, an old ACK is as good as none.
  plane.expect(view, 'in', `PA 1:11(10) ack ${seq(1 - 1_020_000)} win 7`, 'same');
  assert.deepEqual(numbers(view), [1, 1, 1, 11]);
  assert.equal(flowOf(view).windowIn, 500);
});

both('a segment that ends below our last ACK tells nothing but that the peer is there', (f) => {
  const view = openFlow(plane, f);
  plane.expect(view, 'out', 'PA 1:1001(1000) ack 1 win 500', 'same');
  plane.expect(view, 'in', 'PA 1:501(500) ack 1 win 500', 'same');
  plane.expect(view, 'out', 'A  1001:1001(0) ack 501 win 500', 'same');
  const before = flowOf(view);
  plane.expect(view, 'in', 'FPA 1:101(100) ack 1001 win 0', 'same');
  const { seenIn, ...after } = flowOf(view);
  assert.ok(seenIn >= before.seenIn);
  assert.deepEqual({ ...after, seenIn: before.seenIn }, before);
});

both('a FIN counts when our kernel has acknowledged it', (f) => {
  const isReceived = (view: View) => (flowOf(view).flags & FLOW_FLAG.FIN_RECEIVED) !== 0;
  const view = openFlow(plane, f);
  plane.expect(view, 'in', 'FPA 101:201(100) ack 1 win 500', 'same'); // something is missing before it
  plane.expect(view, 'out', 'A  1:1(0) ack 1 win 500', 'same');
  assert.equal(isReceived(view), false);
  plane.expect(view, 'in', 'PA 1:101(100) ack 1 win 500', 'same');
  plane.expect(view, 'out', 'A  1:1(0) ack 202 win 500', 'same');
  assert.equal(isReceived(view), true);
  const forged = openFlow(plane, f);
  plane.expect(forged, 'in', 'FA 101:101(0) ack 1 win 500', 'same');
  plane.expect(forged, 'in', 'PA 1:201(200) ack 1 win 500', 'same');
  plane.expect(forged, 'out', 'A  1:1(0) ack 201 win 500', 'same');
  assert.equal(isReceived(forged), false);
});

both('who sends again what was acknowledged has refused the ACK: SND.UNA is taken back', (f) => {
  const view = openFlow(plane, f);
  plane.expect(view, 'out', 'PA 1:1001(1000) ack 1 win 1', 'same');
  // The TCP checksum is wrong: it looks as good as any here, and the kernel drops it.
  const ack = encodePacket(packetOf(view, 'in', 'A  1:1(0) ack 1001 win 1'));
  ack[ack.length - 4] = (ack[ack.length - 4] ?? 0) ^ 0xff;
  assert.equal(plane.run('in', frameOf(ack)).verdict, 'pass');
  assert.deepEqual(numbers(view), [1001, 1001, 1, 1]);
  plane.expect(view, 'out', 'A  1000:1000(0) ack 1 win 1', 'same'); // a keepalive takes nothing back
  plane.expect(view, 'out', 'PA 1000:1001(1) ack 1 win 1', 'same'); // nor does one with a byte in it
  assert.deepEqual(numbers(view), [1001, 1001, 1, 1]);
  plane.expect(view, 'out', 'PA 1:1001(1000) ack 1 win 1', 'same');
  assert.deepEqual(numbers(view), [1, 1001, 1, 1]);
  plane.expect(view, 'in', 'A  1:1(0) ack 1001 win 1', 'same');
  assert.deepEqual(numbers(view), [1001, 1001, 1, 1]);
  // Never below the base: so far the peer has said to be with its TIAck.
  const moved = moveFlow(plane, f);
  moved.out('PA 1:1001(1000) ack 1 win 1', 'PA 1001:2001(1000) ack 5001 win 1');
  const again = remap(plane, moved.kernel, f, { sndBase: 501, epoch: 2 });
  again.in('A  5001:5001(0) ack 2001 win 1', 'A  1:1(0) ack 1001 win 1');
  again.out('PA 1:1001(1000) ack 1 win 1', 'drop below-base');
  assert.deepEqual(numbers(moved.kernel), [501, 1001, 1, 1]);
});

both(
  'a peer that has moved begins at the base, however far our kernel is and however full',
  (f) => {
    const view = openFlow(plane, f);
    plane.expect(view, 'out', 'A  1:1(0) ack 1 win 8192', 'same');
    for (let at = 1; at < 1_000_001; at += 50_000)
      plane.expect(view, 'in', `PA ${at}:${at + 1000}(1000) ack 1 win 500`, 'same');
    plane.expect(view, 'out', 'A  1:1(0) ack 1000001 win 0', 'same');
    const flow = remap(plane, view, f, { sndBase: 1, rcvBase: 1 });
    flow.in('PA 5001:6401(1400) ack 1001 win 500', 'PA 1:1401(1400) ack 1 win 500');
    flow.out('A  1:1(0) ack 1000001 win 0', 'A  1001:1001(0) ack 6401 win 0');
    // But what lies below the base is from another time.
    const before = numbers(view);
    plane.expect(
      flow.wire,
      'in',
      'PA 1:101(100) ack 1001 win 1',
      `PA ${seq(-4999)}:${seq(-4899)}(100) ack 1 win 1`,
      view,
    );
    assert.deepEqual(numbers(view), before);
  },
);

both('our own reset ends the flow', (f) => {
  const view = openFlow(plane, f);
  plane.events();
  const outcome = plane.expect(view, 'out', 'RA 1:1(0) ack 1 win 0', 'same');
  assert.deepEqual(outcome.counted, ['flow-ended']);
  assert.deepEqual(
    plane.events().map((e) => [e.type, e.tuple]),
    [['ended', view.tuple]],
  );
});

both('opening a flow is told, without waking anyone', (f) => {
  plane.events();
  const view = openFlow(plane, f);
  assert.deepEqual(
    plane.events().map((e) => [e.type, e.tuple]),
    [['opened', view.tuple]],
  );
});

both('a moved flow notes the kernel view', (f) => {
  const flow = moveFlow(plane, f, { sndBase: 1, rcvBase: 1 });
  flow.out('PA 1:101(100) ack 1 win 1', 'PA 1001:1101(100) ack 5001 win 1');
  flow.in('PA 5001:5301(300) ack 1051 win 1', 'PA 1:301(300) ack 51 win 1');
  assert.deepEqual(numbers(flow.kernel), [51, 101, 1, 301]);
});

both('a move starts from the two TIAcks: what the peer has, and what has come to us', (f) => {
  const view = openFlow(plane, f);
  plane.expect(view, 'out', 'PA 1:201(200) ack 1 win 1', 'same');
  plane.expect(view, 'in', 'PA 1:501(500) ack 1 win 1', 'same');
  assert.deepEqual(numbers(view), [1, 201, 1, 501]);
  // The peer has 100 of our bytes; our kernel has passed on 300 of its 500.
  const flow = remap(plane, view, f, { sndBase: 101, rcvBase: 301 });
  assert.deepEqual(numbers(view), [101, 201, 1, 301]);
  const outcome = flow.out('A  201:201(0) ack 501 win 1', 'A  1201:1201(0) ack 5301 win 1');
  assert.ok(outcome.counted.includes('ack-clamped'));
  // A base below what was acknowledged takes nothing back.
  const again = remap(plane, view, f, { sndBase: 51, rcvBase: 301, epoch: 2 });
  assert.deepEqual(numbers(again.kernel), [101, 201, 501, 301]);
});

both('the tuple of an ended flow can be used again', (f) => {
  const view = openFlow(plane, f);
  plane.expect(view, 'out', 'RA 1:1(0) ack 1 win 0', 'same');
  const open = plane.stockHalf();
  plane.expect(view, 'out', 'S  500:500(0) win 1', `S  500:500(0) win 1 <${open}>`);
  assert.ok(plane.boundary.flow(view.tuple) === undefined);
});
