/* TCP options: round trip, and the ugly half: lengths that lie, a full header, wrong shapes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeOptions, encodeOption, type TcpOption } from '../../src/wire/option.js';
import { seq } from '../../src/wire/seq.js';
import { runs } from '../whole.js';
import { anyOption, tiOption } from './arbitrary.js';

const of = (hex: string): Uint8Array =>
  Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

test('every option that has a length survives the round trip', () => {
  fc.assert(
    fc.property(anyOption, (option) => {
      assert.deepEqual(decodeOptions(encodeOption(option), 'A'), [option]);
    }),
  );
});

for (const flags of ['S', 'SA', 'A', 'PA', 'FA', 'R', 'RA']) {
  test(`our own options survive the round trip on ${flags}`, () => {
    const ours = tiOption(flags);
    assert.ok(ours);
    fc.assert(
      fc.property(ours, (option) => {
        assert.deepEqual(decodeOptions(encodeOption(option), flags), [option]);
      }),
    );
  });
}

const ERRORS: [name: string, hex: string, error: string][] = [
  ['length 0', '02 00 05b4', 'option 2 has length 0'],
  ['length 1', '02 01 05b4', 'option 2 has length 1'],
  ['one byte too long', '02 05 05b4', 'option 2 ends behind the header'],
  ['length 255', '1e ff 0000', 'option 30 ends behind the header'],
  ['a kind without a length', '01 01 01 08', 'option 8 has no length'],
  ['TI_OPEN, length 0', 'fd 00 5449 10', 'option 253 has length 0'],
  ['TI_OPEN cut off', 'fd 14 5449 10 000000', 'option 253 ends behind the header'],
  ['a lie behind a good option', '020405b4 0300 0000', 'option 3 has length 0'],
];

for (const [name, hex, error] of ERRORS) {
  test(`${name}: the list means nothing`, () => {
    assert.deepEqual(decodeOptions(of(hex), 'S'), { error });
  });
}

const body = (length: number): string => '00'.repeat(length);

/** Well delimited, but not of a shape that we know: kept verbatim, not an error. */
const UNKNOWN: [name: string, flags: string, hex: string][] = [
  ['MSS of 3 bytes', 'S', '0203 05'],
  ['window scale of 2 bytes', 'S', '0302'],
  ['SACK permitted of 3 bytes', 'S', '0403 00'],
  ['SACK without a block', 'A', '0502'],
  ['SACK of one block and a half', 'A', `050e ${body(12)}`],
  ['timestamps of 9 bytes', 'S', `0809 ${body(7)}`],
  ['another ExID', 'S', `fd14 f989 10 ${body(15)}`],
  ['253 without an ExID', 'S', 'fd02'],
  ['253 with half an ExID', 'S', 'fd03 54'],
  ['version 2', 'S', `fd14 5449 20 ${body(15)}`],
  ['subtype 15', 'S', `fd14 5449 1f ${body(15)}`],
  ['TI_OPEN of 19 bytes', 'S', `fd13 5449 10 ${body(14)}`],
  ['TI_OPEN of 21 bytes', 'S', `fd15 5449 10 ${body(16)}`],
  ['TI_OPEN on a pure ACK', 'A', `fd14 5449 10 ${body(15)}`],
  ['TI_SYNC of 30 bytes', 'S', `fd1e 5449 11 ${body(25)}`],
  ['TI_SYNC on a pure ACK', 'A', `fd1f 5449 11 ${body(26)}`],
  ['TI_CONFIRM of 24 bytes', 'A', `fd18 5449 12 ${body(19)}`],
  ['TI_CONFIRM on a SYN/ACK', 'SA', `fd17 5449 12 ${body(18)}`],
  ['TI_CONFIRM on a RST', 'RA', `fd17 5449 12 ${body(18)}`],
  ['TI_RST on an ACK', 'A', `fd10 5449 13 ${body(11)}`],
  ['TI_RST of 15 bytes', 'R', `fd0f 5449 13 ${body(10)}`],
];

for (const [name, flags, hex] of UNKNOWN) {
  test(`${name} is skipped and kept`, () => {
    const bytes = of(hex);
    const option: TcpOption = { kind: 'unknown', number: bytes[0] ?? 0, bytes: bytes.slice(2) };
    assert.deepEqual(decodeOptions(bytes, flags), [option]);
    assert.equal(hexOf(encodeOption(option)), hexOf(bytes));
  });
}

test('no bytes, no options', () => assert.deepEqual(decodeOptions(of(''), 'S'), []));

test('nothing is read behind the end of the list', () => {
  assert.deepEqual(decodeOptions(of('01 00 0200'), 'S'), [{ kind: 'nop' }]);
});

test('40 full bytes: four SACK blocks and timestamps do not fit, three do', () => {
  const sack: TcpOption = {
    kind: 'sack',
    blocks: [
      [seq(1), seq(2)],
      [seq(3), seq(4)],
      [seq(5), seq(6)],
    ],
  };
  const stamps: TcpOption = { kind: 'timestamps', value: 1, echo: 2 };
  const nop: TcpOption = { kind: 'nop' };
  const list = [nop, nop, stamps, nop, nop, sack];
  const bytes = Buffer.concat(list.map(encodeOption));
  assert.equal(bytes.length, 40);
  assert.deepEqual(decodeOptions(bytes, 'A'), list);
});

test('a SACK block across 2^32 keeps its edges', () => {
  const option: TcpOption = { kind: 'sack', blocks: [[seq(0xfffffff0), seq(0x10)]] };
  assert.equal(hexOf(encodeOption(option)), '050afffffff000000010');
  assert.deepEqual(decodeOptions(encodeOption(option), 'A'), [option]);
});

test('TI_SYNC on a SYN and on a SYN/ACK are two options of one length', () => {
  const bytes = of(`fd1f 5449 11 ${body(26)}`);
  const kinds = (flags: string) => {
    const options = decodeOptions(bytes, flags);
    return 'error' in options ? options : options.map((option) => option.kind);
  };
  assert.deepEqual(kinds('S'), ['ti-sync']);
  assert.deepEqual(kinds('SA'), ['ti-sync-ack']);
});

test('what is decoded does not change with the buffer it came from', () => {
  const bytes = encodeOption({ kind: 'ti-confirm', epoch: 1, mac: new Uint8Array(16).fill(7) });
  const options = decodeOptions(bytes, 'A');
  bytes.fill(0);
  assert.deepEqual(options, [{ kind: 'ti-confirm', epoch: 1, mac: new Uint8Array(16).fill(7) }]);
});

test('what is no option is not encoded', () => {
  const short = new Uint8Array(15);
  assert.throws(() => encodeOption({ kind: 'ti-confirm', epoch: 1, mac: short }), RangeError);
  for (const number of [0, 1, 256]) {
    const bytes = new Uint8Array(0);
    assert.throws(() => encodeOption({ kind: 'unknown', number, bytes }), RangeError);
  }
  const long = new Uint8Array(39);
  assert.throws(() => encodeOption({ kind: 'unknown', number: 30, bytes: long }), RangeError);
});

test('decoding never throws', () => {
  const flags = fc.constantFrom('', 'S', 'SA', 'A', 'R', 'SR');
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), flags, (bytes, f) => {
      decodeOptions(bytes, f);
    }),
    { numRuns: runs(2000) },
  );
});
