/*
 * TIAck, epochs, bases and deltas: the arithmetic of a synchronization.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  epochAbove,
  epochIsNewer,
  mappingOf,
  placeTiack,
  tiackOf,
  tiackSeq,
} from '../../src/sync/handshake.js';
import { seq, seqAdd } from '../../src/wire/seq.js';
import { flows, MOVER_WIRE, PEER_WIRE } from './fixture.js';

const word = fc.integer({ min: 0, max: 0xffff_ffff });
const epoch = fc.integer({ min: 0, max: 0xffff });
const bytes = fc.integer({ min: 0, max: 0x3fff_ffff });

test('TIAck counts from the start of the flow, whatever the ISN', () => {
  fc.assert(
    fc.property(word, bytes, (irs, got) => {
      const { mover } = flows();
      mover.irs = seq(irs);
      mover.rcvNxt = seqAdd(seq(irs), 1 + got);
      assert.equal(tiackOf(mover), got);
    }),
  );
});

test('a TIAck is behind, within or beyond [SND.UNA, SND.NXT], across 2^32 too', () => {
  fc.assert(
    fc.property(word, bytes, bytes, fc.integer({ min: -5, max: 5 }), (iss, a, b, off) => {
      const { mover } = flows();
      const [acked, sent] = [Math.min(a, b), Math.max(a, b)];
      mover.iss = seq(iss);
      mover.sndUna = tiackSeq(mover, acked);
      mover.sndNxt = tiackSeq(mover, sent);
      const at = (tiack: number) => (tiack < acked ? 'behind' : tiack > sent ? 'beyond' : 'within');
      assert.equal(placeTiack(mover, seq(acked + off)), at(acked + off));
      assert.equal(placeTiack(mover, seq(sent + off)), at(sent + off));
    }),
  );
});

test('epochs are serial numbers: RFC 1982', () => {
  assert.ok(epochIsNewer(1, 0));
  assert.ok(epochIsNewer(0, 0xffff));
  assert.ok(epochIsNewer(0x7fff, 0));
  assert.ok(!epochIsNewer(0x8000, 0));
  assert.ok(!epochIsNewer(5, 5));
  fc.assert(
    fc.property(epoch, epoch, (a, b) => {
      assert.ok(!(epochIsNewer(a, b) && epochIsNewer(b, a)));
    }),
  );
});

test('the next epoch is above all that are taken, and never 0', () => {
  assert.equal(epochAbove([0]), 1);
  assert.equal(epochAbove([0xffff]), 1);
  assert.equal(epochAbove([0xffff, 3]), 4);
  assert.deepEqual(
    [epochAbove([3], 4), epochAbove([0xfffd], 4), epochAbove([0xfffc], 4)],
    [7, 1, 1],
  );
  const near = fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(epoch, near, (base, offsets) => {
      const taken = offsets.map((offset) => (base + offset) & 0xffff);
      const next = epochAbove(taken);
      assert.notEqual(next, 0);
      for (const other of taken) assert.ok(epochIsNewer(next, other));
    }),
  );
});

test('the two mappings of a handshake are mirror images, and begin at the TIAcks', () => {
  fc.assert(
    fc.property(word, word, word, word, bytes, bytes, (...drawn) => {
      const [issMover, issPeer, isnMover, isnPeer, tiackMover, tiackPeer] = drawn;
      const { mover, peer } = flows();
      mover.iss = peer.irs = seq(issMover);
      mover.irs = peer.iss = seq(issPeer);
      const m = mappingOf(mover, {
        wire: MOVER_WIRE,
        isn: { ours: seq(isnMover), theirs: seq(isnPeer) },
        tiack: { sent: tiackMover, received: tiackPeer },
        redirect: true,
      });
      const p = mappingOf(peer, {
        wire: PEER_WIRE,
        isn: { ours: seq(isnPeer), theirs: seq(isnMover) },
        tiack: { sent: tiackPeer, received: tiackMover },
        redirect: false,
      });
      assert.equal(m.sndDelta, p.rcvDelta);
      assert.equal(m.rcvDelta, p.sndDelta);
      assert.equal(m.sndBase, p.rcvBase);
      assert.equal(m.rcvBase, p.sndBase);
      assert.equal(seqAdd(m.sndBase, m.sndDelta), seq(isnMover + 1), 'no hole after the SYN');
      assert.equal(seqAdd(p.sndBase, p.sndDelta), seq(isnPeer + 1));
      assert.equal(m.sndBase, seq(issMover + 1 + tiackPeer));
      assert.deepEqual([m.redirect, p.redirect], [1, 0]);
    }),
  );
});
