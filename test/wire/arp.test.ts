/* ARP: what is said, byte by byte, and what is not taken for ARP. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { address } from '../../src/wire/address.js';
import {
  type Arp,
  arpAnnouncement,
  arpProbe,
  decodeArp,
  encodeArp,
  rarpAnnouncement,
} from '../../src/wire/arp.js';
import { mac, macFromBytes } from '../../src/wire/ethernet.js';
import { address4, bytes } from './arbitrary.js';

const MAC = mac('02:00:00:00:00:0a');
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

describe('ARP announcement', () => {
  it('is a request of an address for itself', () => {
    assert.equal(
      hex(arpAnnouncement(MAC, address('192.0.2.10'))),
      '0001' +
        '0800' +
        '06' +
        '04' +
        '0001' + // Ethernet, IPv4, their lengths, request
        '02000000000a' +
        'c000020a' +
        '000000000000' +
        'c000020a',
    );
  });
});

it("ARP probe says nothing of its sender's address", () => {
  assert.equal(
    hex(arpProbe(MAC, address('198.51.100.10'))),
    '0001080006040001' + '02000000000a' + '00000000' + '000000000000' + 'c633640a',
  );
});

it('RARP names the MAC twice, as QEMU does', () => {
  assert.equal(
    hex(rarpAnnouncement(MAC)),
    '0001080006040003' + '02000000000a' + '00000000' + '02000000000a' + '00000000',
  );
});

const anyArp: fc.Arbitrary<Arp> = fc.record(
  {
    operation: fc.constantFrom('request', 'reply'),
    senderMac: bytes(6).map(macFromBytes),
    sender: address4,
    targetMac: bytes(6).map(macFromBytes),
    target: address4,
  },
  { noNullPrototype: true },
);

describe('decodeArp', () => {
  it('reads what was written, padded or not', () => {
    fc.assert(
      fc.property(anyArp, fc.nat(18), (arp, padding) => {
        const padded = Uint8Array.of(...encodeArp(arp), ...new Uint8Array(padding));
        assert.deepEqual(decodeArp(padded), arp);
      }),
    );
  });

  it('never throws', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), (any) => void decodeArp(any)));
  });

  it('takes nothing else for ARP', () => {
    const right = arpProbe(MAC, address('198.51.100.10'));
    assert.deepEqual(decodeArp(right.subarray(0, 27)), { error: 'ARP packet of 27 bytes' });
    const other = { error: 'not ARP of IPv4 on Ethernet' };
    for (const at of [0, 1, 2, 3, 4, 5]) {
      const wrong = right.slice();
      wrong[at] = 0x77;
      assert.deepEqual(decodeArp(wrong), other);
    }
    assert.deepEqual(decodeArp(rarpAnnouncement(MAC)), { error: 'ARP operation 3' });
  });
});
