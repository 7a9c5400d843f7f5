/* Flows of a VM on their way between two hypervisors: whole, in the other machine's names and
 * times, or not at all.  Needs no data plane.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ABI_VERSION,
  encodeFlow,
  FLOW_SIZE,
  type Flow,
  PLAIN_SIZE,
  type Plain,
  readFlow,
  TUPLE_SIZE,
} from '../../src/boundary/abi.gen.js';
import {
  type Luggage,
  LuggageError,
  packLuggage,
  unpackLuggage,
} from '../../src/boundary/transfer.js';
import type { Tuple } from '../../src/wire/tuple.js';
import { address4, address6, bytes, uint16 } from '../wire/arbitrary.js';

const HEADER = 28;
const TAP_THERE = 5;
const TAP_HERE = 9;

const tuple: fc.Arbitrary<Tuple> = fc
  .oneof(fc.tuple(address4, address4), fc.tuple(address6, address6))
  .chain(([local, remote]) =>
    fc.record(
      {
        ...{ local: fc.constant(local), remote: fc.constant(remote) },
        ...{ localPort: uint16, remotePort: uint16, tap: fc.constant(TAP_THERE) },
      },
      { noNullPrototype: true },
    ),
  );
const time = fc.bigInt({ min: 1n, max: 1n << 62n });
const TIMES = [
  'created',
  'seenIn',
  'seenOut',
  'resumedAt',
  'resentSince',
  'frozenUntil',
  'movedAt',
  'gapSince',
] as const;

/** Any bytes are a flow; its times are later than the start of the machine. */
const flow: fc.Arbitrary<Flow> = fc
  .tuple(
    bytes(FLOW_SIZE),
    tuple,
    tuple,
    fc.array(time, { minLength: TIMES.length, maxLength: TIMES.length }),
  )
  .map(([raw, one, other, times]) => {
    const read = readFlow(new DataView(raw.buffer, raw.byteOffset, raw.length));
    const [first, second] = read.mapping;
    const mapping: Flow['mapping'] = [
      { ...first, wire: one },
      { ...second, wire: other },
    ];
    const at = Object.fromEntries(TIMES.map((name, i) => [name, times[i] ?? 1n]));
    return { ...read, ...at, mapping };
  });
const plain: fc.Arbitrary<Plain> = fc.record(
  { since: time, reason: uint16 },
  { noNullPrototype: true },
);
const luggage: fc.Arbitrary<Luggage> = fc.record({
  flows: fc.array(fc.tuple(tuple, flow), { maxLength: 5 }),
  plain: fc.array(fc.tuple(tuple, plain), { maxLength: 5 }),
});

const here = (t: Tuple): Tuple => ({ ...t, tap: TAP_HERE });

/** What must come out where the clock is `later` ahead. */
function expected(there: Luggage, later: bigint): Luggage {
  const at = (t: bigint): bigint => (t + later > 0n ? t + later : 1n);
  return {
    flows: there.flows.map(([t, f]) => [
      here(t),
      {
        ...f,
        ...Object.fromEntries(TIMES.map((name) => [name, at(f[name])])),
        mapping: [
          { ...f.mapping[0], wire: here(f.mapping[0].wire) },
          { ...f.mapping[1], wire: here(f.mapping[1].wire) },
        ],
      },
    ]),
    plain: there.plain.map(([t, p]) => [here(t), { ...p, since: at(p.since) }]),
  };
}

for (const [name, there, now] of [
  ['the same machine', 1n << 40n, 1n << 40n],
  ['a machine that has run for longer', 5_000_000_000n, 1n << 50n],
  ['one that was just started: no time before its start', 1n << 60n, 5_000_000_000n],
] as const) {
  test(`${name}: all that the tables hold arrives, times shifted, taps renamed`, () => {
    fc.assert(
      fc.property(luggage, (packed) => {
        const arrived = unpackLuggage(packLuggage(packed, there), { tap: TAP_HERE, nowNs: now });
        assert.deepEqual(arrived, expected(packed, now - there));
      }),
    );
  });
}

test('"never" stays never, and lengths of time stay as they are', () => {
  const f = { ...readFlow(new DataView(new ArrayBuffer(FLOW_SIZE))), gap: 12n, seenIn: 100n };
  const t = { ...oneTuple(), tap: TAP_THERE };
  const packed = packLuggage({ flows: [[t, f]], plain: [[t, { since: 0n, reason: 3 }]] }, 50n);
  const { flows, plain } = unpackLuggage(packed, { tap: TAP_HERE, nowNs: 1050n });
  const arrived = flows[0]?.[1];
  assert.deepEqual([arrived?.gap, arrived?.seenIn, arrived?.movedAt], [12n, 1100n, 0n]);
  assert.equal(plain[0]?.[1].since, 0n);
});

test('nothing is luggage, too', () => {
  const packed = packLuggage({ flows: [], plain: [] }, 1n);
  assert.equal(packed.length, HEADER);
  assert.deepEqual(unpackLuggage(packed, { tap: 1, nowNs: 1n }), { flows: [], plain: [] });
});

test('read where it lies in a larger buffer', () => {
  const packed = packLuggage(one(), 1n);
  const larger = new Uint8Array(packed.length + 11);
  larger.set(packed, 7);
  const inside = larger.subarray(7, 7 + packed.length);
  assert.equal(unpackLuggage(inside, { tap: 1, nowNs: 1n }).flows.length, 1);
});

function oneTuple(): Tuple {
  return fc.sample(tuple, { numRuns: 1, seed: 1 })[0] as Tuple;
}
function one(): Luggage {
  const f = readFlow(new DataView(new ArrayBuffer(FLOW_SIZE)));
  return { flows: [[oneTuple(), f]], plain: [[oneTuple(), { since: 1n, reason: 1 }]] };
}

const refused = (bytes: Uint8Array, message: RegExp): void => {
  assert.throws(
    () => unpackLuggage(bytes, { tap: 1, nowNs: 1n }),
    (e) => e instanceof LuggageError && e.code === 'EPROTO' && message.test(e.message),
  );
};

test('cut off anywhere, or with something behind it: refused as a whole', () => {
  const packed = packLuggage(one(), 1n);
  for (let length = 0; length < packed.length; length++) {
    refused(packed.subarray(0, length), length < HEADER ? /these are none/ : /cut off/);
  }
  refused(Uint8Array.of(...packed, 0), /cut off/);
});

test('a count that nobody can have packed', () => {
  const packed = packLuggage(one(), 1n);
  for (const at of [12, 16]) {
    const claims = Uint8Array.from(packed);
    new DataView(claims.buffer).setUint32(at, 0xffff_ffff);
    refused(claims, /cut off/);
  }
});

test('of another version: both are named', () => {
  const changed = (at: number, value: number): Uint8Array => {
    const packed = Uint8Array.from(packLuggage(one(), 1n));
    new DataView(packed.buffer).setUint16(at, value);
    return packed;
  };
  const other = new RegExp(`of version ${ABI_VERSION}, this program reads ${ABI_VERSION}`);
  refused(changed(8, FLOW_SIZE + 8), other);
  refused(changed(10, PLAIN_SIZE + 8), other);
  refused(changed(6, ABI_VERSION + 1), other);
  refused(changed(4, 1), /of version 1, this program reads \d/);
  // A later one that says that we can read it.
  const later = unpackLuggage(changed(4, ABI_VERSION + 1), { tap: 1, nowNs: 1n });
  assert.equal(later.flows.length, 1);
  refused(Uint8Array.from(packLuggage(one(), 1n)).fill(0, 0, 4), /these are none/);
});

test('a record is exactly its tuple and its struct', () => {
  const { flows } = one();
  const packed = packLuggage({ flows, plain: [] }, 1n);
  assert.equal(packed.length, HEADER + TUPLE_SIZE + FLOW_SIZE);
  const f = flows[0]?.[1];
  assert.ok(f);
  assert.deepEqual(Uint8Array.from(packed.subarray(HEADER + TUPLE_SIZE)), encodeFlow(f));
});
