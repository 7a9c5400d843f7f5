/**
 * The pure half of the lab: the fates that a seed deals out, and the pattern of the streams.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Fate, parseImpairment } from '../../src/lab/impairment.js';
import { Pattern } from '../../src/lab/programs/pattern.js';
import { runs } from '../whole.js';

const fates = (text: string, seed: number, count: number): number[][] => {
  const fate = new Fate(parseImpairment(text), seed);
  return Array.from({ length: count }, () => fate.next());
};

test('the same seed deals the same fates', () => {
  const text = 'delay=10ms,jitter=5ms,loss=10%,reorder=10%,duplicate=10%';
  fc.assert(
    fc.property(fc.nat(), (seed) => {
      assert.deepEqual(fates(text, seed, 50), fates(text, seed, 50));
    }),
  );
});

test('rates are what was asked for', () => {
  const dealt = fates('delay=10ms,loss=5%,duplicate=20%', 1, 20_000);
  const share = (length: number): number =>
    dealt.filter((delays) => delays.length === length).length / dealt.length;
  assert.ok(Math.abs(share(0) - 0.05) < 0.01, `lost ${share(0)}`);
  assert.ok(Math.abs(share(2) - 0.95 * 0.2) < 0.015, `twice ${share(2)}`);
  assert.ok(dealt.flat().every((delay) => delay === 10));
});

test('a fate tells what has made it', () => {
  const fate = new Fate(parseImpairment('delay=10ms,loss=5%,reorder=5%,duplicate=5%'), 1);
  assert.deepEqual(fate.causes([]), ['loss']);
  assert.deepEqual(fate.causes([10]), ['delayMs']);
  assert.deepEqual(fate.causes([10, 15]), ['duplicate', 'delayMs', 'reorder']);
  assert.deepEqual(new Fate(parseImpairment(''), 1).causes([0]), []);
});

test('nothing asked for, nothing done', () => {
  assert.deepEqual(fates('', 1, 3), [[0], [0], [0]]);
});

test('what cannot be understood is named', () => {
  for (const text of ['delay=10', 'loss=5', 'delay=5%', 'speed=1ms', 'delay=-1ms', 'loss']) {
    assert.throws(() => parseImpairment(text), new RegExp(`"${text}" is not one of`));
  }
});

test('a stream in any pieces is right; any single wrong byte is found where it is', () => {
  const pattern = new Pattern('to-server');
  fc.assert(
    fc.property(
      fc.nat(1 << 30),
      fc.integer({ min: 1, max: 200_000 }),
      fc.nat(),
      (at, length, w) => {
        const bytes = Buffer.concat(piecesOf(pattern, at, length));
        assert.equal(pattern.firstWrong(at, bytes), -1);
        const wrong = w % length;
        bytes.writeUInt8(bytes.readUInt8(wrong) ^ 1, wrong);
        assert.equal(pattern.firstWrong(at, bytes), at + wrong);
      },
    ),
    { numRuns: runs(50) },
  );
});

test('the two directions differ, and a shift shows', () => {
  const [there, back] = [new Pattern('to-server'), new Pattern('to-client')];
  const piece = Buffer.from(there.piece(0, 1000));
  assert.notEqual(back.firstWrong(0, piece), -1);
  assert.notEqual(there.firstWrong(1, piece), -1);
});

function piecesOf(pattern: Pattern, at: number, length: number): Buffer[] {
  const pieces: Buffer[] = [];
  for (let done = 0; done < length; ) {
    const piece = pattern.piece(at + done, length - done);
    pieces.push(piece);
    done += piece.length;
  }
  return pieces;
}
