/*
 * The small parts of the agent: which candidate has to go, how often garbage is answered, which
 * port a wire gets, whose keys are kept.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CandidateTable } from '../../src/sync/candidates.js';
import { KeyRing } from '../../src/sync/key-ring.js';
import type { Candidate } from '../../src/sync/responder.js';
import { TokenBucket } from '../../src/sync/token-bucket.js';
import { drawWire } from '../../src/sync/wire-port.js';
import { tiOpen } from '../sim/opened-flow.js';
import { Random } from '../sim/random.js';
import { candidateOf, flows, MOVER_WIRE, PEER_WIRE, synSent } from './fixture.js';

const LIMITS = { perFlow: 4, total: 10, lifetimeMs: 1000 };

const candidate = (port: number, nonce: number, flow = 0): Candidate => {
  const f = flows();
  const made = candidateOf(f.peer, synSent(f.mover, { nonce }).attempt.syn);
  const kernel = { ...made.kernel, localPort: made.kernel.localPort + flow };
  return { ...made, kernel, wire: { ...PEER_WIRE, remotePort: port } };
};

const ports = (candidates: Candidate[]): number[] => candidates.map((c) => c.wire.remotePort);

test('replays of one SYN crowd out each other, not another attempt', () => {
  const table = new CandidateTable(LIMITS);
  table.add(candidate(1, 77), 0);
  for (let port = 2; port <= 9; port++) table.add(candidate(port, 5), 0);
  const { kernel } = candidate(1, 77);
  assert.deepEqual(ports(table.of(kernel)), [1, 7, 8, 9]);
});

test('of different ones the oldest goes', () => {
  const table = new CandidateTable(LIMITS);
  for (let n = 1; n <= 4; n++) assert.deepEqual(table.add(candidate(n, n), 0), []);
  assert.deepEqual(ports(table.add(candidate(5, 5), 0)), [1]);
});

test('the same wire has one candidate', () => {
  const table = new CandidateTable(LIMITS);
  table.add(candidate(1, 1), 0);
  assert.deepEqual(table.add(candidate(1, 2), 0), []);
  assert.equal(table.size, 1);
  assert.equal(table.get({ ...PEER_WIRE, remotePort: 1 })?.sync.nonce, 2);
});

test('in total the oldest goes; each has its time', () => {
  const table = new CandidateTable(LIMITS);
  for (let n = 0; n < 10; n++) table.add(candidate(n, n, n), n);
  assert.deepEqual(ports(table.add(candidate(10, 10, 10), 10)), [0]);
  assert.equal(table.size, 10);
  assert.equal(table.nextExpiry(), 1001);
  assert.deepEqual(ports(table.expired(1003)), [1, 2, 3]);
  for (const gone of table.expired(5000)) table.remove(gone.wire);
  assert.equal(table.size, 0);
  assert.equal(table.nextExpiry(), undefined);
});

test('a bucket gives its burst, then its rate, and never more', () => {
  const gaps = fc.array(fc.integer({ min: 0, max: 2000 }), { maxLength: 200 });
  fc.assert(
    fc.property(gaps, (gapsMs) => {
      const bucket = new TokenBucket({ burst: 10, perSecond: 5 }, 0);
      let [now, taken] = [0, 0];
      for (const gap of gapsMs) {
        now += gap;
        if (bucket.take(now)) taken += 1;
      }
      assert.ok(taken <= 10 + (now * 5) / 1000);
    }),
  );
});

test('a wire is drawn from the range, and is free', () => {
  const random = new Random(7);
  const o = { ports: { first: 61_000, last: 61_009 }, random: (n: number) => random.bytes(n) };
  const drawn = new Set<number>();
  for (let i = 0; i < 200; i++) {
    const wire = drawWire(MOVER_WIRE, { ...o, isTaken: (t) => t.localPort === 61_003 });
    assert.ok(wire);
    drawn.add(wire.localPort);
  }
  assert.deepEqual(
    [...drawn].sort(),
    [0, 1, 2, 4, 5, 6, 7, 8, 9].map((n) => 61_000 + n),
  );
  assert.equal(drawWire(MOVER_WIRE, { ...o, isTaken: () => true }), undefined);
});

test('keys belong to the options, not to the tuple; a bounded number is kept', () => {
  const asked: number[] = [];
  const ring = new KeyRing((id) => {
    asked.push(id);
    return id === 7 ? new Uint8Array(32) : undefined;
  }, 2);
  const { mover } = flows();
  const keys = ring.of(mover);
  assert.equal(ring.of(mover)?.ours, keys?.ours, 'kept');
  mover.responder = tiOpen(mover.responder.tifidHalf, Uint8Array.of(9, 9, 9, 9, 9, 9, 9, 9));
  assert.notDeepEqual(ring.of(mover), keys, 'the same TIFID with another key half');
  const withKey = (id: number, half: number) => ({
    ...mover,
    initiator: tiOpen(half, new Uint8Array(8), id),
    responder: tiOpen(half, new Uint8Array(8), id),
  });
  assert.equal(ring.of(withKey(8, 1)), undefined);
  assert.ok(ring.of(withKey(7, 1)));
  ring.of(withKey(7, 2));
  ring.of(withKey(7, 3));
  ring.of(withKey(7, 1));
  assert.deepEqual(asked, [8, 7, 7, 7, 7], 'the oldest was forgotten');
  assert.deepEqual(ring.of(flows().peer)?.ours, ring.of(flows().mover)?.theirs);
});
