/* Hardware addresses as text, what is derived from them, and frames. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { address } from '../../src/wire/address.js';
import {
  decodeFrame,
  encodeFrame,
  interfaceIdentifier,
  linkLocalAddress,
  mac,
  macBytes,
  macFromBytes,
  multicastMac,
} from '../../src/wire/ethernet.js';
import { bytes, uint16 } from './arbitrary.js';

describe('hardware addresses', () => {
  it('text and bytes are the same', () => {
    fc.assert(
      fc.property(bytes(6), (any) => {
        assert.deepEqual(macBytes(macFromBytes(any)), any);
        assert.equal(mac(macFromBytes(any).toUpperCase()), macFromBytes(any));
      }),
    );
  });

  for (const text of [
    '',
    '02:00:00:00:00',
    '02:00:00:00:00:0a:0b',
    '2:0:0:0:0:a',
    '02-00-00-00-00-0a',
  ]) {
    it(`not '${text}'`, () => assert.throws(() => mac(text), TypeError));
  }

  it('have six bytes', () => assert.throws(() => macFromBytes(new Uint8Array(8)), TypeError));

  it('make identifiers: RFC 4291, appendix A', () => {
    const m = mac('34:56:78:9a:bc:de');
    assert.deepEqual([...interfaceIdentifier(m)], [0x36, 0x56, 0x78, 0xff, 0xfe, 0x9a, 0xbc, 0xde]);
    assert.equal(linkLocalAddress(m), 'fe80::3656:78ff:fe9a:bcde');
  });

  it('of groups: RFC 1112 drops a bit, RFC 2464 keeps four bytes', () => {
    assert.equal(multicastMac(address('224.128.1.2')), '01:00:5e:00:01:02');
    assert.equal(multicastMac(address('239.255.255.250')), '01:00:5e:7f:ff:fa');
    assert.equal(multicastMac(address('ff02::1:ffef:1234')), '33:33:ff:ef:12:34');
  });
});

describe('frames', () => {
  it('are read as written', () => {
    const anyMac = bytes(6).map(macFromBytes);
    fc.assert(
      fc.property(
        anyMac,
        anyMac,
        uint16,
        fc.uint8Array(),
        (source, destination, etherType, any) => {
          const frame = { destination, source, etherType, payload: any };
          const decoded = decodeFrame(encodeFrame(frame));
          assert.ok(!('error' in decoded));
          assert.deepEqual({ ...decoded, payload: Uint8Array.from(decoded.payload) }, frame);
        },
      ),
    );
  });

  it('shorter than a header are none', () => {
    assert.deepEqual(decodeFrame(new Uint8Array(13)), { error: 'Ethernet frame of 13 bytes' });
  });
});
