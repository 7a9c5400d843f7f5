/*
 * TI flows of a VM that is away: mapping and place, one after the other.  The boundary knows only
 * inside addresses; a flow's wire is from an inside address to the peer, and becomes an outside one
 * below it.
 *
 *   kernel  inside:p > peer:22      wire  inside:q > peer:22      network  outside:q > peer:22
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { FLOW_FLAG } from '../../src/boundary/abi.gen.js';
import { family } from '../../src/wire/address.js';
import { encodePacket } from '../../src/wire/packet.js';
import { seqAdd } from '../../src/wire/seq.js';
import { tupleReverse } from '../../src/wire/tuple.js';
import { type Direction, type Family, packetOf, type View } from './data-plane.js';
import {
  AWAY,
  both,
  endsOf,
  frame,
  frameToGateway,
  GATEWAY_MAC,
  GUEST_MAC,
  type GuestFlow,
  guestView,
  HOME,
  HOME_MAC,
  INSIDE,
  icmpError,
  ipPacket,
  type MoveOptions,
  OUTSIDE,
  outside,
  PEER,
  pattern,
  ROUTER,
  TAP,
  Tap,
  TCP,
  withMacs,
} from './tap.js';

const tap = new Tap(AWAY);
after(() => tap.remove());

const movedFlow = (f: Family, o: MoveOptions = {}): GuestFlow => tap.moveFlow(f, o);

const out = (flow: GuestFlow, line: string, expected: string) =>
  tap.line(flow.kernel, 'out', line, expected, flow.there);
const into = (flow: GuestFlow, line: string, expected: string) =>
  tap.line(flow.there, 'in', line, expected, flow.kernel);

both('data of a moved flow, both ways', (f) => {
  const flow = movedFlow(f);
  out(flow, 'PA 1:101(100) ack 1 win 512', 'PA 1001:1101(100) ack 5001 win 512');
  into(flow, 'PA 5001:5201(200) ack 1101 win 512', 'PA 1:201(200) ack 101 win 512');
  const noted = tap.plane.boundary.flow(flow.kernel.tuple);
  assert.deepEqual(
    [noted?.sndUna, noted?.rcvMax],
    [seqAdd(flow.kernel.iss, 101), seqAdd(flow.kernel.irs, 201)],
  );
  assert.deepEqual(noted?.nextHop, HOME_MAC);
});

both('SACK blocks of a moved flow, both ways', (f) => {
  const flow = movedFlow(f);
  out(flow, 'PA 1:501(500) ack 1 win 1', 'PA 1001:1501(500) ack 5001 win 1');
  into(
    flow,
    'PA 5101:5201(100) ack 1001 win 1 <nop,nop,sack 1101:1201 1301:1401>',
    'PA 101:201(100) ack 1 win 1 <nop,nop,sack 101:201 301:401>',
  );
  out(
    flow,
    'A  501:501(0) ack 1 win 1 <nop,nop,sack 101:201>',
    'A  1501:1501(0) ack 5001 win 1 <nop,nop,sack 5101:5201>',
  );
});

both('a moved flow ends', (f) => {
  const flow = movedFlow(f);
  into(flow, 'FA 5001:5001(0) ack 1001 win 1', 'FA 1:1(0) ack 1 win 1');
  out(flow, 'FA 1:1(0) ack 2 win 1', 'FA 1001:1001(0) ack 5002 win 1');
  into(flow, 'A  5002:5002(0) ack 1002 win 1', 'A  2:2(0) ack 2 win 1');
});

both('held: what the guest sends is stolen', (f) => {
  const flow = movedFlow(f);
  tap.plane.boundary.command({ verb: 'hold', kernel: flow.kernel.tuple });
  out(flow, 'PA 1:101(100) ack 1 win 1', 'stolen held');
  into(flow, 'PA 5001:5101(100) ack 1001 win 1', 'PA 1:101(100) ack 1 win 1');
});

both('what may not pass is dropped under the reason of the flow', (f) => {
  const flow = movedFlow(f, { sndBase: 101 });
  out(flow, 'PA 1:101(100) ack 1 win 1', 'drop below-base');
  into(flow, 'A  5001:5001(0) ack 1102 win 1', 'drop above-sent');
  tap.line(outside(flow.kernel), 'in', 'PA 1:101(100) ack 1 win 1', 'drop old-path');
});

both('a bare reset on an unproven wire is quarantined as the guest would see it', (f) => {
  const flow = movedFlow(f, { unproven: true });
  tap.plane.events();
  into(flow, 'R  5001:5001(0) win 0', 'drop rst-quarantine');
  const [event] = tap.plane.events();
  assert.equal(event?.type, 'rst');
  assert.deepEqual(event?.tuple, flow.kernel.tuple);
  assert.deepEqual(event?.packet, encodePacket(packetOf(flow.kernel, 'in', 'R  1:1(0) win 0')));
});

both('the first packet from the new wire proves it', (f) => {
  const flow = movedFlow(f, { unproven: true });
  tap.plane.events();
  into(flow, 'A  5001:5001(0) ack 1001 win 1', 'A  1:1(0) ack 1 win 1');
  assert.deepEqual(
    tap.plane.events().map((e) => [e.type, e.tuple]),
    [['proven', flow.kernel.tuple]],
  );
  assert.equal((tap.plane.boundary.flow(flow.kernel.tuple)?.flags ?? 0) & FLOW_FLAG.UNPROVEN, 0);
});

both('without the gateway’s address a moved flow waits', (f) => {
  const flow = movedFlow(f);
  tap.place = { ...AWAY, gateway4Mac: new Uint8Array(6), gateway6Mac: new Uint8Array(6) };
  tap.line(flow.kernel, 'out', 'PA 1:101(100) ack 1 win 1', 'drop no-next-hop');
  tap.place = AWAY;
  out(flow, 'PA 1:101(100) ack 1 win 1', 'PA 1001:1101(100) ack 5001 win 1');
});

both('a flow that has not been moved yet is held, then translated like all else', (f) => {
  tap.place = HOME;
  const view = tap.openFlow(guestView(f));
  tap.plane.boundary.command({ verb: 'hold', kernel: view.tuple });
  tap.place = AWAY;
  tap.line(view, 'out', 'PA 1:101(100) ack 1 win 1', 'stolen held');
  tap.plane.boundary.command({ verb: 'release', kernel: view.tuple });
  const line = 'PA 1:101(100) ack 1 win 1';
  tap.line(view, 'out', line, line, outside(view));
});

const SYNC = 'ti-sync 0a0b0c0d1a1b1c1d epoch 1 tiack 0 nonce 00000001 mac 0102030405060708';
const CONFIRM = 'ti-confirm epoch 1 mac 000102030405060708090a0b0c0d0e0f';
const TI_RST = 'ti-rst reason 1 epoch 1 mac 0001020304050607';

/** The daemon gets what the peer sent, in the guest's view. */
function handedUp(there: View, line: string): void {
  tap.plane.events();
  tap.line(there, 'in', line, 'drop sync');
  const inside = { ...there, tuple: { ...there.tuple, local: INSIDE[family(there.tuple.local)] } };
  const [event] = tap.plane.events();
  assert.deepEqual([event?.type, event?.ifindex], ['packet', TAP]);
  assert.deepEqual(event?.tuple, inside.tuple);
  assert.deepEqual(event?.packet, encodePacket(packetOf(inside, 'in', line)));
}

both('TI_SYNC, TI_CONFIRM and TI_RST go to the daemon, with inside addresses', (f) => {
  const flow = movedFlow(f);
  for (const there of [flow.there, outside(flow.kernel)]) {
    handedUp(there, `S  0:0(0) win 1 <mss 1460,${SYNC}>`);
  }
  const { initiator, responder } = tap.plane.boundary.flow(flow.kernel.tuple) ?? {};
  const hex = (half = 0): string => half.toString(16).padStart(8, '0');
  const named = SYNC.replace(/[0-9a-f]{16}/, hex(initiator?.tifidHalf) + hex(responder?.tifidHalf));
  handedUp(outside(guestView(f)), `S  0:0(0) win 1 <mss 1460,${named}>`);
  handedUp(flow.there, `A  5001:5001(0) ack 1001 win 1 <nop,${CONFIRM}>`);
  handedUp(flow.there, `R  5001:5001(0) win 0 <${TI_RST}>`);
});

both('a guest that does it itself: synchronizations of its own flows get to it', (f) => {
  const view = guestView(f);
  const there = outside(view);
  for (const line of [
    `S  0:0(0) win 1 <mss 1460,${SYNC}>`,
    `A  1:1(0) ack 1 win 1 <nop,${CONFIRM}>`,
    `R  1:1(0) win 0 <${TI_RST}>`,
  ]) {
    const outcome = tap.line(there, 'in', line, line, view);
    assert.ok(outcome.counted.includes('end-to-end'));
  }
});

both('a wire that is being synchronized: all that comes is for the daemon', (f) => {
  tap.place = HOME;
  const kernel = tap.openFlow(guestView(f));
  tap.place = AWAY;
  const tuple = { ...kernel.tuple, localPort: kernel.tuple.localPort + 20000 };
  tap.plane.boundary.setWire(tuple, { kernel: kernel.tuple, state: 'syncing' });
  const there = outside({ ...kernel, tuple });
  handedUp(there, 'SA 0:0(0) ack 1 win 1 <mss 1460>');
  handedUp(there, 'R  0:0(0) win 0');
  tap.plane.boundary.deleteWire(tuple);
});

both('a connection that a peer opens to the outside address', (f) => {
  const view = guestView(f);
  const there = outside(view);
  const syn = `S 0:0(0) win 1 <mss 1460,ti-open 1a1b1c1d key 1011121314151617>`;
  tap.line(there, 'in', syn, syn, view);
  const open = tap.plane.stockHalf();
  tap.line(view, 'out', 'SA 0:0(0) ack 1 win 1', `SA 0:0(0) ack 1 win 1 <${open}>`, there);
  assert.ok(tap.plane.boundary.flow(view.tuple));
});

both('a fragment of a moved flow is dropped', (f) => {
  const flow = movedFlow(f);
  const whole = encodePacket(packetOf(flow.kernel, 'out', 'PA 1:101(100) ack 1 win 1'));
  const first = f === 4 ? whole : withFragmentHeader(whole);
  if (f === 4) first[6] = 0x20;
  tap.drops('out', frame('out', first), 'fragment');
});

function withFragmentHeader(packet: Uint8Array): Uint8Array {
  const header = [TCP, 0, 0, 1, 0, 0, 0, 9];
  const bytes = Uint8Array.of(...packet.slice(0, 40), ...header, ...packet.slice(40));
  bytes[5] = bytes.length - 40;
  bytes[6] = 44;
  return bytes;
}

/** A quoted segment: ports and SEQ as that view has them, and what is behind them. */
function quoted(view: View, d: Direction, sequence: number): Uint8Array {
  const t = d === 'out' ? view.tuple : tupleReverse(view.tuple);
  const bytes = new Uint8Array(20);
  const tcp = new DataView(bytes.buffer);
  bytes.set(pattern(12), 8);
  tcp.setUint16(0, t.localPort);
  tcp.setUint16(2, t.remotePort);
  tcp.setUint32(4, seqAdd(d === 'out' ? view.iss : view.irs, sequence));
  return ipPacket({ source: t.local, destination: t.remote }, TCP, bytes);
}

both('an error about a moved flow: mapping and place, outside and in the quote', (f) => {
  const flow = movedFlow(f);
  const arrives = icmpError(endsOf('in', OUTSIDE[f], ROUTER[f]), quoted(flow.there, 'out', 1001));
  const expected = icmpError(endsOf('in', INSIDE[f], ROUTER[f]), quoted(flow.kernel, 'out', 1));
  const outcome = tap.passes('in', frame('in', arrives), frame('in', expected));
  assert.ok(outcome.counted.includes('icmp-translated'));
});

both('an error of the guest about what came by a moved flow', (f) => {
  const flow = movedFlow(f);
  const sent = icmpError(endsOf('out', INSIDE[f], PEER[f]), quoted(flow.kernel, 'in', 1));
  const expected = icmpError(endsOf('out', OUTSIDE[f], PEER[f]), quoted(flow.there, 'in', 5001));
  const outcome = tap.passes('out', frame('out', sent), frameToGateway(expected));
  assert.ok(outcome.counted.includes('icmp-translated'));
});

both('an error about the path that a moved flow has left', (f) => {
  const flow = movedFlow(f);
  const about = quoted(outside(flow.kernel), 'out', 1);
  const error = icmpError(endsOf('in', OUTSIDE[f], ROUTER[f]), about);
  tap.drops('in', frame('in', error), 'old-path');
});

both('an error about a flow that began here changes its addresses only', (f) => {
  const view = guestView(f);
  tap.openFlow(view, outside(view));
  const make = (v: View) => icmpError(endsOf('in', v.tuple.local, ROUTER[f]), quoted(v, 'out', 1));
  tap.passes('in', frame('in', make(outside(view))), frame('in', make(view)));
});

/** The peer has moved; the VM is at home. */
both('at home: a flow whose peer has moved', (f) => {
  const flow = movedFlow(f);
  tap.place = HOME;
  const there = { ...flow.there, tuple: { ...flow.there.tuple, local: INSIDE[f] } };
  tap.line(flow.kernel, 'out', 'A  1:1(0) ack 1 win 1', 'A  1001:1001(0) ack 5001 win 1', there);
  tap.line(there, 'in', 'A  5001:5001(0) ack 1001 win 1', 'A  1:1(0) ack 1 win 1', flow.kernel);
  const error = (v: View, n: number) =>
    icmpError(endsOf('in', INSIDE[f], ROUTER[f]), quoted(v, 'out', n));
  tap.passes('in', frame('in', error(there, 1001)), frame('in', error(flow.kernel, 1)));
  tap.place = AWAY;
});

both('at home: the next hop is another than where the guest sends', (f) => {
  const flow = movedFlow(f, { redirect: 1 });
  const line = (v: View, text: string) => frame('out', encodePacket(packetOf(v, 'out', text)));
  const there = { ...flow.there, tuple: { ...flow.there.tuple, local: INSIDE[f] } };
  const sent = line(flow.kernel, 'A  1:1(0) ack 1 win 1');
  const expected = line(there, 'A  1001:1001(0) ack 5001 win 1');
  tap.place = { ...HOME, gateway4Mac: GATEWAY_MAC[4], gateway6Mac: GATEWAY_MAC[6] };
  tap.passes('out', sent, withMacs(expected, GATEWAY_MAC[f]));
  // Not known: as the guest chose.
  tap.place = HOME;
  tap.passes('out', sent, expected);
  tap.place = AWAY;
});

/** A connection without TI_OPEN; noted as legacy when its SYN/ACK came. */
function legacy(view: View, there = view): void {
  const syn = 'S 0:0(0) win 1';
  tap.line(view, 'out', syn, `${syn} <${tap.plane.stockHalf()}>`, there);
  tap.line(there, 'in', 'SA 0:0(0) ack 1 win 1', 'SA 0:0(0) ack 1 win 1', view);
  assert.ok(since(view) !== undefined);
}

const since = (view: View): bigint | undefined =>
  tap.plane.boundary.plain().find(([t]) => t.localPort === view.tuple.localPort)?.[1].since;

both('a legacy connection of before the move stays behind: the daemon tells the guest', (f) => {
  tap.place = HOME;
  const old = guestView(f);
  legacy(old);
  tap.place = { ...AWAY, since: (since(old) ?? 0n) + 1n };
  const line = 'PA 1:101(100) ack 1 win 1';
  tap.plane.events();
  tap.line(old, 'out', line, 'drop stranded');
  const [event] = tap.plane.events();
  assert.deepEqual([event?.type, event?.tuple], ['stranded', old.tuple]);
  assert.deepEqual(event?.packet, encodePacket(packetOf(old, 'out', line)));
  // One of since then is as good as any, and so is one of which nothing is known.
  const recent = guestView(f);
  tap.place = { ...AWAY, since: 1n };
  legacy(recent, outside(recent));
  tap.line(recent, 'out', line, line, outside(recent));
  const unknown = guestView(f);
  tap.line(unknown, 'out', line, line, outside(unknown));
  // The tuple of an old one can be used again.
  tap.place = { ...AWAY, since: (since(old) ?? 0n) + 1n };
  const again = 'S 9:9(0) win 1';
  tap.line(old, 'out', again, `${again} <${tap.plane.stockHalf()}>`, outside(old));
  tap.place = AWAY;
});

both('home again: connections that began away have stayed there', (f) => {
  tap.place = AWAY;
  const view = guestView(f);
  legacy(view, outside(view));
  tap.place = { ...HOME, since: (since(view) ?? 0n) + 1n };
  tap.line(view, 'out', 'PA 1:101(100) ack 1 win 1', 'drop stranded');
  tap.place = HOME;
  const line = 'PA 1:101(100) ack 1 win 1';
  tap.line(view, 'out', line, line);
  tap.place = AWAY;
});

both('two VMs with the same tuple are two connections', (f) => {
  const flow = movedFlow(f);
  const other = { ...flow.kernel, tuple: { ...flow.kernel.tuple, tap: TAP + 1 } };
  assert.equal(tap.plane.boundary.flow(other.tuple), undefined);
  assert.equal(tap.plane.boundary.command({ verb: 'hold', kernel: other.tuple }).result, 'no-flow');
  out(flow, 'A  1:1(0) ack 1 win 1', 'A  1001:1001(0) ack 5001 win 1');
});

test('a frame to many keeps its hardware address', () => {
  const flow = movedFlow(4);
  const group = Uint8Array.of(1, 0, 0x5e, 0, 0, 1);
  const line = (v: View, text: string) => encodePacket(packetOf(v, 'out', text));
  const sent = withMacs(frame('out', line(flow.kernel, 'A  1:1(0) ack 1 win 1')), group);
  const expected = frame('out', line(flow.there, 'A  1001:1001(0) ack 5001 win 1'));
  tap.passes('out', sent, withMacs(expected, group, GUEST_MAC));
});
