/* IPv6 extension headers in front of TCP: walked over, or refused by name. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { address } from '../../src/wire/address.js';
import { EXTENSION_HEADERS_MAX } from '../../src/wire/ip.js';
import {
  checksumsAreRight,
  decodePacket,
  encodePacket,
  type Packet,
} from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';

const PACKET: Packet = {
  source: address('2001:db8:1::10'),
  sourcePort: 22,
  destination: address('2001:db8:3::7'),
  destinationPort: 40000,
  flags: 'S',
  seq: seq(1),
  ack: seq(0),
  window: 65535,
  options: [{ kind: 'mss', mss: 1440 }],
  payload: new Uint8Array(0),
  hopLimit: 64,
};

/** An extension header: its number, and its bytes from the third on. */
interface Extension {
  number: number;
  body: number[];
}

const PAD4 = [1, 4, 0, 0, 0, 0]; // one PadN option of 6 bytes
const HOP_BY_HOP: Extension = { number: 0, body: PAD4 };
const DESTINATION: Extension = { number: 60, body: PAD4 };
const LONG_DESTINATION: Extension = { number: 60, body: [1, 12, ...new Array(12).fill(0)] };
const routing = (left: number): Extension => ({ number: 43, body: [4, left, 0, 0, 0, 0] });
const fragment = (offset: number, more: number): Extension => ({
  number: 44,
  body: [offset >> 5, ((offset << 3) & 0xff) | more, 0, 0, 0, 9],
});

/** PACKET with `extensions` between the IPv6 and the TCP header. */
function extended(...extensions: Extension[]): Uint8Array {
  const plain = encodePacket(PACKET);
  const numbers = [...extensions.map((extension) => extension.number), 6];
  const middle = extensions.flatMap(({ number, body }, index) => [
    numbers[index + 1] ?? 0,
    number === 44 ? 0 : (body.length + 2) / 8 - 1,
    ...body,
  ]);
  const bytes = Uint8Array.from([...plain.slice(0, 40), ...middle, ...plain.slice(40)]);
  bytes[5] = bytes.length - 40;
  bytes[6] = numbers[0] ?? 0;
  return bytes;
}

const WALKED: [name: string, extensions: Extension[]][] = [
  ['none', []],
  ['hop-by-hop options', [HOP_BY_HOP]],
  ['destination options', [DESTINATION]],
  ['long destination options', [LONG_DESTINATION]],
  ['hop-by-hop and destination options', [HOP_BY_HOP, DESTINATION]],
  ['a routing header with nothing left', [routing(0)]],
  ['an atomic fragment', [fragment(0, 0)]],
  ['as many as are allowed', new Array(EXTENSION_HEADERS_MAX).fill(DESTINATION)],
];

for (const [name, extensions] of WALKED) {
  test(`${name}: the TCP packet is found`, () => {
    const bytes = extended(...extensions);
    assert.deepEqual(decodePacket(bytes), PACKET);
    assert.ok(checksumsAreRight(bytes));
  });
}

const REFUSED: [name: string, bytes: Uint8Array, error: RegExp][] = [
  ['one too many', extended(...new Array(EXTENSION_HEADERS_MAX + 1).fill(DESTINATION)), /too many/],
  ['a first fragment', extended(fragment(0, 1)), /fragment/],
  ['a later fragment', extended(fragment(1, 0)), /fragment/],
  ['a routing header with one left', extended(routing(1)), /segments left/],
];

for (const [name, bytes, error] of REFUSED) {
  test(`${name}: refused`, () => {
    const decoded = decodePacket(bytes);
    assert.match('error' in decoded ? decoded.error : 'accepted', error);
  });
}

test('an extension header whose length goes beyond the packet is refused', () => {
  const bytes = extended(HOP_BY_HOP);
  for (const length of [4, 255]) {
    bytes[41] = length;
    const decoded = decodePacket(bytes);
    assert.ok('error' in decoded);
    assert.match(decoded.error, /cut off|TCP header/);
  }
});

test('no prefix of a packet with extension headers decodes, none throw', () => {
  const bytes = extended(HOP_BY_HOP, LONG_DESTINATION);
  for (let length = 0; length < bytes.length; length++) {
    assert.ok('error' in decodePacket(bytes.subarray(0, length)), `${length} bytes`);
  }
});
