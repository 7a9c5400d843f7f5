/* What routers quote of a packet that died at them. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { address, addressBytes } from '../../src/wire/address.js';
import { parseIcmpError } from '../../src/wire/icmp-error.js';
import { parsePacketLine } from '../../src/wire/notation.js';
import { encodePacket } from '../../src/wire/packet.js';

const OPEN = 'ti-open 0a0b0c0d key 0102030405060708';
const LINE = `S  7:7(0) win 64240 <mss 1460,${OPEN}>`;
const ENDS = {
  4: { source: address('203.0.113.7'), destination: address('192.0.2.10') },
  6: { source: address('2001:db8::7'), destination: address('2001:db8::10') },
};

const packet = (version: 4 | 6): Uint8Array =>
  encodePacket(parsePacketLine(LINE, { ...ENDS[version], sourcePort: 40000, destinationPort: 22 }));

const message = (type: number, code: number, quote: Uint8Array): Uint8Array =>
  Uint8Array.of(type, code, 0, 0, 0, 0, 0, 0, ...quote);

for (const version of [4, 6] as const) {
  describe(`IPv${version}`, () => {
    const [unreachable, exceeded] = version === 4 ? [3, 11] : [1, 3];
    const ipBytes = version === 4 ? 20 : 40;

    test('a whole quote: which packet, and its options', () => {
      const error = parseIcmpError(version, message(exceeded, 0, packet(version)));
      assert.equal(error?.kind, 'time-exceeded');
      const { options, ...quoted } = error?.quoted ?? {};
      assert.deepEqual(quoted, {
        destination: Uint8Array.from(addressBytes(ENDS[version].destination)),
        ...{ sourcePort: 40000, destinationPort: 22, seq: 7 },
      });
      assert.deepEqual(
        options?.map((option) => option.kind),
        ['mss', 'ti-open'],
      );
    });

    test('RFC 4884: padding and extensions behind the quote are not part of it', () => {
      const padding = new Uint8Array(128).fill(0xfd);
      const error = parseIcmpError(
        version,
        message(exceeded, 0, Uint8Array.of(...packet(version), ...padding)),
      );
      assert.deepEqual(
        error?.quoted.options?.map((option) => option.kind),
        ['mss', 'ti-open'],
      );
    });

    test('eight bytes of TCP say which packet, and nothing about options', () => {
      const quote = packet(version).subarray(0, ipBytes + 8);
      const error = parseIcmpError(version, message(unreachable, 1, quote));
      assert.equal(error?.kind, 'unreachable');
      assert.equal(error?.quoted.seq, 7);
      assert.equal(error?.quoted.options, undefined);
    });

    test('less, another protocol, another message: none of ours', () => {
      const quote = packet(version);
      const udp = Uint8Array.from(quote);
      udp[version === 4 ? 9 : 6] = 17;
      for (const bytes of [
        message(exceeded, 0, quote.subarray(0, ipBytes + 7)),
        message(exceeded, 0, udp),
        message(version === 4 ? 8 : 128, 0, quote),
        new Uint8Array(0),
      ]) {
        assert.equal(parseIcmpError(version, bytes), undefined);
      }
    });

    test('anything at all: never throws', () => {
      const any = fc.uint8Array({ maxLength: 120 });
      const head = fc.constantFrom(unreachable, exceeded);
      fc.assert(
        fc.property(head, any, fc.nat(60), (type, bytes, kept) => {
          parseIcmpError(version, message(type, 0, bytes));
          const begun = packet(version).subarray(0, kept);
          parseIcmpError(version, message(type, 0, Uint8Array.of(...begun, ...bytes)));
        }),
      );
    });
  });
}
