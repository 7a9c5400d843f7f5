/*
 * A moved flow: addresses, ports, SEQ, ACK and SACK blocks between kernel view and wire view,
 * what may not pass, and what the flow notes.  PROTOCOL.md, section "Data path after a move".
 *
 * Lines of both views are relative to the ISNs of the kernel view, so the deltas show: what
 * leaves as 1:101 arrives as 1001:1101.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { FLOW_FLAG, WIRE_STATE } from '../../src/boundary/abi.gen.js';
import { address } from '../../src/wire/address.js';
import { encodePacket } from '../../src/wire/packet.js';
import { seq, seqAdd } from '../../src/wire/seq.js';
import {
  DataPlane,
  FAMILIES,
  type Family,
  frameOf,
  freshTuple,
  type MovedFlow,
  type MoveOptions,
  moveFlow,
  openFlow,
  packetOf,
  remap,
  type View,
} from './data-plane.js';

const plane = new DataPlane();
after(() => plane.remove());

const move = (f: Family, o: MoveOptions = {}): MovedFlow => moveFlow(plane, f, o);

/** Runs a test for both families. */
function both(name: string, run: (f: Family) => void): void {
  for (const f of FAMILIES) test(`${name} (IPv${f})`, () => run(f));
}

both('data leaves on the new wire', (f) => {
  const flow = move(f);
  flow.out('PA 1:101(100) ack 1 win 512', 'PA 1001:1101(100) ack 5001 win 512');
});

both('data of a flow that the peer opened', (f) => {
  const flow = move(f, { responder: true });
  flow.out('PA 1:101(100) ack 1 win 512', 'PA 1001:1101(100) ack 5001 win 512');
  flow.in('PA 5001:5101(100) ack 1101 win 512', 'PA 1:101(100) ack 101 win 512');
});

both('data arrives from the new wire, with no mark of ours', (f) => {
  const flow = move(f);
  const outcome = flow.in('PA 5001:5101(100) ack 1001 win 7', 'PA 1:101(100) ack 1 win 7');
  assert.equal(outcome.mark, 0);
});

both('an odd number of bytes, and none', (f) => {
  const flow = move(f);
  flow.out('PA 1:102(101) ack 1 win 512', 'PA 1001:1102(101) ack 5001 win 512');
  flow.out('A  102:102(0) ack 1 win 512', 'A  1102:1102(0) ack 5001 win 512');
});

both('timestamps, window and other options stay', (f) => {
  const flow = move(f);
  const options = '<nop,nop,TS val 7 ecr 9>';
  flow.out(`PA 1:11(10) ack 1 win 1 ${options}`, `PA 1001:1011(10) ack 5001 win 1 ${options}`);
  const odd = '<kind-99 0102030405,nop>';
  flow.in(`A  5001:5001(0) ack 1011 win 0 ${odd}`, `A  1:1(0) ack 11 win 0 ${odd}`);
});

both('numbers cross 2^32 in either view', (f) => {
  const flow = move(f, { iss: 0xfffffff0, irs: 0xffffff00, sndDelta: 0x80000000 });
  flow.out('PA 1:101(100) ack 1 win 1', 'PA 2147483649:2147483749(100) ack 5001 win 1');
  flow.in('A  5001:5001(0) ack 2147483749 win 1', 'A  1:1(0) ack 101 win 1');
});

both('negative deltas', (f) => {
  const flow = move(f, { sndDelta: -900000, rcvDelta: -4000000 });
  flow.out(
    'A  1:1(0) ack 1 win 1',
    `A  ${seq(1 - 900000)}:${seq(1 - 900000)}(0) ack ${seq(1 - 4000000)} win 1`,
  );
});

both('a packet without ACK keeps its acknowledgement field', (f) => {
  const flow = move(f);
  flow.out('R  1:1(0) win 0', 'R  1001:1001(0) win 0');
});

both('FIN both ways ends the flow, acknowledged both ways', (f) => {
  const flow = move(f);
  flow.in('A  5001:5001(0) ack 1001 win 1', 'A  1:1(0) ack 1 win 1');
  flow.out('FA 1:1(0) ack 1 win 1', 'FA 1001:1001(0) ack 5001 win 1');
  plane.events();
  const fin = flow.in('FA 5001:5001(0) ack 1002 win 1', 'FA 1:1(0) ack 2 win 1');
  assert.deepEqual(fin.counted, []);
  const outcome = flow.out('A  2:2(0) ack 2 win 1', 'A  1002:1002(0) ack 5002 win 1');
  assert.ok(outcome.counted.includes('flow-ended'));
  assert.ok(plane.events().some((e) => e.type === 'ended'));
  // What is late on its wire is to be translated still: a last FIN, say.
  flow.in('FA 5001:5001(0) ack 1002 win 1', 'FA 1:1(0) ack 2 win 1');
});

both('SACK blocks that we send follow the acknowledgements', (f) => {
  const flow = move(f);
  // The peer's data has come by the new wire: up to 5401 there.
  flow.in('PA 5101:5201(100) ack 1001 win 1', 'PA 101:201(100) ack 1 win 1');
  flow.in('PA 5301:5401(100) ack 1001 win 1', 'PA 301:401(100) ack 1 win 1');
  flow.out(
    'A  1:1(0) ack 1 win 1 <nop,nop,sack 101:201 301:401>',
    'A  1001:1001(0) ack 5001 win 1 <nop,nop,sack 5101:5201 5301:5401>',
  );
});

both('SACK blocks at an odd offset, and four of them', (f) => {
  const flow = move(f);
  flow.in('PA 5001:5901(900) ack 1001 win 1', 'PA 1:901(900) ack 1 win 1');
  flow.out(
    'A  1:1(0) ack 1 win 1 <nop,sack 101:201 301:401 501:601 701:801,nop>',
    'A  1001:1001(0) ack 5001 win 1 <nop,sack 5101:5201 5301:5401 5501:5601 5701:5801,nop>',
  );
  flow.out('PA 1:1001(1000) ack 1 win 1', 'PA 1001:2001(1000) ack 5001 win 1');
  flow.in(
    'A  5001:5001(0) ack 1001 win 1 <sack 1101:1201 1301:1401,nop,nop>',
    'A  1:1(0) ack 1 win 1 <sack 101:201 301:401,nop,nop>',
  );
});

both('SACK across 2^32', (f) => {
  const flow = move(f, { irs: 0xffffff00, rcvDelta: 0x7fffff00 });
  const wire = (n: number): number => seq(n + 0x7fffff00);
  flow.in(`PA ${wire(1)}:${wire(601)}(600) ack 1001 win 1`, 'PA 1:601(600) ack 1 win 1');
  flow.out(
    'A  1:1(0) ack 1 win 1 <nop,nop,sack 201:301>',
    `A  1001:1001(0) ack ${wire(1)} win 1 <nop,nop,sack ${wire(201)}:${wire(301)}>`,
  );
});

both('a SACK block that the new wire has not carried is left out', (f) => {
  const flow = move(f);
  flow.in('PA 5101:5201(100) ack 1001 win 1', 'PA 101:201(100) ack 1 win 1');
  const both = flow.out(
    'A  1:1(0) ack 1 win 1 <nop,nop,sack 301:401 101:201>',
    'A  1001:1001(0) ack 5001 win 1 <nop,nop,sack 5101:5201,nop,nop,nop,nop,nop,nop,nop,nop>',
  );
  assert.ok(both.counted.includes('sack-block-dropped'));
  flow.out(
    'A  1:1(0) ack 1 win 1 <nop,nop,sack 301:401>',
    'A  1001:1001(0) ack 5001 win 1 <nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop>',
  );
});

both('a SACK block of what a former wire has carried comes too late', (f) => {
  const kernel = openFlow(plane, f);
  const packet = 'PA 101:301(200) ack 1 win 1';
  plane.expect(kernel, 'in', packet, packet);
  const flow = remap(plane, kernel, f, {});
  flow.in('PA 5401:5501(100) ack 1001 win 1', 'PA 401:501(100) ack 1 win 1');
  const outcome = flow.out(
    'A  1:1(0) ack 1 win 1 <nop,nop,sack 401:501 101:301>',
    'A  1001:1001(0) ack 5001 win 1 <nop,nop,sack 5401:5501,nop,nop,nop,nop,nop,nop,nop,nop>',
  );
  assert.ok(outcome.counted.includes('sack-block-dropped'));
  // The hole behind it has been filled, so both are one.
  flow.in('PA 5301:5401(100) ack 1001 win 1', 'PA 301:401(100) ack 1 win 1');
  flow.out(
    'A  1:1(0) ack 1 win 1 <nop,nop,sack 101:501>',
    'A  1001:1001(0) ack 5001 win 1 <nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop>',
  );
  // Below the ACK it says what has come twice.
  flow.in('PA 5001:5101(100) ack 1001 win 1', 'PA 1:101(100) ack 1 win 1');
  flow.out(
    'A  1:1(0) ack 501 win 1 <nop,nop,sack 201:301>',
    'A  1001:1001(0) ack 5501 win 1 <nop,nop,sack 5201:5301>',
  );
  const again = remap(plane, kernel, f, { epoch: 2, rcvBase: 501, rcvDelta: 7000 });
  again.in('PA 7601:7701(100) ack 1001 win 1', 'PA 601:701(100) ack 1 win 1');
  again.out(
    'A  1:1(0) ack 501 win 1 <nop,nop,sack 601:701>',
    'A  1001:1001(0) ack 7501 win 1 <nop,nop,sack 7601:7701>',
  );
});

both('what came by former wires counts no more, however much comes after it', (f) => {
  const flow = move(f);
  for (let came = 0; came <= 5 * 2 ** 30; came += 2 ** 22) {
    const at = (offset: number) => (came + offset) % 2 ** 32;
    const data = (from: number, ack: number) =>
      `PA ${at(from)}:${at(from + 100)}(100) ack ${ack} win 1`;
    plane.expect(flow.wire, 'in', data(5201, 1001), data(201, 1), flow.kernel);
    const ack = (from: number, offset: number) =>
      `A  ${from}:${from}(0) ack ${at(offset + 101)} win 65535 <nop,nop,sack ${at(offset + 201)}:${at(offset + 301)}>`;
    plane.expect(flow.kernel, 'out', ack(1, 0), ack(1001, 5000), flow.wire);
  }
});

both('an ACK above what the new wire has carried is lowered', (f) => {
  const flow = move(f);
  const outcome = flow.out('A  1:1(0) ack 501 win 1', 'A  1001:1001(0) ack 5001 win 1');
  assert.ok(outcome.counted.includes('ack-clamped'));
});

both('a segment below the base is dropped, a probe one below it passes', (f) => {
  const flow = move(f, { sndBase: 101 });
  flow.out('PA 1:101(100) ack 1 win 1', 'drop below-base');
  flow.out('A  100:100(0) ack 1 win 1', 'A  1100:1100(0) ack 5001 win 1');
  flow.out('A  100:101(1) ack 1 win 1', 'A  1100:1101(1) ack 5001 win 1');
  flow.out('A  100:102(2) ack 1 win 1', 'drop below-base');
  flow.out('A  99:99(0) ack 1 win 1', 'drop below-base');
  flow.out('PA 101:201(100) ack 1 win 1', 'PA 1101:1201(100) ack 5001 win 1');
});

both('the mover sends no more than the SYN/ACK allows until the peer has been heard', (f) => {
  const flow = move(f, { unproven: true });
  flow.out('PA 65436:65536(100) ack 1 win 1', 'PA 66436:66536(100) ack 5001 win 1');
  flow.out('PA 65437:65537(100) ack 1 win 1', 'stolen above-window');
  flow.in('A  5001:5001(0) ack 1001 win 1', 'A  1:1(0) ack 1 win 1');
  flow.out('PA 65437:65537(100) ack 1 win 1', 'PA 66437:66537(100) ack 5001 win 1');
});

both('an ACK from the wire of what was never sent is dropped', (f) => {
  const flow = move(f);
  flow.out('PA 1:101(100) ack 1 win 1', 'PA 1001:1101(100) ack 5001 win 1');
  flow.in('A  5001:5001(0) ack 1102 win 1', 'drop above-sent');
  flow.in('A  5001:5001(0) ack 1101 win 1', 'A  1:1(0) ack 101 win 1');
});

both('what still comes on the old path is dropped', (f) => {
  const flow = move(f);
  plane.expect(flow.kernel, 'in', 'PA 1:101(100) ack 1 win 1', 'drop old-path');
  plane.expect(flow.kernel, 'in', 'R  1:1(0) win 0', 'drop old-path');
  plane.expect(flow.kernel, 'in', 'S  1:1(0) win 0', 'drop old-path');
});

both('a new connection on the tuple of a wire is dropped', (f) => {
  const flow = move(f);
  plane.expect(flow.wire, 'in', 'S  1:1(0) win 0', 'drop tuple-in-use');
  plane.expect(flow.wire, 'out', 'S  1:1(0) win 0', 'drop tuple-in-use');
});

both('held: egress is stolen, ingress goes on', (f) => {
  const view = openFlow(plane, f);
  plane.boundary.command({ verb: 'hold', kernel: view.tuple });
  plane.expect(view, 'out', 'PA 1:101(100) ack 1 win 1', 'stolen held');
  plane.expect(view, 'in', 'PA 1:101(100) ack 1 win 1', 'same');
  assert.equal(plane.boundary.flow(view.tuple)?.sndNxt, seqAdd(view.iss, 101));
  plane.boundary.command({ verb: 'release', kernel: view.tuple });
  plane.expect(view, 'out', 'PA 1:101(100) ack 1 win 1', 'same');
});

both('mapped while held: held until released, or not, as the command says', (f) => {
  const line = ['PA 1:101(100) ack 1 win 1', 'PA 1001:1101(100) ack 5001 win 1'] as const;
  for (const held of [true, false]) {
    const view = openFlow(plane, f);
    plane.boundary.command({ verb: 'hold', kernel: view.tuple });
    const flow = remap(plane, view, f, { held });
    if (held) {
      flow.out(line[0], 'stolen held');
      plane.boundary.command({ verb: 'release', kernel: view.tuple });
    }
    flow.out(...line);
  }
});

both('the first packet from the new wire proves it and ends the gap', (f) => {
  const flow = move(f, { unproven: true });
  const before = plane.boundary.flow(flow.kernel.tuple);
  assert.ok((before?.flags ?? 0) & FLOW_FLAG.UNPROVEN);
  plane.events();
  flow.in('A  5001:5001(0) ack 1001 win 1', 'A  1:1(0) ack 1 win 1');
  const proven = plane.boundary.flow(flow.kernel.tuple);
  assert.equal((proven?.flags ?? 0) & FLOW_FLAG.UNPROVEN, 0);
  const events = plane.events().filter((e) => e.type === 'proven');
  assert.deepEqual(
    events.map((e) => e.tuple),
    [flow.kernel.tuple],
  );
});

both('a second move: what is late on the former wire is dropped', (f) => {
  const flow = move(f);
  const again = { ...flow.wire.tuple, localPort: flow.wire.tuple.localPort + 1 };
  const mapping = {
    wire: again,
    sndDelta: seq(2000),
    rcvDelta: seq(9000),
    sndBase: seqAdd(flow.kernel.iss, 1),
    rcvBase: seqAdd(flow.kernel.irs, 1),
    redirect: 0,
  };
  const map = {
    verb: 'map',
    kernel: flow.kernel.tuple,
    mapping,
    unproven: false,
    held: false,
  } as const;
  assert.equal(plane.boundary.command({ ...map, epoch: 1 }).result, 'stale-epoch');
  assert.equal(plane.boundary.command({ ...map, epoch: 0x8001 }).result, 'stale-epoch');
  assert.equal(plane.boundary.command({ ...map, epoch: 2 }).result, 'ok');
  assert.equal(plane.boundary.wire(flow.wire.tuple)?.state, WIRE_STATE.ACTIVE);
  assert.equal(plane.boundary.wire(again)?.state, WIRE_STATE.ACTIVE);
  assert.equal(plane.boundary.flow(flow.kernel.tuple)?.moves, 2);
  plane.expect(flow.kernel, 'out', 'A  1:1(0) ack 1 win 1', 'A  2001:2001(0) ack 9001 win 1', {
    ...flow.kernel,
    tuple: again,
  });
  // Our kernel knows no such connection and would answer with a reset.
  plane.expect(flow.wire, 'in', 'A  5001:5001(0) ack 1001 win 1', 'drop old-path');
  plane.boundary.forgetWire(flow.wire.tuple);
  plane.expect(flow.wire, 'in', 'A  5001:5001(0) ack 1001 win 1', 'same');
});

both('a base that SND.UNA has left 2 GiB behind counts no more', (f) => {
  const flow = move(f);
  for (let sent = 0; sent <= 5 * 2 ** 30; sent += 2 ** 29) {
    const at = (offset: number) => (sent + offset) % 2 ** 32;
    const data = (from: number, ack: number) =>
      `PA ${at(from)}:${at(from + 100)}(100) ack ${ack} win 1`;
    plane.expect(flow.kernel, 'out', data(1, 1), data(1001, 5001), flow.wire);
    const ack = (una: number, from: number) => `A  ${from}:${from}(0) ack ${at(una)} win 1`;
    plane.expect(flow.wire, 'in', ack(1101, 5001), ack(101, 1), flow.kernel);
  }
});

both('forgotten: plain TCP, and nothing points to it', (f) => {
  const flow = move(f);
  const half = plane.boundary.flow(flow.kernel.tuple)?.initiator.tifidHalf ?? 0;
  assert.equal(plane.boundary.command({ verb: 'forget', kernel: flow.kernel.tuple }).result, 'ok');
  assert.equal(plane.boundary.flow(flow.kernel.tuple), undefined);
  assert.equal(plane.boundary.wire(flow.wire.tuple), undefined);
  assert.equal(plane.boundary.tupleOfHalf(half), undefined);
  plane.expect(flow.kernel, 'out', 'A  1:1(0) ack 1 win 1', 'same');
  assert.equal(
    plane.boundary.command({ verb: 'hold', kernel: flow.kernel.tuple }).result,
    'no-flow',
  );
});

both('a flow is not mapped to a wire of another family, or of a tap', (f) => {
  const flow = move(f);
  const before = plane.boundary.flow(flow.kernel.tuple);
  assert.ok(before);
  const [mapping] = before.mapping;
  const other = address(f === 4 ? '2001:db8::1' : '192.0.2.1');
  for (const change of [{ local: other, remote: other }, { remote: other }, { tap: 5 }]) {
    const wire = { ...mapping.wire, ...change };
    const { result } = plane.boundary.command({
      ...{ verb: 'map', kernel: flow.kernel.tuple, epoch: 9, unproven: false, held: false },
      mapping: { ...mapping, wire },
    });
    assert.equal(result, 'foreign-wire');
    assert.equal(plane.boundary.wire(wire), undefined);
  }
  const after = plane.boundary.flow(flow.kernel.tuple);
  assert.deepEqual([after?.epoch, after?.active], [before.epoch, before.active]);
  flow.out('A  1:1(0) ack 1 win 1', 'A  1001:1001(0) ack 5001 win 1');
});

both('a mapped wire cannot be set or deleted from outside', (f) => {
  const flow = move(f);
  const state = { kernel: flow.kernel.tuple, state: 'pending', ack: seq(0) } as const;
  assert.throws(() => plane.boundary.setWire(flow.wire.tuple, state), /carries a flow/);
  assert.throws(() => plane.boundary.deleteWire(flow.wire.tuple), /carries a flow/);
});

both('what the daemon sends is taken to its next hop, once, and is nobody else’s', (f) => {
  const MARK_NETWORK = 0x746a;
  const tuple = freshTuple(f);
  plane.boundary.writeSettings({ markNetwork: MARK_NETWORK });
  const view: View = { tuple, iss: seq(0), irs: seq(0) };
  const frame = frameOf(encodePacket(packetOf(view, 'out', 'SA 0:0(0) ack 1 win 1')));
  for (const placement of ['host', 'gateway'] as const) {
    const sent = plane.run('out', frame, { mark: MARK_NETWORK }, placement);
    assert.deepEqual([sent.verdict, sent.counted, sent.mark], ['redirect', [], 0]);
    assert.deepEqual(sent.frame, frame);
    // An operator's mark is not ours, and one that is not set is none.
    assert.equal(plane.run('out', frame, { mark: MARK_NETWORK + 1 }, placement).verdict, 'pass');
  }
  plane.boundary.writeSettings({ markNetwork: 0 });
  assert.equal(plane.run('out', frame).verdict, 'pass');
});
