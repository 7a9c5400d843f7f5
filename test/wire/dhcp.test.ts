/* DHCP: round trips, overloaded and long options, and everything that may be wrong with a packet. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { address } from '../../src/wire/address.js';
import { internetChecksum, pseudoHeaderSum } from '../../src/wire/checksum.js';
import {
  addressOption,
  DHCP_OPTION,
  type DhcpMessage,
  type DhcpPacket,
  decodeDhcp,
  EVERYBODY,
  encodeDhcp,
  NOBODY,
  optionOf,
  prefixLengthOf,
  secondsOption,
  secondsOptionOf,
  typeOf,
  typeOption,
} from '../../src/wire/dhcp.js';
import { mac, macFromBytes } from '../../src/wire/ethernet.js';
import { address4, bytes, uint16, uint32 } from './arbitrary.js';

const record = <T extends object>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record<T>(fields, { noNullPrototype: true });

const options = fc.uniqueArray(
  record({
    code: fc.integer({ min: 1, max: 254 }).filter((code) => code !== DHCP_OPTION.OVERLOAD),
    bytes: fc.oneof(fc.uint8Array({ maxLength: 12 }), fc.constantFrom(255, 256, 600).chain(bytes)),
  }),
  { maxLength: 6, selector: (o) => o.code },
);

const anyMessage: fc.Arbitrary<DhcpMessage> = record({
  op: fc.constantFrom('request' as const, 'reply' as const),
  xid: uint32,
  secs: uint16,
  broadcast: fc.boolean(),
  ciaddr: address4,
  yiaddr: address4,
  siaddr: address4,
  chaddr: bytes(6).map(macFromBytes),
  options,
});

const anyPacket = record({ source: address4, destination: address4, message: anyMessage });

const DISCOVER: DhcpPacket = {
  source: NOBODY,
  destination: EVERYBODY,
  message: {
    op: 'request',
    xid: 0x12345678,
    secs: 0,
    broadcast: true,
    ciaddr: NOBODY,
    yiaddr: NOBODY,
    siaddr: NOBODY,
    chaddr: mac('02:00:00:00:00:0a'),
    options: [typeOption('discover')],
  },
};

const UDP = 20;
const BOOTP = 28;

/** A DISCOVER that `change` has changed, with its checksum right again. */
function changed(change: (packet: Uint8Array) => void): Uint8Array {
  const packet = encodeDhcp(DISCOVER);
  change(packet);
  const view = new DataView(packet.buffer);
  view.setUint16(UDP + 6, 0);
  return packet;
}

describe('decodeDhcp', () => {
  it('reads what was written', () => {
    fc.assert(
      fc.property(anyPacket, (packet) => {
        const encoded = encodeDhcp(packet);
        assert.equal(internetChecksum(encoded.subarray(0, UDP)), 0);
        const udp = encoded.subarray(UDP);
        const pseudo = pseudoHeaderSum(packet.source, packet.destination, 17, udp.length);
        assert.equal(internetChecksum(udp, pseudo), 0);
        assert.deepEqual(decodeDhcp(encoded), packet);
      }),
    );
  });

  it('never throws', () => {
    fc.assert(
      fc.property(
        anyPacket,
        fc.array(fc.tuple(fc.nat(), fc.nat(255))),
        fc.nat(),
        (p, flips, cut) => {
          const packet = encodeDhcp(p);
          for (const [at, value] of flips) packet[at % packet.length] = value;
          packet.fill(0, UDP + 6, UDP + 8);
          decodeDhcp(packet.subarray(0, cut % (packet.length + 1)));
          decodeDhcp(packet);
        },
      ),
    );
  });

  it('a short message is as long as BOOTP was', () => {
    assert.equal(encodeDhcp(DISCOVER).length, BOOTP + 300);
  });

  it('the sum of the pseudo-header alone is a checksum that hardware would have completed', () => {
    const packet = encodeDhcp(DISCOVER);
    const view = new DataView(packet.buffer);
    const pseudo = pseudoHeaderSum(NOBODY, EVERYBODY, 17, packet.length - UDP);
    view.setUint16(UDP + 6, ~internetChecksum(new Uint8Array(), pseudo) & 0xffff);
    assert.deepEqual(decodeDhcp(packet), DISCOVER);
    view.setUint16(UDP + 6, 0x1234);
    assert.deepEqual(decodeDhcp(packet), { error: 'UDP checksum' });
  });

  it('options in `file` and `sname` count where option 52 says so, and continue the others', () => {
    const overloaded = (which: number) =>
      decodeDhcp(
        changed((packet) => {
          packet.set([53, 1, 1, 52, 1, which, 12, 2, 0x61, 0x62, 255], BOOTP + 240);
          packet.set([12, 1, 0x63, 60, 1, 0x78, 255], BOOTP + 108);
          packet.set([12, 1, 0x64, 255], BOOTP + 44);
        }),
      );
    const names = [0, 1, 2, 3].map((which) => {
      const found = overloaded(which);
      assert.ok(!('error' in found));
      assert.equal(optionOf(found.message, DHCP_OPTION.OVERLOAD), undefined);
      return Buffer.from(optionOf(found.message, DHCP_OPTION.HOST_NAME) ?? []).toString();
    });
    assert.deepEqual(names, ['ab', 'abc', 'abd', 'abcd']);
  });

  for (const [why, change] of [
    ['UDP length 4', (p) => p.set([0, 4], UDP + 4)],
    ['UDP length 65535', (p) => p.set([255, 255], UDP + 4)],
    ['not UDP', (p) => p.set([6], 9)],
    ['fragment', (p) => p.set([0x20], 6)],
    ['not DHCP ports', (p) => p.set([0, 53], UDP + 2)],
    ['BOOTP operation 3', (p) => p.set([3], BOOTP)],
    ['BOOTP not on Ethernet', (p) => p.set([6], BOOTP + 1)],
    ['BOOTP by a relay', (p) => p.set([10, 0, 0, 1], BOOTP + 24)],
    ['BOOTP without DHCP', (p) => p.set([0], BOOTP + 236)],
    ['DHCP option 12 is cut off', (p) => p.set([12, 200], BOOTP + 240)],
    ['DHCP message of 100 bytes', (p) => p.set([0, 108], UDP + 4)],
  ] as [string, (packet: Uint8Array) => void][]) {
    it(`refuses: ${why}`, () => assert.deepEqual(decodeDhcp(changed(change)), { error: why }));
  }
});

describe('options', () => {
  const withOptions = (...list: DhcpMessage['options']) => ({ ...DISCOVER.message, options: list });

  it('a type is one byte of RFC 2131', () => {
    assert.equal(typeOf(DISCOVER.message), 'discover');
    assert.equal(typeOf(withOptions({ code: 53, bytes: Uint8Array.of(0) })), undefined);
    assert.equal(typeOf(withOptions({ code: 53, bytes: Uint8Array.of(9) })), undefined);
    assert.equal(typeOf(withOptions({ code: 53, bytes: Uint8Array.of(1, 1) })), undefined);
    assert.equal(typeOf(withOptions()), undefined);
  });

  it('the first of several routers; none if it is cut off', () => {
    const routers = (...each: number[]) => withOptions({ code: 3, bytes: Uint8Array.from(each) });
    assert.equal(addressOption(routers(192, 0, 2, 1, 192, 0, 2, 2), 3), address('192.0.2.1'));
    assert.equal(addressOption(routers(192, 0, 2), 3), undefined);
  });

  it('seconds up to for ever', () => {
    assert.equal(secondsOption(withOptions(secondsOptionOf(51, 0xffffffff)), 51), 0xffffffff);
    assert.equal(secondsOption(withOptions({ code: 51, bytes: Uint8Array.of(1) }), 51), undefined);
  });

  it('a mask without holes is a length', () => {
    const mask = (...each: number[]) => withOptions({ code: 1, bytes: Uint8Array.from(each) });
    assert.equal(prefixLengthOf(mask(255, 255, 255, 0)), 24);
    assert.equal(prefixLengthOf(mask(255, 255, 254, 0)), 23);
    assert.equal(prefixLengthOf(mask(0, 0, 0, 0)), 0);
    assert.equal(prefixLengthOf(mask(255, 0, 255, 0)), undefined);
    assert.equal(prefixLengthOf(mask(255, 255, 255)), undefined);
  });
});
