/*
 * The ugly half: headers that lie, fragments, padding, options that are broken, full or not
 * ours, and packets for the synchronization agent.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { FLOW_FLAG, LIMIT } from '../../src/boundary/abi.gen.js';
import { encodePacket } from '../../src/wire/packet.js';
import { seq, seqAdd } from '../../src/wire/seq.js';
import {
  assertChecksums,
  DataPlane,
  type Direction,
  ETHER_HEADER,
  FAMILIES,
  type Family,
  frameOf,
  freshTuple,
  type MovedFlow,
  movedTuple,
  moveFlow,
  openFlow,
  PEER_OPEN,
  packetOf,
  type View,
} from './data-plane.js';

const plane = new DataPlane();
after(() => plane.remove());

function both(name: string, run: (f: Family) => void): void {
  for (const f of FAMILIES) test(`${name} (IPv${f})`, () => run(f));
}

const freshView = (f: Family): View => ({ tuple: freshTuple(f), iss: seq(1), irs: seq(1) });
const tcpAt = (f: Family): number => (f === 4 ? 20 : 40);

/** A line's packet with some bytes of the IP packet replaced: offsets from the TCP header. */
function broken(view: View, d: Direction, line: string, bytes: Record<number, number>): Uint8Array {
  const packet = encodePacket(packetOf(view, d, line));
  const at = view.tuple.local.includes(':') ? 40 : 20;
  for (const [offset, value] of Object.entries(bytes)) packet[at + Number(offset)] = value;
  return frameOf(packet);
}

function assertSame(d: Direction, frame: Uint8Array): void {
  const outcome = plane.run(d, frame);
  assert.equal(outcome.verdict, 'pass', String(outcome.counted));
  assert.deepEqual(outcome.frame, frame);
}

function assertDropped(d: Direction, frame: Uint8Array, reason: string): void {
  const outcome = plane.run(d, frame);
  assert.equal(outcome.verdict, 'drop');
  assert.deepEqual(outcome.counted, [reason]);
}

/** A data offset below 5 or behind the end: no TCP that anyone could read. */
for (const [what, doff] of [
  ['0', 0x00],
  ['4', 0x40],
  ['15 of 24 bytes', 0xf0],
] as const) {
  both(`data offset ${what}`, (f) => {
    const flow = moveFlow(plane, f);
    assertSame('out', broken(flow.kernel, 'out', 'A  1:1(0) ack 1 win 1', { 12: doff }));
    assertSame('in', broken(flow.wire, 'in', 'A  1:1(0) ack 1 win 1', { 12: doff }));
    assertSame('out', broken(freshView(f), 'out', 'S  0:0(0) win 1 <mss 1>', { 12: doff }));
  });
}

/** Options of a SYN that do not parse: kind and length bytes behind the fixed 20. */
const MALFORMED: [string, Record<number, number>][] = [
  ['length 0', { 20: 2, 21: 0 }],
  ['length 1', { 20: 2, 21: 1 }],
  ['length behind the header', { 20: 2, 21: 9 }],
  ['length 255', { 20: 99, 21: 255 }],
  [
    'kind in the last byte without a length',
    { 20: 1, 21: 1, 22: 1, 23: 99, 24: 1, 25: 1, 26: 1, 27: 8 },
  ],
  ['ours with length 0', { 20: 253, 21: 0 }],
];
for (const [what, bytes] of MALFORMED) {
  both(`options with ${what}: a SYN stays plain`, (f) => {
    const frame = broken(freshView(f), 'out', 'S  0:0(0) win 1 <mss 1460,nop,nop,sackOK>', bytes);
    const outcome = plane.run('out', frame);
    assert.equal(outcome.verdict, 'pass');
    assert.deepEqual(outcome.frame, frame);
    assert.deepEqual(outcome.counted, ['malformed']);
  });
  both(`options with ${what}: a moved flow's packet is dropped`, (f) => {
    const flow = moveFlow(plane, f);
    const line = 'A  1:1(0) ack 1 win 1 <mss 1460,nop,nop,sackOK>';
    assertDropped('out', broken(flow.kernel, 'out', line, bytes), 'malformed');
    const arriving = 'A  5001:5001(0) ack 1001 win 1 <mss 1460,nop,nop,sackOK>';
    assertDropped('in', broken(flow.wire, 'in', arriving, bytes), 'malformed');
  });
}

both('malformed options of an unmoved flow are its kernel’s business', (f) => {
  const view = openFlow(plane, f);
  const line = 'A  1:1(0) ack 1 win 1 <mss 1460>';
  assertSame('out', broken(view, 'out', line, { 21: 0 }));
  assertSame('in', broken(view, 'in', line, { 21: 0 }));
});

both('40 full bytes of options are translated', (f) => {
  const flow = moveFlow(plane, f);
  const full = `kind-99 ${'ab'.repeat(28)},sack`;
  flow.in('PA 5001:5101(100) ack 1001 win 1', 'PA 1:101(100) ack 1 win 1');
  flow.out(
    `A  1:1(0) ack 1 win 1 <${full} 51:101>`,
    `A  1001:1001(0) ack 5001 win 1 <${full} 5051:5101>`,
  );
});

both('an end-of-list hides what is behind it', (f) => {
  const flow = moveFlow(plane, f);
  const line = 'A  1:1(0) ack 1 win 1 <nop,nop,sack 1:1>';
  const frame = broken(flow.kernel, 'out', line, { 20: 0, 23: 0 });
  const outcome = plane.run('out', frame);
  assert.equal(outcome.verdict, 'pass');
  assert.deepEqual(outcome.frame.subarray(-12), frame.subarray(-12));
});

both('lengths of the IP header that lie: not ours', (f) => {
  const flow = moveFlow(plane, f);
  for (const length of [1, 39, 0xffff]) {
    const packet = encodePacket(packetOf(flow.kernel, 'out', 'A  1:1(0) ack 1 win 1'));
    if (f === 6 && length === 39) continue; // 39 bytes of payload are not too few there
    new DataView(packet.buffer).setUint16(f === 4 ? 2 : 4, length);
    assertSame('out', frameOf(packet));
  }
});

test('IPv4 header length below 5 or with options', () => {
  const flow = moveFlow(plane, 4);
  const packet = encodePacket(packetOf(flow.kernel, 'out', 'A  1:1(0) ack 1 win 1'));
  packet[0] = 0x44;
  assertSame('out', frameOf(packet));
  // Router alert in front of the TCP header.
  const plain = encodePacket(packetOf(flow.kernel, 'out', 'A  1:1(0) ack 1 win 1'));
  const routed = Uint8Array.of(...plain.subarray(0, 20), 0x94, 4, 0, 0, ...plain.subarray(20));
  routed[0] = 0x46;
  routed[3] = routed.length;
  // The header checksum is still right: the option adds 0x9404, length 4, IHL 1.
  new DataView(routed.buffer).setUint16(10, headerChecksum(routed.subarray(0, 24)));
  const outcome = plane.run('out', frameOf(routed));
  assert.equal(outcome.verdict, 'pass');
  const ip = outcome.frame.subarray(ETHER_HEADER);
  assertChecksums(ip, { source: flow.wire.tuple.local, destination: flow.wire.tuple.remote });
  assert.deepEqual(ip.subarray(20, 24), Uint8Array.of(0x94, 4, 0, 0));
});

function headerChecksum(header: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < header.length; at += 2) {
    if (at !== 10) sum += ((header[at] ?? 0) << 8) | (header[at + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

test('an IPv6 packet with extension headers is translated behind them', () => {
  const flow = moveFlow(plane, 6);
  const plain = encodePacket(packetOf(flow.kernel, 'out', 'A  1:1(0) ack 1 win 1'));
  const extension = Uint8Array.of(6, 0, 1, 4, 0, 0, 0, 0); // destination options: padding
  const packet = Uint8Array.of(...plain.subarray(0, 40), ...extension, ...plain.subarray(40));
  packet[6] = 60;
  packet[5] = packet.length - 40;
  const { verdict, frame } = plane.run('out', frameOf(packet));
  assert.equal(verdict, 'pass');
  const expected = encodePacket(packetOf(flow.wire, 'out', 'A  1001:1001(0) ack 5001 win 1'));
  assert.deepEqual(frame.subarray(ETHER_HEADER + 48), expected.subarray(40));
});

test('four extension headers are read, with a fifth the packet is not ours', () => {
  const flow = moveFlow(plane, 6);
  const plain = encodePacket(packetOf(flow.kernel, 'out', 'A  1:1(0) ack 1 win 1'));
  const withExtensions = (count: number): Uint8Array => {
    const [next, last] = [
      [60, 0, 1, 4, 0, 0, 0, 0],
      [6, 0, 1, 4, 0, 0, 0, 0],
    ];
    const headers = Array.from({ length: count }, (_, i) => (i === count - 1 ? last : next));
    const packet = Uint8Array.of(
      ...plain.subarray(0, 40),
      ...headers.flat(),
      ...plain.subarray(40),
    );
    packet[6] = 60;
    packet[5] = packet.length - 40;
    return frameOf(packet);
  };
  const { verdict, frame } = plane.run('out', withExtensions(4));
  assert.equal(verdict, 'pass');
  assert.notDeepEqual(frame, withExtensions(4));
  assertSame('out', withExtensions(5));
});

test('an IPv6 packet with an IPv4-mapped address is none of the IPv4 connection', () => {
  const flow = moveFlow(plane, 4);
  const four = encodePacket(packetOf(flow.kernel, 'out', 'A  1:1(0) ack 1 win 1'));
  const packet = new Uint8Array(60);
  packet.set([0x60, 0, 0, 0, 0, 20, 6, 64]);
  packet.set([0xff, 0xff, ...four.subarray(12, 16)], 18);
  packet.set([0xff, 0xff, ...four.subarray(16, 20)], 34);
  packet.set(four.subarray(20), 40);
  assertSame('out', frameOf(packet));
});

/** The first fragment of a TCP packet. */
function fragment(view: View, d: Direction, f: Family, later: boolean): Uint8Array {
  const plain = encodePacket(packetOf(view, d, 'PA 1:101(100) ack 1 win 1'));
  if (f === 4) {
    new DataView(plain.buffer).setUint16(6, later ? 10 : 0x2000);
    return frameOf(plain);
  }
  const header = Uint8Array.of(6, 0, 0, later ? 80 : 1, 0, 0, 0, 9);
  const packet = Uint8Array.of(...plain.subarray(0, 40), ...header, ...plain.subarray(40));
  packet[6] = 44;
  packet[5] = packet.length - 40;
  return frameOf(packet);
}

both('fragments: of a moved flow dropped, else not touched', (f) => {
  const flow = moveFlow(plane, f);
  assertDropped('out', fragment(flow.kernel, 'out', f, false), 'fragment');
  assertDropped('in', fragment(flow.wire, 'in', f, false), 'fragment');
  assertSame('in', fragment(flow.wire, 'in', f, true));
  assertSame('in', fragment(freshView(f), 'in', f, false));
});

test('a frame that is padded to 60 bytes', () => {
  const flow = moveFlow(plane, 4);
  const arriving = encodePacket(packetOf(flow.wire, 'in', 'A  5001:5001(0) ack 1001 win 1'));
  const outcome = plane.run('in', frameOf(arriving, 60));
  assert.equal(outcome.verdict, 'pass');
  const expected = encodePacket(packetOf(flow.kernel, 'in', 'A  1:1(0) ack 1 win 1'));
  assert.deepEqual(outcome.frame, frameOf(expected, 60));
});

test('a padded SYN gains TI_OPEN where its options end, not behind the padding', () => {
  const open = plane.stockHalf();
  const view = freshView(4);
  const syn = encodePacket(packetOf(view, 'out', 'S  0:0(0) win 1'));
  const outcome = plane.run('out', frameOf(syn, 60));
  assert.equal(outcome.verdict, 'pass');
  const expected = encodePacket(packetOf(view, 'out', `S  0:0(0) win 1 <${open}>`));
  assert.deepEqual(outcome.frame.subarray(0, ETHER_HEADER + expected.length), frameOf(expected));
});

const SYNC = 'ti-sync 0a0b0c0d1a1b1c1d epoch 1 tiack 0 nonce 00000001 mac 0102030405060708';
const CONFIRM = 'ti-confirm epoch 1 mac 000102030405060708090a0b0c0d0e0f';
const TI_RST = 'ti-rst reason 1 epoch 1 mac 0001020304050607';

/** The packet goes to the daemon, whole, and no further. */
function assertHandedUp(view: View, line: string): void {
  plane.events();
  const sent = packetOf(view, 'in', line);
  plane.expectPacket('in', sent, 'drop sync', view);
  const [event] = plane.events().filter((e) => e.type === 'packet');
  assert.ok(event, 'an event');
  assert.deepEqual(event.tuple, view.tuple);
  const bytes = encodePacket(sent);
  assert.deepEqual(event.packet, bytes.subarray(0, LIMIT.PACKET_MAX));
}

both('TI_SYNC, TI_CONFIRM and TI_RST go to the daemon, whatever the tuple', (f) => {
  assertHandedUp(freshView(f), `S  0:0(0) win 1 <mss 1460,${SYNC}>`);
  assertHandedUp(freshView(f), `A  1:1(0) ack 1 win 1 <nop,${CONFIRM}>`);
  assertHandedUp(freshView(f), `R  1:1(0) win 0 <${TI_RST}>`);
  const flow = moveFlow(plane, f);
  assertHandedUp(flow.wire, `A  5001:5001(0) ack 1001 win 1 <nop,${CONFIRM}>`);
  assertHandedUp(flow.wire, `R  5001:5001(0) win 0 <${TI_RST}>`);
  const unmoved = openFlow(plane, f);
  assertHandedUp(unmoved, `R  1:1(0) win 0 <${TI_RST}>`);
});

both('a wire that is being synchronized: all that comes is for the daemon', (f) => {
  const kernel = openFlow(plane, f);
  const wire = { ...kernel, tuple: movedTuple(kernel.tuple, f) };
  plane.boundary.setWire(wire.tuple, { kernel: kernel.tuple, state: 'syncing' });
  assertHandedUp(wire, 'SA 0:0(0) ack 1 win 1 <mss 1460>');
  assertHandedUp(wire, 'R  0:0(0) win 0');
  assertHandedUp(wire, 'PA 1:301(300) ack 1 win 1');
});

both(
  'a wire that is claimed: what follows the SYN/ACK is dropped, CONFIRM is for the daemon',
  (f) => {
    const kernel = openFlow(plane, f);
    const wire = { ...kernel, tuple: movedTuple(kernel.tuple, f) };
    const ack = seqAdd(wire.iss, 1);
    plane.boundary.setWire(wire.tuple, { kernel: kernel.tuple, state: 'pending', ack });
    plane.expect(wire, 'in', 'PA 1:101(100) ack 1 win 1', 'drop pending');
    plane.expect(wire, 'in', 'A  1:1(0) ack 1 win 1', 'drop pending');
    // Whoever else talks on it is not to know.
    plane.expect(wire, 'in', 'PA 1:101(100) ack 2 win 1', 'same');
    plane.expect(wire, 'in', 'R  1:1(0) win 0', 'same');
    plane.expect(wire, 'in', 'S  0:0(0) win 1 <mss 1460>', 'same');
    plane.expect(wire, 'out', 'PA 1:101(100) ack 2 win 1', 'same');
    plane.expect(wire, 'out', 'SA 0:0(0) ack 1 win 1 <mss 1460>', 'same');
    assertHandedUp(wire, `A  1:1(0) ack 1 win 1 <nop,${CONFIRM}>`);
    // The old wire goes on meanwhile.
    plane.expect(kernel, 'in', 'PA 1:101(100) ack 1 win 1', 'same');
    plane.boundary.deleteWire(wire.tuple);
    plane.expect(wire, 'in', 'PA 1:101(100) ack 1 win 1', 'same');
  },
);

/** Ours by kind and ExID only: version, subtype or length is another. */
const NEAR_MISSES = [
  'kind-253 5449200000000a0b0c0d0001020304050607',
  'kind-253 5449140000000a0b0c0d0001020304050607',
  'kind-253 5449100000000a0b0c0d00010203040506',
  'kind-253 544910',
];
for (const option of NEAR_MISSES) {
  both(`an option that is nearly ours is ignored: ${option}`, (f) => {
    const outcome = plane.expect(freshView(f), 'in', `S  0:0(0) win 1 <${option}>`, 'same');
    assert.deepEqual(outcome.counted.sort(), ['option-ignored', 'peer-plain']);
  });
}

both('TI_CONFIRM and TI_RST of another length or on another packet are nothing', (f) => {
  const view = freshView(f);
  const shorter = `kind-253 544913010001${'00'.repeat(7)}`;
  plane.expect(view, 'in', `R  1:1(0) win 0 <${shorter}>`, 'same');
  plane.expect(
    view,
    'in',
    `A  1:1(0) ack 1 win 1 <kind-253 544913010001${'00'.repeat(8)}>`,
    'same',
  );
  plane.expect(view, 'in', `R  1:1(0) win 0 <kind-253 5449120001${'00'.repeat(16)}>`, 'same');
  plane.expect(view, 'in', `A  1:1(0) ack 1 win 1 <kind-253 5449120001${'00'.repeat(15)}>`, 'same');
});

both('TI_OPEN on anything but a SYN is nothing', (f) => {
  const open = PEER_OPEN.replace(/ key.*/, '');
  const packet = encodePacket(packetOf(freshView(f), 'in', `S  0:0(0) win 1 <${open}>`));
  packet[tcpAt(f) + 13] = 0x10;
  assertSame('in', frameOf(packet));
});

/** RFC 5961 for everyone, quarantine where the path is in doubt. */
both('a bare reset ends a flow whose path is not in doubt', (f) => {
  const view = openFlow(plane, f);
  plane.expect(view, 'in', 'R  5:5(0) win 0', 'same');
  assert.equal((plane.boundary.flow(view.tuple)?.flags ?? 0) & FLOW_FLAG.RESET, 0);
  const outcome = plane.expect(view, 'in', 'R  1:1(0) win 0', 'same');
  assert.ok(outcome.counted.includes('flow-ended'));
});

function assertQuarantined(
  flow: MovedFlow | View,
  wire: View,
  line: string,
  delivered: string,
): void {
  const kernel = 'kernel' in flow ? flow.kernel : flow;
  plane.events();
  plane.expect(wire, 'in', line, 'drop rst-quarantine');
  const [event] = plane.events().filter((e) => e.type === 'rst');
  assert.ok(event, 'an event');
  assert.deepEqual(event.tuple, kernel.tuple);
  assert.deepEqual(event.packet, encodePacket(packetOf(kernel, 'in', delivered)));
  assert.equal((plane.boundary.flow(kernel.tuple)?.flags ?? 0) & FLOW_FLAG.RESET, 0);
}

both('a bare reset on a held flow is quarantined', (f) => {
  const view = openFlow(plane, f);
  plane.boundary.command({ verb: 'hold', kernel: view.tuple });
  assertQuarantined(view, view, 'R  1:1(0) win 0', 'R  1:1(0) win 0');
});

both('a bare reset on an unproven wire is quarantined, as our kernel would see it', (f) => {
  const flow = moveFlow(plane, f, { unproven: true });
  assertQuarantined(flow, flow.wire, 'R  5001:5001(0) win 0', 'R  1:1(0) win 0');
});

test('as many flows as there is room for, then legacy', () => {
  const small = new DataPlane({ flows: 2 });
  try {
    for (const f of FAMILIES) openFlow(small, f);
    const view = freshView(4);
    const open = small.stockHalf();
    small.expect(view, 'out', 'S  0:0(0) win 1', `S  0:0(0) win 1 <${open}>`);
    const outcome = small.expect(view, 'in', `SA 0:0(0) ack 1 win 1 <${PEER_OPEN}>`, 'same');
    assert.deepEqual(outcome.counted, ['table-full']);
    assert.ok(small.boundary.flow(view.tuple) === undefined);
    assert.equal(small.boundary.flows().length, 2);
  } finally {
    small.remove();
  }
});

both('a frame for another host, flooded by a switch, is not ours', (f) => {
  const flow = moveFlow(plane, f);
  const packet = packetOf(flow.wire, 'in', 'PA 5001:5101(100) ack 1001 win 1');
  const frame = frameOf(encodePacket(packet));
  frame.set([2, 0, 0, 0, 0, 0x99]);
  const outcome = plane.run('in', frame);
  assert.deepEqual(outcome.frame, frame);
  assert.deepEqual([outcome.verdict, outcome.counted], ['pass', []]);
});
