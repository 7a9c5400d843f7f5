/* Addresses: one text for one address (RFC 5952), IPv4 in its mapped form and back. */
import assert from 'node:assert/strict';
import { isIPv4, isIPv6 } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  address,
  addressBytes,
  addressFromBytes,
  addressMapped,
  family,
  isUnicast,
} from '../../src/wire/address.js';
import { tupleEqual, tupleReverse, tupleText } from '../../src/wire/tuple.js';
import { runs } from '../whole.js';
import { address4, address6 } from './arbitrary.js';

const anyAddress = fc.oneof(address4, address6);

const CANONICAL: [given: string, canonical: string][] = [
  ['192.0.2.10', '192.0.2.10'],
  ['0.0.0.0', '0.0.0.0'],
  ['::', '::'],
  ['::1', '::1'],
  ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
  ['2001:db8::0:1', '2001:db8::1'],
  ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'], // one group of zeros is not shortened
  ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'], // the longest run
  ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'], // the first of two equal runs
  ['fe80::', 'fe80::'],
  ['64:ff9b::192.0.2.1', '64:ff9b::c000:201'],
  ['::ffff:192.0.2.10', '192.0.2.10'],
];

for (const [given, canonical] of CANONICAL) {
  test(`${given} is ${canonical}`, () => assert.equal(address(given), canonical));
}

const NONE = [
  ...['', '1.2.3', '1.2.3.4.5', '256.1.1.1', '01.2.3.4', '1.2.3.-4', ' 1.2.3.4', '1.2.3.4/24'],
  ...[
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '12345::',
    '::g',
    '1:2:3:4:5:6:7::8',
  ],
  ...[
    'fe80::1%eth0',
    '::1.2.3',
    '1.2.3.4::',
    '::1.2.3.4:5',
    '[::1]',
    ':1:2:3:4:5:6:7',
    'localhost',
  ],
];

for (const text of NONE) {
  test(`'${text}' is no address`, () =>
    assert.throws(() => address(text), { name: 'TypeError', message: /not an IP address/ }));
}

test('what is accepted is what the platform accepts, zones aside', () => {
  const almost = fc.string({ unit: fc.constantFrom(...'0123456789abf:.'), maxLength: 20 });
  fc.assert(
    fc.property(almost, (text) => {
      const accepted = isIPv4(text) || isIPv6(text);
      if (accepted) address(text);
      else assert.throws(() => address(text));
    }),
    { numRuns: runs(2000) },
  );
});

test('bytes and text are two forms of the same', () => {
  fc.assert(
    fc.property(anyAddress, (a) => {
      assert.equal(addressFromBytes(addressBytes(a)), a);
      assert.equal(addressFromBytes(addressMapped(a)), a);
      assert.equal(address(a), a);
      assert.equal(addressBytes(a).length, family(a) === 4 ? 4 : 16);
      assert.equal(addressMapped(a).length, 16);
    }),
  );
});

test('an address has 4 or 16 bytes', () => {
  assert.throws(() => addressFromBytes(new Uint8Array(5)), TypeError);
});

test('a tuple reads local > remote, IPv6 in brackets', () => {
  const t = {
    local: address('192.0.2.10'),
    localPort: 22,
    remote: address('203.0.113.7'),
    remotePort: 40000,
  };
  assert.equal(tupleText(t), '192.0.2.10:22 > 203.0.113.7:40000');
  assert.equal(tupleText(tupleReverse(t)), '203.0.113.7:40000 > 192.0.2.10:22');
  assert.equal(
    tupleText({ ...t, local: address('2001:db8::1'), remote: address('2001:db8::2') }),
    '[2001:db8::1]:22 > [2001:db8::2]:40000',
  );
  assert.ok(tupleEqual(tupleReverse(tupleReverse(t)), t));
  assert.ok(!tupleEqual(tupleReverse(t), t));
  assert.ok(!tupleEqual({ ...t, remotePort: 40001 }, t));
});

test('what can be one host on a network', () => {
  for (const a of ['192.0.2.1', '10.0.0.1', '169.254.1.1', '2001:db8::1', 'fe80::1', '::2'])
    assert.ok(isUnicast(address(a)), a);
  const nobody = ['0.0.0.0', '0.1.2.3', '127.0.0.1', '224.0.0.1', '240.0.0.1', '255.255.255.255'];
  for (const a of [...nobody, '::', '::1', 'ff02::1']) assert.ok(!isUnicast(address(a)), a);
});
