/* Packet lines: what STYLE.md and PROTOCOL.md write, and back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { address } from '../../src/wire/address.js';
import { formatPacket, type PacketDefaults, parsePacketLine } from '../../src/wire/notation.js';
import { seq } from '../../src/wire/seq.js';
import { anyPacket, anySeq } from './arbitrary.js';

const DEFAULTS: PacketDefaults = {
  source: address('192.0.2.10'),
  sourcePort: 22,
  destination: address('203.0.113.7'),
  destinationPort: 40000,
};

const LINES = [
  'S  0:0(0) win 65535 <mss 1460,sackOK,ti-open 0a0b0c0d>',
  'S  0:0(0) win 65535 <ti-open 0a0b0c0d key 0102030405060708 key-id 7 flags 1 reserved 2>',
  'SA 5:5(0) ack 1 win 65535 <mss 1460,nop,wscale 7>',
  'A  1:1(0) ack 1 win 512',
  'PA 1:101(100) ack 1 win 512 <nop,nop,TS val 100 ecr 200>',
  'A  1:1(0) ack 1 win 0 <nop,nop,sack 11:21 4294967290:5>',
  'A  4294967295:9(10) ack 4294967295 win 1',
  'FA 1:1(0) ack 1 win 1',
  'R  7:7(0) win 0 <ti-rst reason 1 epoch 2 mac 0102030405060708>',
  'S  0:0(0) win 1 <ti-sync 0a0b0c0d1a1b1c1d epoch 1 tiack 9 nonce 5e5f6061 mac 0102030405060708>',
  `SA 0:0(0) ack 1 win 1 <ti-sync-ack epoch 1 tiack 9 nonce 5e5f6061 mac ${'0a'.repeat(16)}>`,
  `A  1:1(0) ack 1 win 1 <ti-confirm epoch 65535 mac ${'0a'.repeat(16)}>`,
  'S  0:0(0) win 1 <kind-30 0102,kind-34>',
  '-  0:0(0) win 0',
  'SFRPAUEC 0:0(0) ack 0 win 0',
];

for (const line of LINES) {
  test(line, () => assert.equal(formatPacket(parsePacketLine(line, DEFAULTS)), line));
}

test('any packet goes through its line, relative to any base', () => {
  fc.assert(
    fc.property(anyPacket, anySeq, anySeq, (p, seqBase, ackBase) => {
      const base = { seq: seqBase, ack: ackBase };
      const fill = () => p.payload;
      const back = parsePacketLine(formatPacket(p, base), { ...p, base, fill });
      // Without the ACK flag the acknowledgement number means nothing and is not written.
      const ack = p.flags.includes('A') ? p.ack : 0;
      assert.deepEqual(back, { ...p, ack });
    }),
  );
});

test('numbers are relative to the base', () => {
  const base = { seq: seq(1000), ack: seq(2000) };
  const line = 'A  1:4(3) ack 1 win 1 <sack 5:9>';
  const p = parsePacketLine(line, { ...DEFAULTS, base });
  assert.deepEqual([p.seq, p.ack], [1001, 2001]);
  assert.deepEqual(p.options, [{ kind: 'sack', blocks: [[2005, 2009]] }]);
  assert.equal(formatPacket(p), 'A  1001:1004(3) ack 2001 win 1 <sack 2005:2009>');
  assert.equal(formatPacket(p, base), line);
});

test('the payload comes from where it lies in the stream', () => {
  const fill = (offset: number, length: number) => new Uint8Array(length).fill(offset);
  const p = parsePacketLine('PA 5:8(3) ack 1 win 1', { ...DEFAULTS, fill });
  assert.deepEqual(p.payload, Uint8Array.of(5, 5, 5));
});

const WRONG: [line: string, error: RegExp][] = [
  ['', /not a packet: ''/],
  ['S 0:0 win 1', /not a packet/],
  ['S 0:0(0)', /not a packet/],
  ['AS 0:0(0) ack 1 win 1', /in that order/],
  ['SS 0:0(0) win 1', /in that order/],
  ['X 0:0(0) win 1', /in that order/],
  ['S 0:0(0) ack 1 win 1', /ack without flag A/],
  ['A 0:0(0) win 1', /ack without flag A/],
  ['A 0:1(2) ack 1 win 1', /end is not start plus length/],
  ['A 0:99999(99999) ack 1 win 1', /length above 65535/],
  ['S 0:0(0) win 65536', /window above/],
  ...[
    ...['mss', 'mss 65536', 'mss 1 2', 'mss x', 'sackOK 1', 'wscale 256', 'TS val 1', 'foo'],
    ...['sack', 'sack 1', 'sack 1:2:3', 'kind-256', 'kind-1 0', 'nop 1', 'ti-open', 'ti-sync'],
    ...['ti-open 0a0b', 'ti-open 0a0b0c0d key 01', 'ti-open 0a0b0c0d colour 1', 'ti-foo epoch 1'],
    ...['ti-confirm epoch 1 mac 00', 'ti-confirm epoch 65536 mac 00', 'ti-open 0A0B0C0D'],
  ].map((option): [string, RegExp] => [`S 0:0(0) win 1 <${option}>`, /option '.*' in packet/]),
];

for (const [line, error] of WRONG) {
  test(`'${line}' is no packet`, () => {
    assert.throws(() => parsePacketLine(line, DEFAULTS), { name: 'SyntaxError', message: error });
  });
}
