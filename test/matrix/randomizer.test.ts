/* The box that rewrites sequence numbers: whole packet in, whole packet out. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type IsnMode, Randomizer, type Side } from '../../src/lab/randomizer.js';
import { address } from '../../src/wire/address.js';
import { formatPacket, parsePacketLine } from '../../src/wire/notation.js';
import { checksumsAreRight, decodePacket, encodePacket } from '../../src/wire/packet.js';

const ENDS = {
  4: { a: address('203.0.113.7'), b: address('192.0.2.10') },
  6: { a: address('2001:db8:a::7'), b: address('2001:db8:1::10') },
} as const;
const PORTS = { a: 40_000, b: 22 } as const;
/* Of the first connection, then of the second; one of them crosses 2^32. */
const DELTAS = [1000, 0xffff_fff0, 7000, 9000];

function box(mode: IsnMode, family: 4 | 6) {
  const deltas = [...DELTAS];
  const randomizer = new Randomizer(mode, () => deltas.shift() ?? 0);
  /** What becomes of a packet from that side, as a line; its checksums must be right. */
  return (from: Side, line: string): string => {
    const to = from === 'a' ? 'b' : 'a';
    const bytes = encodePacket(
      parsePacketLine(line, {
        ...{ source: ENDS[family][from], sourcePort: PORTS[from] },
        ...{ destination: ENDS[family][to], destinationPort: PORTS[to] },
      }),
    );
    const frame = Buffer.alloc(14 + bytes.length);
    frame.writeUInt16BE(family === 4 ? 0x0800 : 0x86dd, 12);
    frame.set(bytes, 14);
    randomizer.rewrite(frame, from);
    const ip = frame.subarray(14);
    assert.ok(checksumsAreRight(ip), line);
    const packet = decodePacket(ip);
    assert.ok(!('error' in packet));
    return formatPacket(packet);
  };
}

const CONNECTION: Array<[Side, string, string]> = [
  ['a', 'S  100:100(0) win 65535 <mss 1460,sackOK>', 'S  1100:1100(0) win 65535 <mss 1460,sackOK>'],
  ['b', 'SA 500:500(0) ack 1101 win 500 <mss 1460>', 'SA 484:484(0) ack 101 win 500 <mss 1460>'],
  ['a', 'A  101:101(0) ack 485 win 500', 'A  1101:1101(0) ack 501 win 500'],
  ['a', 'PA 101:108(7) ack 485 win 500', 'PA 1101:1108(7) ack 501 win 500'],
  ['b', 'R  501:501(0) win 0', 'R  485:485(0) win 0'],
];

for (const family of [4, 6] as const) {
  describe(`IPv${family}`, () => {
    test('a connection, both directions', () => {
      const rewrite = box('rewritten', family);
      for (const [from, before, after] of CONNECTION) assert.equal(rewrite(from, before), after);
    });

    test('SACK blocks follow, or are forgotten', () => {
      const sack = 'A  501:501(0) ack 1101 win 500 <nop,nop,sack 1200:1300 1400:1500>';
      for (const [mode, edges] of [
        ['rewritten', '200:300 400:500'],
        ['sack-forgotten', '1200:1300 1400:1500'],
      ] as const) {
        const rewrite = box(mode, family);
        rewrite('a', CONNECTION[0]?.[1] ?? '');
        assert.equal(
          rewrite('b', sack),
          `A  485:485(0) ack 101 win 500 <nop,nop,sack ${edges}>`,
          mode,
        );
      }
    });

    test('the same SYN again is the same connection, another is another', () => {
      const rewrite = box('rewritten', family);
      for (let i = 0; i < 2; i++) {
        assert.equal(rewrite('a', 'S  100:100(0) win 500'), 'S  1100:1100(0) win 500');
      }
      assert.equal(rewrite('a', 'S  101:101(0) win 500'), 'S  7101:7101(0) win 500');
    });

    test('a connection whose SYN did not pass is left alone', () => {
      const line = 'PA 101:108(7) ack 485 win 500';
      assert.equal(box('rewritten', family)('a', line), line);
    });
  });
}

test('what is no TCP segment stays as it is', () => {
  const frames = ['', '08', `${'00'.repeat(12)}0806${'01'.repeat(46)}`];
  // IPv4 that claims to be longer than the frame; a fragment.
  frames.push(`${'00'.repeat(12)}080045000100${'00'.repeat(5)}06${'00'.repeat(50)}`);
  frames.push(`${'00'.repeat(12)}08004500003c00002001${'4006'}${'00'.repeat(50)}`);
  for (const hex of frames) {
    const frame = Buffer.from(hex, 'hex');
    const randomizer = new Randomizer('rewritten', () => 1);
    randomizer.rewrite(frame, 'a');
    assert.equal(frame.toString('hex'), hex);
  }
});
