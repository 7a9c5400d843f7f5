/*
 * The place of a VM against random packets: what the guest sends and receives while away comes out
 * as the model says or is dropped under a counted reason, and never half translated.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { REASON, reasonName } from '../../src/boundary/abi.gen.js';
import { type Address, address, addressBytes, addressFromBytes } from '../../src/wire/address.js';
import { formatPacket } from '../../src/wire/notation.js';
import { encodePacket, type Packet } from '../../src/wire/packet.js';
import { type Seq, seqAdd } from '../../src/wire/seq.js';
import { tupleReverse } from '../../src/wire/tuple.js';
import { runs } from '../whole.js';
import { address4, address6, anyPacket, uint16, uint32 } from '../wire/arbitrary.js';
import { type Direction, ETHER_HEADER, type Family } from './data-plane.js';
import { type Moved, type Translation, toKernel, toWire } from './model.js';
import {
  AWAY,
  assertSameBytes,
  type Ends,
  endsOf,
  etherFrame,
  frame,
  frameToGateway,
  GATEWAY_MAC,
  GUEST_MAC,
  type GuestFlow,
  HOME_MAC,
  ICMP,
  INSIDE,
  icmpError,
  ipMessage,
  ipPacket,
  OUTSIDE,
  Tap,
  TCP,
  UDP,
  udp,
} from './tap.js';
import { changeable, fate, layoutOf, renamed, sums } from './tap-model.js';

const tap = new Tap(AWAY);
after(() => tap.remove());

const direction = fc.constantFrom<Direction>('out', 'in');
const family = fc.constantFrom<Family>(4, 6);
const payload = fc.uint8Array({ maxLength: 120 });

/** A packet whose ends are still open: the same one is made in the guest's view and outside. */
type Make = (ends: Ends) => Uint8Array;

const segment = anyPacket
  .filter((p) => !p.flags.includes('S') && !p.options.some((o) => o.kind.startsWith('ti-')))
  .map((p) => {
    const bytes = encodePacket(p);
    return bytes.slice(p.source.includes(':') ? 40 : 20);
  });

/** Ports that are not DHCP's. */
const port = uint16.filter((n) => ![67, 68, 546, 547].includes(n));

/** Echo, or a type that means nothing: errors and neighbour discovery have rows of their own. */
const icmpType = fc.constantFrom(0, 8, 13, 128, 129, 200);

const anyMake = (f: Family): fc.Arbitrary<Make> =>
  fc.oneof(
    segment.map(
      (tcp): Make =>
        (ends) =>
          ipMessage(ends, TCP, tcp),
    ),
    fc.tuple(payload, port, port).map(
      ([bytes, ...ports]): Make =>
        (ends) =>
          ipMessage(ends, UDP, udp(bytes, ports)),
    ),
    fc.tuple(payload, port, port).map(
      ([bytes, ...ports]): Make =>
        (ends) =>
          ipPacket(ends, UDP, udp(bytes, ports)),
    ),
    fc.tuple(icmpType, payload).map(
      ([type, bytes]): Make =>
        (ends) =>
          ipMessage(ends, ICMP[f], Uint8Array.of(type, 0, 0, 0, ...bytes)),
    ),
    fc.tuple(fc.integer({ min: 70, max: 130 }), payload).map(
      ([protocol, bytes]): Make =>
        (ends) =>
          ipPacket(ends, protocol, bytes),
    ),
    fc.tuple(payload, fc.constantFrom(TCP, UDP, 50)).map(
      ([bytes, protocol]): Make =>
        (ends) => {
          const back = { source: ends.destination, destination: ends.source };
          return icmpError(ends, ipPacket(back, protocol, bytes));
        },
    ),
  );

/** Any address of the guest: with IPv6 its identifier is of no account. */
const guestAddress = (f: Family, names: typeof INSIDE): fc.Arbitrary<Address> =>
  f === 4
    ? fc.constant(names[4])
    : fc.uint8Array({ minLength: 8, maxLength: 8 }).map((identifier) => {
        const bytes = addressBytes(names[6]).slice();
        bytes.set(identifier, 8);
        return addressFromBytes(bytes);
      });

const SPECIAL: Record<Family, string[]> = {
  4: ['0.0.0.0', '255.255.255.255', '224.0.0.1', '198.51.100.11', '192.0.2.11'],
  6: ['::', 'fe80::1', 'ff02::1', '2001:db8:1:1::10', '2001:db8:2:1::10'],
};

const anyAddress = (f: Family): fc.Arbitrary<Address> =>
  fc.oneof(
    { weight: 6, arbitrary: guestAddress(f, INSIDE) },
    { weight: 6, arbitrary: guestAddress(f, OUTSIDE) },
    { weight: 2, arbitrary: f === 4 ? address4 : address6 },
    { weight: 1, arbitrary: fc.constantFrom(...SPECIAL[f].map(address)) },
  );

const peerAddress = (f: Family): fc.Arbitrary<Address> => (f === 4 ? address4 : address6);

interface Sent {
  d: Direction;
  f: Family;
  own: Address;
  peer: Address;
  make: Make;
}

const sent = (own: (f: Family) => fc.Arbitrary<Address>): fc.Arbitrary<Sent> =>
  fc
    .tuple(direction, family)
    .chain(([d, f]) =>
      fc
        .tuple(own(f), peerAddress(f), anyMake(f))
        .map(([own, peer, make]) => ({ d, f, own, peer, make })),
    );

const run = (d: Direction, bytes: Uint8Array) =>
  tap.plane.boundary.testRun(d === 'out' ? 'ingress' : 'egress', bytes, {}, 'tap');

test('what is sent and received while away comes out as the model says', () => {
  const seen = new Map<string, number>();
  fc.assert(
    fc.property(sent(anyAddress), ({ d, f, own, peer, make }) => {
      const ip = make(endsOf(d, own, peer));
      const expected = fate(layoutOf(ip, f === 6), d);
      seen.set(`${d} ${expected}`, (seen.get(`${d} ${expected}`) ?? 0) + 1);
      if (expected === 'foreign' || expected === 'malformed') {
        tap.drops(d, frame(d, ip), expected);
      } else if (expected === 'same') {
        tap.passes(d, frame(d, ip));
      } else {
        const translated = make(endsOf(d, renamed(own, d), peer));
        const leaves = d === 'out' ? frameToGateway(translated) : frame(d, translated);
        tap.passes(d, frame(d, ip), leaves);
      }
    }),
    { numRuns: runs(2000) },
  );
  for (const d of ['out', 'in']) {
    for (const expected of ['translated', 'same', 'foreign']) {
      assert.ok((seen.get(`${d} ${expected}`) ?? 0) > 10, `enough of ${d} ${expected}`);
    }
  }
});

/** The same packet on the way back: sums do not know which address is the source. */
function reversed(bytes: Uint8Array, d: Direction): Uint8Array {
  const ip = bytes.slice(ETHER_HEADER);
  const [at, length] = (ip[0] ?? 0) >> 4 === 4 ? [12, 4] : [8, 16];
  const source = ip.slice(at, at + length);
  ip.copyWithin(at, at + length, at + 2 * length);
  ip.set(source, at + length);
  return frame(d, ip);
}

test('out and back in again is the identity', () => {
  const inside = sent((f) => guestAddress(f, INSIDE)).filter((s) => {
    const layout = layoutOf(s.make(endsOf('out', s.own, s.peer)), s.f === 6);
    // What an error quotes is not turned round with it.
    return layout?.transport?.protocol !== ICMP[s.f];
  });
  fc.assert(
    fc.property(inside, ({ own, peer, make }) => {
      const leaves = frame('out', make(endsOf('out', own, peer)));
      const outside = run('out', leaves);
      assert.equal(outside.verdict, 'pass');
      const back = run('in', reversed(outside.packet, 'in'));
      assert.equal(back.verdict, 'pass');
      assertSameBytes(back.packet, reversed(leaves, 'in'));
    }),
    { numRuns: runs(1000) },
  );
});

/** What a segment of a moved flow consists of; numbers are offsets, mostly near the flow's own. */
const near = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: -2, max: 3000 }) },
  { weight: 1, arbitrary: uint32 },
);
const blocks = fc.array(fc.tuple(near, near), { minLength: 1, maxLength: 3 });
const flowSegment = fc.record({
  d: direction,
  flags: fc.constantFrom('A', 'PA', 'FA', ''),
  offset: near,
  ack: near,
  blocks: fc.option(blocks),
  payload,
});
const anyMove = fc.record({
  f: family,
  iss: uint32,
  irs: uint32,
  sndDelta: uint32,
  rcvDelta: uint32,
  sndBase: fc.integer({ min: 1, max: 1000 }),
});
type FlowSegment = typeof flowSegment extends fc.Arbitrary<infer T> ? T : never;
type Move = typeof anyMove extends fc.Arbitrary<infer T> ? T : never;

/** The segment in the view that it is sent in: the guest's, or the network's. */
function packetOfSegment(flow: GuestFlow, s: FlowSegment, m: Move): Packet {
  const out = s.d === 'out';
  const t = out ? flow.kernel.tuple : tupleReverse(flow.there.tuple);
  const ofUs = (n: number) => seqAdd(flow.kernel.iss, n + (out ? 0 : m.sndDelta));
  const ofPeer = (n: number) => seqAdd(flow.kernel.irs, n + (out ? 0 : m.rcvDelta));
  const acked = out ? ofPeer : ofUs;
  const sack = s.blocks?.map(([from, to]): [Seq, Seq] => [acked(from), acked(to)]);
  return {
    source: t.local,
    sourcePort: t.localPort,
    destination: t.remote,
    destinationPort: t.remotePort,
    flags: s.flags,
    seq: (out ? ofUs : ofPeer)(s.offset),
    ack: acked(s.ack),
    window: 512,
    options: sack === undefined ? [] : [{ kind: 'nop' }, { kind: 'sack', blocks: sack }],
    payload: s.payload,
  };
}

/** The moved flow's translation is model.ts's; its wire is the one that the network sees. */
function translated(flow: GuestFlow, s: FlowSegment, m: Move, packet: Packet): Translation {
  const state = tap.plane.boundary.flow(flow.kernel.tuple);
  assert.ok(state);
  const model: Moved = {
    kernel: flow.kernel.tuple,
    wire: flow.there.tuple,
    sndDelta: m.sndDelta,
    rcvDelta: m.rcvDelta,
    sndBase: seqAdd(flow.kernel.iss, m.sndBase),
    rcvMax: state.rcvMax,
    rcvBefore: state.rcvBefore,
    sndUna: state.sndUna,
    sndNxt: state.sndNxt,
  };
  return s.d === 'out' ? toWire(model, packet) : toKernel(model, packet);
}

test('a segment of a moved flow comes out as both models say', () => {
  const segments = fc.array(flowSegment, { minLength: 1, maxLength: 10 });
  fc.assert(
    fc.property(anyMove, segments, (m, list) => {
      const flow = tap.moveFlow(m.f, m);
      for (const s of list) {
        const packet = packetOfSegment(flow, s, m);
        const expected = translated(flow, s, m, packet);
        const outcome = run(s.d, frame(s.d, encodePacket(packet)));
        const line = `${s.d} ${formatPacket(packet)}`;
        assert.equal(outcome.verdict, 'drop' in expected ? 'drop' : 'pass', line);
        if ('drop' in expected) continue;
        const ip = encodePacket(expected.packet);
        assertSameBytes(outcome.packet, s.d === 'out' ? frameToGateway(ip) : frame('in', ip));
      }
      tap.plane.boundary.command({ verb: 'forget', kernel: flow.kernel.tuple });
    }),
    { numRuns: runs(300) },
  );
});

/** Nothing but what may change has changed, and every sum is as right or wrong as before. */
function assertWholly(ip: Uint8Array, after: Uint8Array, d: Direction): void {
  const six = (ip[0] ?? 0) >> 4 === 6;
  const before = layoutOf(ip, six);
  const translated = layoutOf(after, six);
  assert.ok(before && translated);
  const masked = ip.slice();
  for (const [at, length] of changeable(ip, before, d))
    masked.set(after.subarray(at, at + length), at);
  assertSameBytes(masked, after);
  assert.deepEqual(sums(after, translated), sums(ip, before));
  const [own, then] =
    d === 'out' ? [before.source, translated.source] : [before.destination, translated.destination];
  assert.equal(then, renamed(own, d));
}

/** A SYN may be counted as legacy besides, under one of these labels as well. */
const DROPS = new Set(
  Object.entries(REASON)
    .filter(([name]) => name.startsWith('DROP_'))
    .map(([, reason]) => reasonName(reason)),
);

const damage = fc.array(fc.tuple(fc.nat(99), fc.nat(255)), { minLength: 1, maxLength: 5 });

/** DHCP, neighbour discovery and redirects are looked at before: dropped as well, or told. */
test('a damaged packet is dropped under a reason, or translated with its damage', () => {
  const own = (f: Family) => fc.oneof(guestAddress(f, INSIDE), guestAddress(f, OUTSIDE));
  const seen = { drop: 0, translated: 0 };
  fc.assert(
    fc.property(sent(own), damage, fc.nat(60), ({ d, f, own: guest, peer, make }, changes, cut) => {
      const whole = make(endsOf(d, guest, peer));
      for (const [at, value] of changes) if (at < whole.length) whole[at] = value;
      // BPF_PROG_TEST_RUN refuses frames that are shorter than their IP header.
      const ip = cut > 40 ? whole.slice(0, Math.max(40, whole.length - cut + 40)) : whole;
      const [to, from] = d === 'out' ? [HOME_MAC, GUEST_MAC] : [GUEST_MAC, HOME_MAC];
      const bytes = etherFrame(to, from, f === 4 ? 0x0800 : 0x86dd, ip);
      const expected = fate(layoutOf(ip, f === 6), d);
      const outcome = tap.run(d, bytes);
      if (outcome.verdict === 'drop') {
        const reasons = outcome.counted.filter((name) => DROPS.has(name));
        assert.ok(reasons.length > 0, `a reason for a drop among ${outcome.counted}`);
        seen.drop += 1;
        return;
      }
      assert.equal(outcome.verdict, 'pass');
      assert.ok(expected === 'same' || expected === 'translated', `passed, not ${expected}`);
      if (expected === 'same') return assertSameBytes(outcome.frame, bytes);
      assertWholly(ip, outcome.frame.slice(ETHER_HEADER), d);
      const hop = d === 'out' ? GATEWAY_MAC[f] : to;
      assert.deepEqual(outcome.frame.slice(0, 6), hop);
      seen.translated += 1;
    }),
    { numRuns: runs(3000) },
  );
  assert.ok(seen.drop > 100 && seen.translated > 100, JSON.stringify(seen));
});
