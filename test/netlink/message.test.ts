import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  attribute,
  attributeNumber,
  attributeText,
  CONTROL,
  decodeAttributes,
  decodeError,
  decodeMessages,
  encodeMessage,
  FLAG,
  numbered,
} from '../../src/netlink/message.js';

const payload = fc.uint8Array({ maxLength: 200 });

describe('netlink message', () => {
  it('is decoded as it was encoded', () => {
    fc.assert(
      fc.property(fc.nat(0xffff), fc.nat(0xffff), fc.nat(), payload, (type, flags, n, body) => {
        const padded = body.subarray(0, body.length & ~3);
        const [decoded] = listOf(decodeMessages(numbered(encodeMessage(type, flags, [padded]), n)));
        assert.deepEqual(
          { ...decoded, payload: [...(decoded?.payload ?? [])] },
          { type, flags, sequence: n, port: 0, payload: [...padded] },
        );
      }),
    );
  });

  it('follows another in one datagram', () => {
    const bytes = Buffer.concat([
      encodeMessage(16, 0, [Uint8Array.of(1, 2, 3, 4)]),
      encodeMessage(17, 0, [Uint8Array.of(5)]),
    ]);
    assert.deepEqual(
      listOf(decodeMessages(bytes)).map((m) => [m.type, m.payload[0]]),
      [
        [16, 1],
        [17, 5],
      ],
    );
  });

  for (const [what, length] of [
    ['zero', 0],
    ['less than a header', 15],
    ['more than there is', 21],
    ['the largest there is', 0xffffffff],
  ] as const) {
    it(`that says it has ${what} is an error`, () => {
      const bytes = encodeMessage(16, 0, [new Uint8Array(4)]);
      new DataView(bytes.buffer).setUint32(0, length, true);
      assert.ok('error' in decodeMessages(bytes));
    });
  }

  it('made of any bytes is messages or an error, never an exception', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const decoded = decodeMessages(bytes);
        if ('error' in decoded) return;
        for (const message of decoded) {
          decodeAttributes(message.payload);
          decodeError(message);
        }
      }),
    );
  });

  it('with one byte changed is messages or an error, never an exception', () => {
    const whole = encodeMessage(16, 0, [new Uint8Array(16), attribute(3, 'eth0')]);
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), (at, value) => {
        const broken = whole.slice();
        broken[at] = value;
        const decoded = decodeMessages(broken);
        if ('error' in decoded) return;
        for (const message of decoded) decodeAttributes(message.payload.subarray(16));
      }),
    );
  });
});

describe('netlink attributes', () => {
  it('are decoded as they were encoded', () => {
    const bytes = Buffer.concat([
      attribute(1, 0xdeadbeef),
      attribute(8, [attribute(10, 1)]),
      attribute(3, 'eth0'),
    ]);
    const found = decodeAttributes(bytes);
    assert.equal(attributeNumber(found?.get(1)), 0xdeadbeef);
    assert.equal(attributeText(found?.get(3) ?? new Uint8Array()), 'eth0');
    const nested = decodeAttributes(found?.get(8) ?? new Uint8Array());
    assert.equal(attributeNumber(nested?.get(10)), 1);
  });

  it('that lie about their length are refused', () => {
    for (const length of [0, 3, 9, 0xffff]) {
      const bytes = attribute(1, 7);
      new DataView(bytes.buffer).setUint16(0, length, true);
      assert.equal(decodeAttributes(bytes), undefined, `length ${length}`);
    }
  });

  it('that are too short for a number are none', () => {
    assert.equal(attributeNumber(Uint8Array.of(1, 2, 3)), undefined);
    assert.equal(attributeNumber(undefined), undefined);
  });
});

describe('netlink error', () => {
  const error = (flags: number, parts: Uint8Array[]) => {
    const [message] = listOf(decodeMessages(encodeMessage(CONTROL.ERROR, flags, parts)));
    assert.ok(message);
    return decodeError(message);
  };
  const minusTwo = new Uint8Array(Int32Array.of(-2).buffer);
  const request = encodeMessage(24, 0, [Uint8Array.of(1, 2, 3, 4)]);
  const words = attribute(1, 'no such table');

  it('carries the errno', () => {
    assert.deepEqual(error(0, [minusTwo, request]), { errno: 2 });
  });

  it('carries the words of the kernel behind the whole request', () => {
    const bytes = [minusTwo, request, words];
    assert.deepEqual(error(FLAG.ACK_TLVS, bytes), { errno: 2, text: 'no such table' });
  });

  it('carries the words of the kernel behind the header of the request', () => {
    const bytes = [minusTwo, request.subarray(0, 16), words];
    const flags = FLAG.ACK_TLVS | FLAG.CAPPED;
    assert.deepEqual(error(flags, bytes), { errno: 2, text: 'no such table' });
  });

  it('without payload is an acknowledgement', () => {
    assert.deepEqual(error(0, []), { errno: 0 });
  });
});

function listOf<T>(decoded: T[] | { error: string }): T[] {
  assert.ok(!('error' in decoded), 'error' in decoded ? decoded.error : '');
  return decoded;
}
