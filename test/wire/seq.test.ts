/* Sequence arithmetic around 2^32, against arithmetic on integers that do not wrap. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  seq,
  seqAdd,
  seqAfter,
  seqBefore,
  seqDiff,
  seqMax,
  seqWithin,
} from '../../src/wire/seq.js';
import { anySeq } from './arbitrary.js';

const half = fc.integer({ min: -(2 ** 31) + 1, max: 2 ** 31 - 1 });

test('a number is taken modulo 2^32', () => {
  assert.equal(seq(-1), 0xffffffff);
  assert.equal(seq(2 ** 32 + 5), 5);
  assert.equal(seqAdd(seq(0xffffffff), 2), 1);
});

test('the difference undoes the addition, on either side of the wrap', () => {
  fc.assert(fc.property(anySeq, half, (a, n) => seqDiff(seqAdd(a, n), a) === n));
});

test('before, after and max agree with the distance', () => {
  fc.assert(
    fc.property(anySeq, half, (a, n) => {
      const b = seqAdd(a, n);
      assert.equal(seqAfter(b, a), n > 0);
      assert.equal(seqBefore(b, a), n < 0);
      assert.equal(seqMax(a, b), n > 0 ? b : a);
    }),
  );
});

test('within includes both ends and crosses 2^32', () => {
  const low = seq(0xfffffff0);
  const high = seq(0x10);
  for (const a of [0xfffffff0, 0xffffffff, 0, 0x10]) assert.ok(seqWithin(seq(a), low, high));
  for (const a of [0xffffffef, 0x11, 0x80000000]) assert.ok(!seqWithin(seq(a), low, high));
});

test('within is the same wherever the range lies', () => {
  const length = fc.nat(1000);
  fc.assert(
    fc.property(anySeq, length, length, (low, offset, size) => {
      const inside = seqWithin(seqAdd(low, offset), low, seqAdd(low, size));
      assert.equal(inside, offset <= size);
    }),
  );
});
