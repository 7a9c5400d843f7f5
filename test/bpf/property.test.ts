/*
 * The invariants, against random packets: what is not ours is not touched, and what is ours is
 * translated as model.ts says or dropped, never half rewritten.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { formatPacket } from '../../src/wire/notation.js';
import type { TcpOption } from '../../src/wire/option.js';
import { decodePacket, encodePacket, type Packet } from '../../src/wire/packet.js';
import { seq, seqAdd } from '../../src/wire/seq.js';
import { tupleReverse } from '../../src/wire/tuple.js';
import { runs } from '../whole.js';
import { anyOption, anyPacket, anySeq, uint16, uint32 } from '../wire/arbitrary.js';
import {
  assertFrame,
  DataPlane,
  type Direction,
  ETHER_HEADER,
  type Family,
  frameOf,
  type MovedFlow,
  moveFlow,
} from './data-plane.js';
import { type Moved, toKernel, toWire } from './model.js';

const plane = new DataPlane();
after(() => plane.remove());

const direction = fc.constantFrom<Direction>('out', 'in');
const PROGRAM = { out: 'egress', in: 'ingress' } as const;

/** Runs without reading the counters: ten times as fast. */
const run = (d: Direction, frame: Uint8Array) => plane.boundary.testRun(PROGRAM[d], frame);

const isOurs = (o: TcpOption): boolean => o.kind.startsWith('ti-');

test('a packet of no flow comes out byte-identical', () => {
  const packet = anyPacket.filter((p) => !p.options.some(isOurs) && !p.flags.includes('S'));
  fc.assert(
    fc.property(direction, packet, (d, p) => {
      const frame = frameOf(encodePacket(p));
      const { verdict, packet } = run(d, frame);
      assert.equal(verdict, 'pass');
      assert.deepEqual(packet, frame);
    }),
    { numRuns: runs(1000) },
  );
});

test('bytes that are no packet come out byte-identical', () => {
  const etherType = fc.constantFrom([0x08, 0x00], [0x86, 0xdd], [0x08, 0x06], [0x81, 0x00]);
  // BPF_PROG_TEST_RUN refuses frames that are shorter than their IP header.
  const bytes = fc.uint8Array({ minLength: 54, maxLength: 120 });
  fc.assert(
    fc.property(direction, etherType, bytes, (d, type, frame) => {
      frame.set(type, 12);
      frame[14] = type[0] === 8 ? 0x45 : 0x60;
      const { verdict, packet } = run(d, frame);
      assert.equal(verdict, 'pass');
      assert.deepEqual(packet, frame);
    }),
    { numRuns: runs(1000) },
  );
});

test('a SYN that comes in is never changed', () => {
  const syn = anyPacket.filter((p) => !p.options.some((o) => isOurs(o) && o.kind !== 'ti-open'));
  fc.assert(
    fc.property(syn, (p) => {
      const frame = frameOf(encodePacket({ ...p, flags: 'S' }));
      const { verdict, packet } = run('in', frame);
      assert.equal(verdict, 'pass');
      assert.deepEqual(packet, frame);
    }),
    { numRuns: runs(500) },
  );
});

/** What a row of a moved flow consists of; numbers are offsets, mostly near the flow's own. */
interface Segment {
  direction: Direction;
  flags: string;
  offset: number;
  ack: number;
  window: number;
  options: TcpOption[];
  payload: Uint8Array;
}

const near = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: -2, max: 3000 }) },
  { weight: 1, arbitrary: uint32 },
);

/** At most one SACK option: the data plane, like Linux, heeds only one. */
const options = fc.array(anyOption, { maxLength: 4 }).map((list) => {
  let bytes = 0;
  let sacks = 0;
  return list.filter((o) => {
    bytes += encodedLength(o);
    if (o.kind === 'sack') sacks += 1;
    return bytes <= 40 && (o.kind !== 'sack' || sacks === 1);
  });
});

function encodedLength(o: TcpOption): number {
  switch (o.kind) {
    case 'mss':
      return 4;
    case 'sack-permitted':
      return 2;
    case 'wscale':
      return 3;
    case 'timestamps':
      return 10;
    case 'sack':
      return 2 + o.blocks.length * 8;
    case 'nop':
      return 1;
    case 'unknown':
      return 2 + o.bytes.length;
    default:
      return 40;
  }
}

const segment: fc.Arbitrary<Segment> = fc.record(
  {
    direction,
    // Resets from the wire have rules of their own: track.test.ts.
    flags: fc.constantFrom('A', 'PA', 'FA', 'PAU', 'AEC', ''),
    offset: near,
    ack: near,
    window: uint16,
    options,
    payload: fc.uint8Array({ maxLength: 200 }),
  },
  { noNullPrototype: true },
);

const anyMove = fc.record({
  f: fc.constantFrom<Family>(4, 6),
  iss: anySeq,
  irs: anySeq,
  sndDelta: anySeq,
  rcvDelta: anySeq,
  sndBase: fc.integer({ min: 1, max: 1000 }),
  rcvBase: fc.integer({ min: 1, max: 1000 }),
});

type Numbers = typeof anyMove extends fc.Arbitrary<infer N> ? N : never;

/** The flow as the model wants it: bounds that move with each packet are read from the map. */
function moved(flow: MovedFlow, o: { sndDelta: number; rcvDelta: number; sndBase: number }): Moved {
  const state = plane.boundary.flow(flow.kernel.tuple);
  assert.ok(state);
  return {
    kernel: flow.kernel.tuple,
    wire: flow.wire.tuple,
    sndDelta: o.sndDelta,
    rcvDelta: o.rcvDelta,
    sndBase: seqAdd(flow.kernel.iss, o.sndBase),
    rcvMax: state.rcvMax,
    rcvBefore: state.rcvBefore,
    sndUna: state.sndUna,
    sndNxt: state.sndNxt,
  };
}

function packetOfSegment(flow: MovedFlow, s: Segment, deltas: [number, number]): Packet {
  const out = s.direction === 'out';
  const t = out ? flow.kernel.tuple : tupleReverse(flow.wire.tuple);
  const { iss, irs } = flow.kernel;
  const ofUs = (n: number) => seqAdd(iss, n + (out ? 0 : deltas[0]));
  const ofPeer = (n: number) => seqAdd(irs, n + (out ? 0 : deltas[1]));
  return {
    source: t.local,
    sourcePort: t.localPort,
    destination: t.remote,
    destinationPort: t.remotePort,
    flags: s.flags,
    seq: out ? ofUs(s.offset) : ofPeer(s.offset),
    ack: out ? ofPeer(s.ack) : ofUs(s.ack),
    window: s.window,
    options: s.options,
    payload: s.payload,
  };
}

/* A base that does not count any more does not count for what is sent again from below it, either. */
const BASE_LEFT_BEHIND: [Numbers, Segment[]] = [
  { f: 4, iss: seq(0), irs: seq(0), sndDelta: seq(0), rcvDelta: seq(0), sndBase: 1, rcvBase: 1 },
  (
    [
      ['out', 2 ** 30 - 7, 0, 8],
      ['in', 0, 2 ** 30 + 1, 1],
      ['out', 0, 0, 2],
    ] as const
  ).map(([side, offset, ack, bytes]) => ({
    ...{ direction: side, flags: 'A', offset, ack, window: 0, options: [] },
    payload: new Uint8Array(bytes),
  })),
];

test('a packet of a moved flow comes out as the model says', () => {
  fc.assert(
    fc.property(anyMove, fc.array(segment, { minLength: 1, maxLength: 12 }), (m, segments) => {
      const flow = moveFlow(plane, m.f, m);
      try {
        for (const s of segments) {
          const packet = packetOfSegment(flow, s, [m.sndDelta, m.rcvDelta]);
          const model = moved(flow, m);
          const expected = s.direction === 'out' ? toWire(model, packet) : toKernel(model, packet);
          const outcome = run(s.direction, frameOf(encodePacket(packet)));
          const line = `${s.direction} ${formatPacket(packet)}`;
          if ('drop' in expected)
            assert.equal(outcome.verdict, 'drop', `${line}: ${expected.drop}`);
          else {
            assert.equal(outcome.verdict, 'pass', line);
            assertFrame(outcome.packet, expected.packet);
          }
        }
      } finally {
        plane.boundary.command({ verb: 'forget', kernel: flow.kernel.tuple });
      }
    }),
    { numRuns: runs(300), examples: [BASE_LEFT_BEHIND] },
  );
});

test('a damaged packet of a moved flow is dropped, translated as a whole, or not ours', () => {
  const damage = fc.array(fc.tuple(fc.nat(119), fc.nat(255)), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(fc.constantFrom<Family>(4, 6), segment, damage, (f, s, changes) => {
      const flow = moveFlow(plane, f, { sndDelta: 1000, rcvDelta: 5000 });
      try {
        const packet = packetOfSegment(flow, { ...s, direction: 'out' }, [0, 0]);
        const bytes = encodePacket(packet);
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        const frame = frameOf(bytes);
        const outcome = run('out', frame);
        if (outcome.verdict !== 'pass') return;
        const [before, after] = [
          decodePacket(bytes),
          decodePacket(outcome.packet.subarray(ETHER_HEADER)),
        ];
        if ('error' in before || before.source !== packet.source) return;
        if (before.flags.includes('S') || before.sourcePort !== packet.sourcePort) return;
        if (before.destination !== packet.destination) return;
        if (before.destinationPort !== packet.destinationPort) return;
        assert.ok(!('error' in after));
        assert.equal(after.source, flow.wire.tuple.local);
        assert.equal(after.seq, seqAdd(before.seq, 1000));
      } finally {
        plane.boundary.command({ verb: 'forget', kernel: flow.kernel.tuple });
      }
    }),
    { numRuns: runs(1000) },
  );
});

test('deltas of zero change nothing but the addresses', () => {
  const flow = moveFlow(plane, 4, { sndDelta: 0, rcvDelta: 0 });
  flow.out('PA 1:101(100) ack 1 win 512', 'PA 1:101(100) ack 1 win 512');
});
