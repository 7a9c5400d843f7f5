/* The probe's SYNs, whole, and what is an answer to one. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answerIn } from '../../src/probe/answer.js';
import {
  type Ends,
  kernelOptions,
  optionBytes,
  padded,
  resetOf,
  strangeSync,
  syn,
  tiOpen,
} from '../../src/probe/segments.js';
import { address } from '../../src/wire/address.js';
import { formatPacket, parsePacketLine } from '../../src/wire/notation.js';
import { decodePacket, encodePacket } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';

const ENDS: Ends = {
  ...{ source: address('203.0.113.7'), sourcePort: 40000 },
  ...{ destination: address('192.0.2.10'), destinationPort: 22 },
};
const BACK: Ends = {
  ...{ source: ENDS.destination, sourcePort: ENDS.destinationPort },
  ...{ destination: ENDS.source, destinationPort: ENDS.sourcePort },
};
const KERNEL = { mss: 1460, timestamps: true, sack: true, wscale: true };
/* 1, 2, 3 ... wherever randomness is asked for. */
const counting = (bytes: number): Uint8Array => Uint8Array.from({ length: bytes }, (_, i) => i + 1);
const ORDINARY = kernelOptions(KERNEL, counting);
const ORDINARY_TEXT = 'mss 1460,sackOK,TS val 16909060 ecr 0,nop,wscale 7';

test('the three SYNs, as they are on the wire', () => {
  const lines = [
    [...ORDINARY, tiOpen(0, counting)],
    padded(ORDINARY),
    strangeSync(KERNEL, counting),
  ].map((options) => {
    const packet = decodePacket(encodePacket(syn(ENDS, seq(1000), options)));
    return 'error' in packet ? packet.error : formatPacket(packet);
  });
  assert.deepEqual(lines, [
    `S  1000:1000(0) win 64240 <${ORDINARY_TEXT},ti-open 01020304 key 0102030405060708>`,
    `S  1000:1000(0) win 64240 <${ORDINARY_TEXT},nop,nop,nop,nop>`,
    'S  1000:1000(0) win 64240 <mss 1460,sackOK,wscale 7,ti-sync 0102030401020304 epoch 1 tiack 0' +
      ' nonce 01020304 mac 0102030405060708>',
  ]);
});

test('a SYN of fewer options is padded as well: our boundary must find no room', () => {
  for (const without of [{ timestamps: false }, { sack: false }, { wscale: false }]) {
    const options = padded(kernelOptions({ ...KERNEL, ...without }, counting));
    assert.equal(optionBytes(options), 24);
    // PROTOCOL.md, section 4.4: fewer would be squeezed out.
    assert.ok(options.slice(-4).every(({ kind }) => kind === 'nop'));
  }
});

const OPEN = 'ti-open 0a0b0c0d key-id 7 key 1112131415161718';
const ASKED = syn(ENDS, seq(0xffffffff), [...ORDINARY, tiOpen(0, counting)]);
const ROWS: Array<[line: string, answer: object | undefined]> = [
  [
    `SA 9:9(0) ack 0 win 65160 <${ORDINARY_TEXT},${OPEN}>`,
    { kind: 'syn-ack', open: 'own', keyId: 7, optionBytes: 20, ms: 5 },
  ],
  [
    'SA 9:9(0) ack 0 win 65160 <mss 1460,nop,wscale 7>',
    { kind: 'syn-ack', open: 'none', keyId: 0, optionBytes: 8, ms: 5 },
  ],
  [
    'SA 9:9(0) ack 0 win 65160 <mss 1460,ti-open 01020304 key 0102030405060708>',
    { kind: 'syn-ack', open: 'reflected', keyId: 0, optionBytes: 4, ms: 5 },
  ],
  ['RA 0:0(0) ack 0 win 0', { kind: 'reset', ms: 5 }],
  // Of another connection, or forged: whoever guesses has to guess 32 bits.
  ['SA 9:9(0) ack 1 win 65160', undefined],
  ['RA 0:0(0) ack 1 win 0', undefined],
  ['R  0:0(0) win 0', undefined],
  ['A  9:9(0) ack 0 win 100', undefined],
];
for (const [line, answer] of ROWS) {
  test(`${line}: ${answer === undefined ? 'no answer' : JSON.stringify(answer)}`, () => {
    assert.deepEqual(answerIn(ASKED, parsePacketLine(line, BACK), 5), answer);
  });
}

test('the reset is at the number that the far end expects', () => {
  assert.equal(formatPacket(resetOf({ ...ASKED, hopLimit: 3 })), 'R  0:0(0) win 0');
  assert.equal(resetOf({ ...ASKED, hopLimit: 3 }).hopLimit, 64);
});
