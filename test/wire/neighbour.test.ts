/* Neighbour discovery: bytes of an advertisement, round trips, and what has to be discarded. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { address } from '../../src/wire/address.js';
import { mac } from '../../src/wire/ethernet.js';
import {
  ALL_NODES,
  decodeNeighbour,
  encodeNeighbour,
  linkLayerAddress,
  type NeighbourMessage,
  type NeighbourOption,
  type PrefixInformation,
  prefixInformation,
  prefixOption,
  type RouterAdvertisement,
  solicitedNode,
  sourceMacOption,
  unsolicitedAdvertisement,
} from '../../src/wire/neighbour.js';
import { address6, bytes, uint8, uint16, uint32 } from './arbitrary.js';

const MAC = mac('02:00:00:00:00:0a');
const hex = (any: Uint8Array) => Buffer.from(any).toString('hex');

describe('unsolicited neighbour advertisement', () => {
  const source = '20010db8000100000000' + '00fffe00000a';
  const header = (flags: string, checksum: string) =>
    '60000000' +
    '0020' +
    '3a' +
    'ff' + // 32 bytes of ICMPv6, hop limit 255
    source +
    'ff020000000000000000000000000001' +
    '8800' +
    checksum +
    flags +
    '000000' +
    source +
    '0201' +
    '02000000000a';

  for (const [router, override, flags] of [
    [false, true, '20'],
    [true, true, 'a0'],
    [false, false, '00'],
  ] as const) {
    it(`router: ${router}, override: ${override}`, () => {
      const ours = address('2001:db8:1::ff:fe00:a');
      const packet = unsolicitedAdvertisement(MAC, ours, { router, override });
      const found = hex(packet);
      assert.equal(found, header(flags, found.slice(84, 88)));
      assert.equal(naiveSum(packet), 0xffff);
    });
  }
});

/* The pseudo-header's addresses are those of the packet; its length and protocol come on top. */
function naiveSum(packet: Uint8Array): number {
  let sum = packet.length - 40 + 58;
  for (let at = 8; at < packet.length; at += 2) {
    sum += (packet[at] ?? 0) * 256 + (packet[at + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

const record = <T extends object>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record<T>(fields, { noNullPrototype: true });

const options: fc.Arbitrary<NeighbourOption[]> = fc.array(
  record({ type: uint8, bytes: fc.constantFrom(6, 14, 30, 62).chain(bytes) }),
  { maxLength: 4 },
);

const anyMessage: fc.Arbitrary<NeighbourMessage> = fc.oneof(
  record({ kind: fc.constant('router-solicitation' as const), options }),
  record({
    kind: fc.constant('router-advertisement' as const),
    hopLimit: uint8,
    flags: uint8,
    routerLifetimeS: uint16,
    reachableMs: uint32,
    retransMs: uint32,
    options,
  }),
  record({ kind: fc.constant('neighbour-solicitation' as const), target: address6, options }),
  record({
    kind: fc.constant('neighbour-advertisement' as const),
    router: fc.boolean(),
    solicited: fc.boolean(),
    override: fc.boolean(),
    target: address6,
    options,
  }),
);

const anyPacket = record({ source: address6, destination: address6, message: anyMessage });

describe('decodeNeighbour', () => {
  it('reads what was written', () => {
    fc.assert(
      fc.property(anyPacket, (packet) => {
        const encoded = encodeNeighbour(packet);
        assert.equal(naiveSum(encoded), 0xffff);
        assert.deepEqual(decodeNeighbour(encoded), packet);
      }),
    );
  });

  it('sees every changed bit', () => {
    const isPacket = (packet: Uint8Array) => !('error' in decodeNeighbour(packet));
    fc.assert(
      fc.property(anyPacket, fc.nat(), (packet, at) => {
        const encoded = encodeNeighbour(packet);
        const bit = at % ((encoded.length - 8) * 8);
        const byte = 8 + (bit >> 3);
        encoded[byte] = (encoded[byte] ?? 0) ^ (1 << (bit & 7));
        assert.ok(!isPacket(encoded));
      }),
    );
  });

  it('never throws', () => {
    const start = fc.constant([0x60, 0, 0, 0, 0, 24, 58, 255]);
    const hostile = fc
      .tuple(start, fc.uint8Array({ maxLength: 80 }))
      .map((a) => a.flatMap((b) => [...b]));
    fc.assert(fc.property(hostile, (any) => void decodeNeighbour(Uint8Array.from(any))));
  });

  it('discards what comes from afar, and options of length 0', () => {
    const right = unsolicitedAdvertisement(MAC, address('fe80::1'), {
      router: true,
      override: true,
    });
    const afar = right.slice();
    afar[7] = 254;
    assert.deepEqual(decodeNeighbour(afar), { error: 'hop limit 254' });
    const endless = right.slice();
    endless[40 + 25] = 0;
    // The sum stays right: what is taken from the length is added to the word's other half.
    endless[41] = 1;
    const found = decodeNeighbour(endless);
    assert.ok('error' in found);
    endless[41] = 0;
    const view = new DataView(endless.buffer);
    view.setUint16(42, view.getUint16(42) + 1);
    assert.deepEqual(decodeNeighbour(endless), { error: 'option of length 0' });
  });
});

describe('options', () => {
  const anyPrefix: fc.Arbitrary<PrefixInformation> = record({
    prefix: address6,
    prefixLength: fc.nat(128),
    onLink: fc.boolean(),
    autonomous: fc.boolean(),
    validS: uint32,
    preferredS: uint32,
  });

  const advertisement = (list: NeighbourOption[]): RouterAdvertisement => ({
    kind: 'router-advertisement',
    hopLimit: 64,
    flags: 0,
    routerLifetimeS: 1800,
    reachableMs: 0,
    retransMs: 0,
    options: list,
  });

  it('prefixes are read as written', () => {
    fc.assert(
      fc.property(fc.array(anyPrefix, { maxLength: 3 }), (prefixes) => {
        assert.deepEqual(prefixInformation(advertisement(prefixes.map(prefixOption))), prefixes);
      }),
    );
  });

  it('the hardware address of the sender, if it tells one', () => {
    assert.equal(linkLayerAddress(advertisement([sourceMacOption(MAC)])), MAC);
    assert.equal(linkLayerAddress(advertisement([])), undefined);
    assert.equal(
      linkLayerAddress(advertisement([{ type: 1, bytes: new Uint8Array(14) }])),
      undefined,
    );
  });

  it('of an impossible length are our mistake', () => {
    const message = advertisement([{ type: 1, bytes: new Uint8Array(7) }]);
    const packet = { source: address('fe80::1'), destination: ALL_NODES, message };
    assert.throws(() => encodeNeighbour(packet), RangeError);
  });

  it('the solicited-node group has the last 24 bits', () => {
    assert.equal(solicitedNode(address('2001:db8::ab:cdef:1234')), 'ff02::1:ffef:1234');
  });
});
