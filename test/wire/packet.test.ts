/* Whole packets: round trip, checksums, and packets whose headers lie. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { address } from '../../src/wire/address.js';
import {
  checksumsAreRight,
  decodePacket,
  encodePacket,
  type Packet,
  segmentEnd,
} from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { runs } from '../whole.js';
import { anyPacket } from './arbitrary.js';

const PACKET: Packet = {
  source: address('192.0.2.10'),
  sourcePort: 22,
  destination: address('203.0.113.7'),
  destinationPort: 40000,
  flags: 'PA',
  seq: seq(1000),
  ack: seq(2000),
  window: 512,
  options: [{ kind: 'nop' }, { kind: 'nop' }, { kind: 'timestamps', value: 1, echo: 2 }],
  payload: Uint8Array.of(1, 2, 3),
  hopLimit: 64,
};

const PACKET6: Packet = {
  ...PACKET,
  source: address('2001:db8:1::10'),
  destination: address('2001:db8:3::7'),
};

/** `p` encoded and then changed by `change`. */
function broken(p: Packet, change: (bytes: Uint8Array) => void): Uint8Array {
  const bytes = encodePacket(p);
  change(bytes);
  return bytes;
}

const errorOf = (bytes: Uint8Array): string | undefined => {
  const decoded = decodePacket(bytes);
  return 'error' in decoded ? decoded.error : undefined;
};

test('a packet survives the round trip, with right checksums', () => {
  fc.assert(
    fc.property(anyPacket, (p) => {
      const bytes = encodePacket(p);
      assert.deepEqual(decodePacket(bytes), p);
      assert.ok(checksumsAreRight(bytes));
    }),
    { numRuns: runs(500) },
  );
});

test('one changed bit is seen by the checksums', () => {
  fc.assert(
    fc.property(anyPacket, fc.nat(), (p, bit) => {
      const bytes = encodePacket(p);
      // Of an IPv6 header only the addresses are summed, with what the length field implies.
      const from = p.source.includes(':') ? 8 * 8 : 0;
      const at = from + (bit % (bytes.length * 8 - from));
      bytes[at >> 3] = (bytes[at >> 3] ?? 0) ^ (0x80 >> (at & 7));
      assert.ok(!checksumsAreRight(bytes));
    }),
  );
});

test('no bytes and no prefix of a packet decode, none throw', () => {
  for (const p of [PACKET, PACKET6]) {
    const bytes = encodePacket(p);
    for (let length = 0; length < bytes.length; length++) {
      assert.ok('error' in decodePacket(bytes.subarray(0, length)), `${length} bytes`);
    }
  }
});

test('a cut-off payload is accepted where the caller says so, a cut-off header is not', () => {
  for (const p of [PACKET, PACKET6]) {
    const bytes = encodePacket(p);
    for (let length = 0; length < bytes.length; length++) {
      const decoded = decodePacket(bytes.subarray(0, length), { truncated: true });
      const missing = bytes.length - length;
      if (missing > p.payload.length) assert.ok('error' in decoded, `${length} bytes`);
      else assert.deepEqual(decoded, { ...p, payload: p.payload.slice(0, 3 - missing) });
    }
  }
});

test('decoding never throws on random bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), fc.boolean(), (bytes, truncated) => {
      decodePacket(bytes, { truncated });
      checksumsAreRight(bytes);
    }),
    { numRuns: runs(2000) },
  );
});

test('decoding never throws on a packet with some bytes replaced or cut off', () => {
  const change = fc.tuple(fc.nat(99), fc.nat(255));
  const changes = fc.array(change, { maxLength: 4 });
  fc.assert(
    fc.property(anyPacket, changes, fc.nat(200), fc.boolean(), (p, list, cut, truncated) => {
      const bytes = encodePacket(p);
      for (const [at, value] of list) if (at < bytes.length) bytes[at] = value;
      decodePacket(bytes.subarray(0, cut), { truncated });
    }),
    { numRuns: runs(2000) },
  );
});

test('what is decoded does not change with the buffer it came from', () => {
  const bytes = encodePacket(PACKET);
  const decoded = decodePacket(bytes);
  bytes.fill(0xff);
  assert.deepEqual(decoded, PACKET);
});

test('bytes behind the end of the packet are not payload', () => {
  const padded = new Uint8Array(70);
  padded.set(encodePacket(PACKET));
  assert.deepEqual(decodePacket(padded), PACKET);
});

const set = (at: number, value: number) => (bytes: Uint8Array) => {
  bytes[at] = value;
};

const LIES: [name: string, bytes: Uint8Array, error: RegExp][] = [
  ['no bytes', new Uint8Array(0), /IP version 0/],
  ['version 5', broken(PACKET, set(0, 0x55)), /IP version 5/],
  ['IPv4 header of 16 bytes', broken(PACKET, set(0, 0x44)), /IPv4 header of 16/],
  [
    'IPv4 header longer than the packet',
    broken(PACKET, set(0, 0x4f)),
    /IPv4 header of 60|TCP|data/,
  ],
  ['IPv4 total length beyond the bytes', broken(PACKET, set(3, 200)), /200 bytes, 55 present/],
  ['IPv4 total length of 8', broken(PACKET, set(3, 8)), /IPv4 header of 20 bytes in a packet of 8/],
  ['IPv4 total length ends in the TCP header', broken(PACKET, set(3, 30)), /TCP header of 10/],
  ['IPv4 first fragment', broken(PACKET, set(6, 0x20)), /fragment/],
  ['IPv4 later fragment', broken(PACKET, set(7, 1)), /fragment/],
  ['UDP', broken(PACKET, set(9, 17)), /protocol 17/],
  ['data offset 4', broken(PACKET, set(20 + 12, 0x40)), /data offset 16/],
  ['data offset 0', broken(PACKET, set(20 + 12, 0x00)), /data offset 0/],
  ['data offset 15', broken(PACKET, set(20 + 12, 0xf0)), /data offset 60 of 35/],
  ['option length 0', broken(PACKET, set(20 + 23, 0)), /option 8 has length 0/],
  ['IPv6 payload length beyond the bytes', broken(PACKET6, set(5, 99)), /139 bytes, 75 present/],
  ['IPv6 payload length 0', broken(PACKET6, set(5, 0)), /TCP header of 0/],
  ['IPv6 of 39 bytes', encodePacket(PACKET6).slice(0, 39), /IPv6 header of 39/],
  ['IPv6 no next header', broken(PACKET6, set(6, 59)), /protocol 59/],
  ['IPv6 encrypted', broken(PACKET6, set(6, 50)), /protocol 50/],
];

for (const [name, bytes, error] of LIES) {
  test(`${name}: refused`, () => assert.match(errorOf(bytes) ?? 'accepted', error));
}

test('an IPv6 packet with an IPv4-mapped address does not pass for IPv4', () => {
  const bytes = encodePacket(PACKET6);
  bytes.fill(0, 8, 18);
  bytes.fill(0xff, 18, 20);
  assert.match(errorOf(bytes) ?? 'accepted', /IPv4-mapped/);
});

test('IPv4 options are stepped over', () => {
  const plain = encodePacket(PACKET);
  const bytes = Uint8Array.from([...plain.slice(0, 20), 1, 1, 1, 0, ...plain.slice(20)]);
  bytes[0] = 0x46;
  bytes[3] = bytes.length;
  assert.deepEqual(decodePacket(bytes), PACKET);
});

test('two families in one packet are a mistake of the caller', () => {
  assert.throws(() => encodePacket({ ...PACKET, source: PACKET6.source }), TypeError);
});

test('more than 40 bytes of options are a mistake of the caller', () => {
  const options = new Array(5).fill({ kind: 'timestamps', value: 0, echo: 0 });
  assert.throws(() => encodePacket({ ...PACKET, options }), RangeError);
});

test('an unknown flag is a mistake of the caller', () => {
  assert.throws(() => encodePacket({ ...PACKET, flags: 'X' }), TypeError);
});

test('SYN and FIN take a sequence number each', () => {
  const end = (flags: string, at: number) => segmentEnd({ ...PACKET, flags, seq: seq(at) });
  assert.equal(end('PA', 1000), 1003);
  assert.equal(end('FPA', 1000), 1004);
  assert.equal(end('S', 0xfffffffe), 2);
});
