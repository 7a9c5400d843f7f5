/*
 * ICMP errors about a moved flow: they name the wire, our kernel knows only its own tuple.
 * Without the translation, path MTU discovery would break (RFC 1191, RFC 8201).
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type Address, address } from '../../src/wire/address.js';
import { hostUnreachable, packetTooBig } from '../../src/wire/icmp.js';
import { encodePacket } from '../../src/wire/packet.js';
import {
  DataPlane,
  type Direction,
  FAMILIES,
  type Family,
  frameOf,
  type MovedFlow,
  moveFlow,
  openFlow,
  packetOf,
  type View,
} from './data-plane.js';
import { naiveSum, naiveTransportSum } from './model.js';

const plane = new DataPlane();
after(() => plane.remove());

const ROUTER: Record<Family, Address> = { 4: address('192.88.99.1'), 6: address('2001:db8:9::1') };
const QUOTE_UNCHANGED_FROM = 8; // ports and SEQ are translated, what is behind them is not

function both(name: string, run: (f: Family) => void): void {
  for (const f of FAMILIES) test(`${name} (IPv${f})`, () => run(f));
}

type MakeError = (quoted: Uint8Array, from: Address) => Uint8Array;

/** The error about a line as `view` sees it, its quote behind SEQ taken from `tail`. */
function errorAbout(view: View, line: string, make: MakeError, from: Address, tail?: Uint8Array) {
  const quoted = encodePacket(packetOf(view, 'out', line));
  const tcp = (quoted[0] ?? 0) >> 4 === 4 ? 20 : 40;
  if (tail !== undefined) {
    const start = tcp + QUOTE_UNCHANGED_FROM;
    quoted.set(tail.subarray(start), start);
  }
  return make(quoted, from);
}

function assertTranslated(flow: MovedFlow, f: Family, make: MakeError): void {
  const wireLine = 'PA 1001:1101(100) ack 5001 win 512';
  const wireQuote = encodePacket(packetOf(flow.wire, 'out', wireLine));
  const error = frameOf(errorAbout(flow.wire, wireLine, make, ROUTER[f]));
  const line = 'PA 1:101(100) ack 1 win 512';
  const expected = errorAbout(flow.kernel, line, make, ROUTER[f], wireQuote);
  const outcome = plane.run('in', error);
  assert.equal(outcome.verdict, 'pass');
  assert.ok(outcome.counted.includes('icmp-translated'));
  assertIcmpChecksums(outcome.frame.subarray(14), f, ROUTER[f], flow.kernel.tuple.local);
  assert.deepEqual(outcome.frame, frameOf(expected));
  assert.equal(outcome.mark, 0);
}

function assertIcmpChecksums(ip: Uint8Array, f: Family, source: Address, destination: Address) {
  if (f === 4) {
    assert.equal(naiveSum([ip.subarray(0, 20)]), 0xffff, 'IPv4 header');
    assert.equal(naiveSum([ip.subarray(20)]), 0xffff, 'ICMP');
    return;
  }
  assert.equal(naiveTransportSum({ source, destination }, 58, ip.subarray(40)), 0xffff, 'ICMPv6');
}

both('packet too big', (f) => {
  assertTranslated(moveFlow(plane, f), f, (quoted, from) => packetTooBig(quoted, from, 1400));
});

both('host unreachable', (f) => assertTranslated(moveFlow(plane, f), f, hostUnreachable));

both('numbers that wrap', (f) => {
  const flow = moveFlow(plane, f, { iss: 0xffffffff, irs: 0xfffffffe });
  assertTranslated(flow, f, hostUnreachable);
});

both('our own error about what arrived leaves as the wire knows it', (f) => {
  const flow = moveFlow(plane, f);
  const quotes = (view: View, line: string): Uint8Array => encodePacket(packetOf(view, 'in', line));
  const arrived = quotes(flow.kernel, 'PA 1:101(100) ack 1 win 512');
  const onWire = quotes(flow.wire, 'PA 5001:5101(100) ack 1001 win 512');
  const start = (f === 4 ? 20 : 40) + QUOTE_UNCHANGED_FROM;
  onWire.set(arrived.subarray(start), start);
  const sent = frameOf(hostUnreachable(arrived, flow.kernel.tuple.local));
  const outcome = plane.run('out', sent);
  assert.equal(outcome.verdict, 'pass');
  assert.deepEqual(outcome.frame, frameOf(hostUnreachable(onWire, flow.wire.tuple.local)));
});

both('about a flow that has not moved: not touched', (f) => {
  const view = openFlow(plane, f);
  const frame = frameOf(errorAbout(view, 'A  1:1(0) ack 1 win 1', hostUnreachable, ROUTER[f]));
  assertSame('in', frame);
  assertSame('out', frame);
});

both('about the old path of a moved flow: dropped', (f) => {
  const flow = moveFlow(plane, f);
  const error = errorAbout(flow.kernel, 'A  1:1(0) ack 1 win 1', hostUnreachable, ROUTER[f]);
  const outcome = plane.run('in', frameOf(error));
  assert.equal(outcome.verdict, 'drop');
  assert.deepEqual(outcome.counted, ['old-path']);
});

both('about a wire that is only being set up: not touched', (f) => {
  const view = openFlow(plane, f);
  const tuple = { ...view.tuple, localPort: view.tuple.localPort + 20000 };
  plane.boundary.setWire(tuple, { kernel: view.tuple, state: 'syncing' });
  const wire = { ...view, tuple };
  const error = errorAbout(wire, 'S  0:0(0) win 1', hostUnreachable, ROUTER[f]);
  assertSame('in', frameOf(error));
});

both('echo, truncated quotes and quotes of other protocols: not touched', (f) => {
  const flow = moveFlow(plane, f);
  const make = (): Uint8Array =>
    errorAbout(flow.wire, 'A  1001:1001(0) ack 5001 win 1', hostUnreachable, ROUTER[f]);
  const [ip, icmp] = f === 4 ? [20, 20] : [40, 40];
  const echo = make();
  echo[icmp] = f === 4 ? 8 : 128;
  assertSame('in', frameOf(echo));
  const udp = make();
  udp[icmp + 8 + (f === 4 ? 9 : 6)] = 17;
  assertSame('in', frameOf(udp));
  const truncated = make().slice(0, ip + 8 + ip + 6);
  new DataView(truncated.buffer).setUint16(f === 4 ? 2 : 4, truncated.length - (f === 4 ? 0 : 40));
  assertSame('in', frameOf(truncated));
});

function assertSame(d: Direction, frame: Uint8Array): void {
  const outcome = plane.run(d, frame);
  assert.equal(outcome.verdict, 'pass', String(outcome.counted));
  assert.deepEqual(outcome.frame, frame);
}
