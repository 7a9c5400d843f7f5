/*
 * Set-up: TI_OPEN on SYN and SYN/ACK in both roles, and every reason to leave it out.
 * PROTOCOL.md, section "Set-up".
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { NEGOTIATED, REASON, ROLE } from '../../src/boundary/abi.gen.js';
import { encodePacket } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import {
  acceptFlow,
  DataPlane,
  FAMILIES,
  type Family,
  frameOf,
  freshTuple,
  openFlow,
  PEER_OPEN,
  packetOf,
  SYN_ACK_OPTIONS,
  SYN_OPTIONS,
  type View,
} from './data-plane.js';

const plane = new DataPlane();
after(() => plane.remove());

const freshView = (f: Family): View => ({
  tuple: freshTuple(f),
  iss: seq(0xffffff00),
  irs: seq(1000),
});

/** Runs a test for both families. */
function both(name: string, run: (f: Family) => void): void {
  for (const f of FAMILIES) test(`${name} (IPv${f})`, () => run(f));
}

const assertNoFlow = (view: View): void =>
  assert.ok(plane.boundary.flow(view.tuple) === undefined, 'no flow');

const plainReason = (view: View): string | undefined => {
  const found = plane.boundary.plain().find(([t]) => t.localPort === view.tuple.localPort);
  return found && String(found[1].reason);
};

both('we open: SYN gains TI_OPEN, the SYN/ACK makes a flow', (f) => {
  const view = openFlow(plane, f, { iss: 0xffffffff, irs: 77 });
  const flow = plane.boundary.flow(view.tuple);
  assert.ok(flow);
  assert.equal(flow.role, ROLE.INITIATOR);
  assert.equal(flow.iss, 0xffffffff);
  assert.equal(flow.sndUna, 0);
  assert.equal(flow.sndNxt, 0);
  assert.equal(flow.irs, 77);
  assert.equal(flow.rcvNxt, 78);
  assert.equal(flow.options, NEGOTIATED.SACK | NEGOTIATED.TIMESTAMPS | NEGOTIATED.WSCALE);
  assert.deepEqual([flow.wscaleOut, flow.wscaleIn], [7, 9]);
  assert.deepEqual([flow.mssOut, flow.mssIn], [1460, 1440]);
  assert.equal(flow.responder.tifidHalf, 0x1a1b1c1d);
  assert.equal(flow.active, 0);
  assert.deepEqual(plane.boundary.tupleOfHalf(flow.initiator.tifidHalf), view.tuple);
});

both('the peer opens: our SYN/ACK gains TI_OPEN', (f) => {
  const view = acceptFlow(plane, f);
  const flow = plane.boundary.flow(view.tuple);
  assert.ok(flow);
  assert.equal(flow.role, ROLE.RESPONDER);
  assert.equal(flow.initiator.tifidHalf, 0x1a1b1c1d);
  assert.deepEqual([flow.wscaleOut, flow.wscaleIn], [9, 7]);
  assert.deepEqual(plane.boundary.tupleOfHalf(flow.responder.tifidHalf), view.tuple);
});

both('a TIFID half that another flow has makes no second flow', (f) => {
  const first = openFlow(plane, f);
  const half = plane.boundary.flow(first.tuple)?.initiator.tifidHalf ?? 0;
  const view = freshView(f);
  const open = plane.stockHalfAgain();
  plane.expect(view, 'out', 'S 0:0(0) win 1', `S 0:0(0) win 1 <${open}>`);
  plane.expect(view, 'in', `SA 0:0(0) ack 1 win 1 <${PEER_OPEN}>`, 'same');
  assertNoFlow(view);
  assert.ok(plainReason(view));
  assert.deepEqual(plane.boundary.tupleOfHalf(half), first.tuple);
});

both('SYN with few options', (f) => {
  const view = freshView(f);
  const open = plane.stockHalf();
  plane.expect(view, 'out', 'S 0:0(0) win 65535', `S 0:0(0) win 65535 <${open}>`);
});

/** What may stand last: an option of 1, 2, 3, 4 or 10 bytes at the very end of the packet. */
for (const last of [
  'mss 1460,nop,wscale 7',
  'mss 1460,nop,nop,sackOK',
  'wscale 7,nop',
  'mss 1460',
  'nop,nop,TS val 1 ecr 0',
  'nop,kind-99 aabbccddee',
]) {
  both(`SYN whose options end in '${last}'`, (f) => {
    const open = plane.stockHalf();
    const [before, after] = [`S 0:0(0) win 1 <${last}>`, `S 0:0(0) win 1 <${last},${open}>`];
    plane.expect(freshView(f), 'out', before, after);
  });
}

both('SYN with exactly 20 bytes of options has room, with 24 it has not', (f) => {
  const open = plane.stockHalf();
  const twenty = 'mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7';
  plane.expect(
    freshView(f),
    'out',
    `S 0:0(0) win 1 <${twenty}>`,
    `S 0:0(0) win 1 <${twenty},${open}>`,
  );
  const view = freshView(f);
  const outcome = plane.expect(view, 'out', `S 0:0(0) win 1 <${twenty},kind-99 aabb>`, 'same');
  assert.deepEqual(outcome.counted, ['no-room']);
  assert.equal(plainReason(view), '1');
});

/** Options that forbid ours, and what is counted. */
const FORBIDDEN: [string, string][] = [
  ['kind-30 0001', 'mptcp'],
  ['kind-19 000102030405060708090a0b0c0d0e0f', 'md5'],
  ['kind-29 00000102030405060708090a', 'tcp-ao'],
  ['kind-34 ', 'fast-open'],
  ['kind-34 0001020304050607', 'fast-open'],
  ['kind-254 f989', 'fast-open'],
  ['kind-254 f9890001020304', 'fast-open'],
  [PEER_OPEN, 'inner'],
];
for (const [option, reason] of FORBIDDEN) {
  both(`SYN with ${option} is left alone: ${reason}`, (f) => {
    const line = `S 0:0(0) win 1 <mss 1460,${option.trim()}>`;
    const outcome = plane.expect(freshView(f), 'out', line, 'same');
    assert.deepEqual(outcome.counted, [reason]);
  });
  if (reason === 'inner') continue;
  both(`the peer's SYN with ${option} and TI_OPEN: ${reason}`, (f) => {
    if (option.length > 24) return; // no room for both
    const view = freshView(f);
    const outcome = plane.expect(
      view,
      'in',
      `S 0:0(0) win 1 <${option.trim()},${PEER_OPEN}>`,
      'same',
    );
    assert.deepEqual(outcome.counted, [reason]);
    plane.expect(view, 'out', 'SA 0:0(0) ack 1 win 1 <mss 1460>', 'same');
  });
}

both('SYN with payload is left alone', (f) => {
  const outcome = plane.expect(freshView(f), 'out', 'S 0:10(10) win 1 <mss 1460>', 'same');
  assert.deepEqual(outcome.counted, ['syn-data']);
});

both('an option of kind 253 that is not ours is no obstacle', (f) => {
  const open = plane.stockHalf();
  const line = 'S 0:0(0) win 1 <kind-253 1234aabb,nop,nop';
  plane.expect(freshView(f), 'out', `${line}>`, `${line},${open}>`);
});

both('no halves in stock: legacy', (f) => {
  const outcome = plane.expect(freshView(f), 'out', 'S 0:0(0) win 1 <mss 1460>', 'same');
  assert.deepEqual(outcome.counted, ['no-halves']);
});

both('the second SYN repeats the option, the third does without', (f) => {
  const view = freshView(f);
  const open = plane.stockHalf();
  const opened = `S 0:0(0) win 1 <mss 1460,${open}>`;
  const syn = 'S 0:0(0) win 1 <mss 1460>';
  plane.expect(view, 'out', syn, opened);
  plane.expect(view, 'out', syn, opened);
  plane.expect(view, 'out', syn, 'same');
  plane.expect(view, 'out', syn, 'same');
  const outcome = plane.expect(view, 'in', 'SA 0:0(0) ack 1 win 1 <mss 1460>', 'same');
  assert.deepEqual(outcome.counted, ['syn-lost']);
});

both('a new SYN on the same tuple starts anew', (f) => {
  const view = { ...freshView(f), tuple: { ...freshTuple(f), remote: otherPeer(f) } };
  const first = plane.stockHalf();
  plane.expect(view, 'out', 'S 0:0(0) win 1', `S 0:0(0) win 1 <${first}>`);
  const again = { ...view, iss: seq(42) };
  const second = plane.stockHalf();
  plane.expect(again, 'out', 'S 0:0(0) win 1', `S 0:0(0) win 1 <${second}>`);
});

const otherPeer = (f: Family) =>
  (f === 4 ? '203.0.113.8' : '2001:db8:3::8') as View['tuple']['local'];
const elsewhere = (f: Family): View => ({
  ...freshView(f),
  tuple: { ...freshTuple(f), remote: otherPeer(f) },
});

both('SYN/ACK without TI_OPEN: plain, and no flow', (f) => {
  const view = elsewhere(f);
  const open = plane.stockHalf();
  plane.expect(view, 'out', 'S 0:0(0) win 1', `S 0:0(0) win 1 <${open}>`);
  const outcome = plane.expect(view, 'in', 'SA 0:0(0) ack 1 win 1 <mss 1460>', 'same');
  assert.deepEqual(outcome.counted, ['peer-plain']);
  assertNoFlow(view);
});

both('SYN/ACK with a wrong ACK makes no flow', (f) => {
  const view = elsewhere(f);
  const open = plane.stockHalf();
  plane.expect(view, 'out', 'S 0:0(0) win 1', `S 0:0(0) win 1 <${open}>`);
  plane.expect(view, 'in', `SA 0:0(0) ack 2 win 1 <${PEER_OPEN}>`, 'same');
  assertNoFlow(view);
  plane.expect(view, 'in', `SA 0:0(0) ack 1 win 1 <${PEER_OPEN}>`, 'same');
  assert.ok(plane.boundary.flow(view.tuple));
});

both('SYN/ACK whose options lie: malformed, and no flow', (f) => {
  const view = elsewhere(f);
  const open = plane.stockHalf();
  plane.expect(view, 'out', 'S 0:0(0) win 1', `S 0:0(0) win 1 <${open}>`);
  const packet = encodePacket(packetOf(view, 'in', `SA 0:0(0) ack 1 win 1 <${PEER_OPEN},mss 1>`));
  packet[packet.length - 3] = 9;
  const outcome = plane.run('in', frameOf(packet));
  assertNoFlow(view);
  assert.equal(outcome.counted.length, 1);
});

both('a TIFID half of zero names nothing', (f) => {
  const view = elsewhere(f);
  const zero = 'ti-open 00000000 key 1011121314151617';
  const outcome = plane.expect(view, 'in', `S 0:0(0) win 1 <${zero}>`, 'same');
  assert.deepEqual(outcome.counted, ['peer-plain']);
});

both("the peer's SYN without TI_OPEN: plain", (f) => {
  const view = elsewhere(f);
  const outcome = plane.expect(view, 'in', 'S 0:0(0) win 1 <mss 1460>', 'same');
  assert.deepEqual(outcome.counted, ['peer-plain']);
  plane.expect(view, 'out', 'SA 0:0(0) ack 1 win 1 <mss 1460>', 'same');
});

both("the peer's SYN again, without TI_OPEN by now: plain, whatever we had", (f) => {
  const view = elsewhere(f);
  plane.expect(view, 'in', `S 0:0(0) win 1 <mss 1460,${PEER_OPEN}>`, 'same');
  const open = plane.stockHalf();
  const answer = 'SA 0:0(0) ack 1 win 1 <mss 1460';
  plane.expect(view, 'out', `${answer}>`, `${answer},${open}>`);
  assert.ok(plane.boundary.flow(view.tuple));
  const outcome = plane.expect(view, 'in', 'S 0:0(0) win 1 <mss 1460>', 'same');
  assert.deepEqual(outcome.counted, ['syn-lost']);
  assertNoFlow(view);
  plane.expect(view, 'out', `${answer}>`, 'same');
});

both('a connection that was plain and is opened anew as a flow is legacy no more', (f) => {
  const view = elsewhere(f);
  const first = plane.stockHalf();
  plane.expect(view, 'out', 'S 0:0(0) win 1', `S 0:0(0) win 1 <${first}>`);
  plane.expect(view, 'in', 'SA 0:0(0) ack 1 win 1 <mss 1460>', 'same');
  assert.ok(plainReason(view));
  const second = plane.stockHalf();
  plane.expect(view, 'out', 'S 9:9(0) win 1', `S 9:9(0) win 1 <${second}>`);
  plane.expect(view, 'in', `SA 0:0(0) ack 10 win 1 <${PEER_OPEN}>`, 'same');
  assert.ok(plane.boundary.flow(view.tuple));
  assert.equal(plainReason(view), undefined);
});

both(
  'our SYN/ACK repeats the option: the SYN came again, and the kernel has a timer as well',
  (f) => {
    const view = elsewhere(f);
    plane.expect(view, 'in', `S 0:0(0) win 1 <mss 1460,${PEER_OPEN}>`, 'same');
    const open = plane.stockHalf();
    const answer = 'SA 0:0(0) ack 1 win 1 <mss 1460';
    for (let i = 0; i < 4; i++) plane.expect(view, 'out', `${answer}>`, `${answer},${open}>`);
    assert.equal(plane.boundary.flow(view.tuple)?.initiator.tifidHalf, 0x1a1b1c1d);
  },
);

both('a SYN/ACK that comes after our SYN without TI_OPEN makes no flow, even with it', (f) => {
  const view = elsewhere(f);
  const open = plane.stockHalf();
  for (const option of [` <${open}>`, ` <${open}>`, ''])
    plane.expect(view, 'out', 'S 0:0(0) win 1', `S 0:0(0) win 1${option}`);
  const outcome = plane.expect(view, 'in', `SA 0:0(0) ack 1 win 1 <${PEER_OPEN}>`, 'same');
  assert.deepEqual(outcome.counted, ['syn-lost']);
  assertNoFlow(view);
});

both('a listener with SYN cookies answers again with another ISN: the flow follows', (f) => {
  const view = elsewhere(f);
  plane.expect(view, 'in', `S 0:0(0) win 1 <mss 1460,${PEER_OPEN}>`, 'same');
  const open = plane.stockHalf();
  plane.expect(view, 'out', 'SA 0:0(0) ack 1 win 1', `SA 0:0(0) ack 1 win 1 <${open}>`);
  const again = { ...view, iss: seq(123456) };
  plane.expect(again, 'out', 'SA 0:0(0) ack 1 win 1', `SA 0:0(0) ack 1 win 1 <${open}>`);
  const flow = plane.boundary.flow(view.tuple);
  assert.deepEqual([flow?.iss, flow?.sndUna, flow?.sndNxt], [123456, 123457, 123457]);
});

both('our SYN/ACK without room: legacy', (f) => {
  const view = elsewhere(f);
  plane.expect(view, 'in', `S 0:0(0) win 1 <mss 1460,${PEER_OPEN}>`, 'same');
  const line = `SA 0:0(0) ack 1 win 1 <${SYN_ACK_OPTIONS},kind-99 aabb>`;
  const outcome = plane.expect(view, 'out', line, 'same');
  assert.deepEqual(outcome.counted, ['no-room']);
});

both('disabled: no option, no flow, nothing counted', (f) => {
  plane.boundary.writeSettings({ enabled: 0 });
  try {
    const outcome = plane.expect(elsewhere(f), 'out', `S 0:0(0) win 1 <${SYN_OPTIONS}>`, 'same');
    assert.deepEqual(outcome.counted, []);
  } finally {
    plane.boundary.writeSettings({ enabled: 1 });
  }
});

both('a key id that both have is offered and echoed; without one in common it is legacy', (f) => {
  const keyIds = new Uint8Array(32);
  keyIds[0] = 1 << 5;
  plane.boundary.writeSettings({ keyId: 5, keyIds });
  try {
    const view = elsewhere(f);
    const open = plane.stockHalf();
    plane.expect(view, 'out', 'S 0:0(0) win 1', `S 0:0(0) win 1 <${open} key-id 5>`);
    const none = plane.expect(view, 'in', `SA 0:0(0) ack 1 win 1 <${PEER_OPEN}>`, 'same');
    assert.deepEqual(none.counted, ['no-psk']);
    assertNoFlow(view);
    // As changed on the way, or of an end that has no key: who saw it could compute the flow's.
    const cleared = elsewhere(f);
    const spare = plane.stockHalf();
    const syn = plane.expect(cleared, 'in', `S 0:0(0) win 1 <${PEER_OPEN}>`, 'same');
    assert.deepEqual(syn.counted, ['no-psk']);
    plane.expect(cleared, 'out', 'SA 0:0(0) ack 1 win 1', 'same');
    assertNoFlow(cleared);
    const accepted = elsewhere(f);
    plane.expect(accepted, 'in', `S 0:0(0) win 1 <${PEER_OPEN} key-id 5>`, 'same');
    const answer = `${spare} key-id 5`;
    plane.expect(accepted, 'out', 'SA 0:0(0) ack 1 win 1', `SA 0:0(0) ack 1 win 1 <${answer}>`);
    const unknown = plane.expect(
      elsewhere(f),
      'in',
      `S 0:0(0) win 1 <${PEER_OPEN} key-id 6>`,
      'same',
    );
    assert.deepEqual(unknown.counted, ['no-psk']);
  } finally {
    plane.boundary.writeSettings({ keyId: 0, keyIds: new Uint8Array(32) });
  }
});

both('a synchronization SYN of the daemon leaves as it is', (f) => {
  const line =
    'S 0:0(0) win 1 <mss 1460,ti-sync 0a0b0c0d1a1b1c1d epoch 1 tiack 0 nonce 00000001 mac 0000000000000000>';
  const outcome = plane.expect(elsewhere(f), 'out', line, 'same');
  assert.deepEqual(outcome.counted, []);
});

/* RFC 9293, section 3.5, figure 8: SYNs that cross.  Each end would be initiator and responder. */
both('simultaneous open: our SYN/ACK goes without TI_OPEN, and it is legacy', (f) => {
  const view = elsewhere(f);
  const open = plane.stockHalf();
  plane.expect(view, 'out', 'S 0:0(0) win 1 <mss 1460>', `S 0:0(0) win 1 <mss 1460,${open}>`);
  plane.expect(view, 'in', `S 0:0(0) win 1 <mss 1460,${PEER_OPEN}>`, 'same');
  const answer = 'SA 0:0(0) ack 1 win 1 <mss 1460>';
  assert.deepEqual(plane.expect(view, 'out', answer, 'same').counted, ['simultaneous-open']);
  assert.deepEqual(plane.expect(view, 'out', answer, 'same').counted, []);
  plane.expect(view, 'in', answer, 'same');
  assertNoFlow(view);
  assert.equal(plainReason(view), String(REASON.LEGACY_SIMULTANEOUS_OPEN));
});

both(
  'simultaneous open of which one SYN was lost: what has come counts, and both ends agree',
  (f) => {
    const view = elsewhere(f);
    const open = plane.stockHalf();
    plane.expect(view, 'out', 'S 0:0(0) win 1', `S 0:0(0) win 1 <${open}>`);
    // The peer had our SYN before it sent its SYN/ACK, but its own SYN never came.
    const outcome = plane.expect(view, 'in', 'SA 0:0(0) ack 1 win 1 <mss 1460>', 'same');
    assert.deepEqual(outcome.counted, ['peer-plain']);
    assertNoFlow(view);
  },
);

both('a SYN that only claims to cross ours changes nothing: our kernel does not answer it', (f) => {
  const view = elsewhere(f);
  const open = plane.stockHalf();
  plane.expect(view, 'out', 'S 0:0(0) win 1', `S 0:0(0) win 1 <${open}>`);
  const stranger = { ...view, irs: seq(4711) };
  plane.expect(stranger, 'in', `S 0:0(0) win 1 <${PEER_OPEN}>`, 'same');
  plane.expect(view, 'in', `SA 0:0(0) ack 1 win 1 <${PEER_OPEN}>`, 'same');
  assert.ok(plane.boundary.flow(view.tuple));
});

both(
  'what we once failed to open is forgotten when the peer opens it to a listener of ours',
  (f) => {
    const view = elsewhere(f);
    const open = plane.stockHalf();
    plane.expect(view, 'out', 'S 0:0(0) win 1', `S 0:0(0) win 1 <${open}>`);
    const later = { ...view, iss: seq(12345) };
    for (const isKnown of [false, true]) {
      plane.expect(later, 'in', `S 0:0(0) win 1 <${PEER_OPEN}>`, 'same');
      const own = isKnown ? ` <${plane.stockHalf()}>` : '';
      plane.expect(later, 'out', 'SA 0:0(0) ack 1 win 1', `SA 0:0(0) ack 1 win 1${own}`);
      assert.equal(plane.boundary.flow(later.tuple) !== undefined, isKnown);
    }
  },
);
