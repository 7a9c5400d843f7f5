/**
 * The paper's case with a userspace wire between aramis and the router that delays, loses,
 * reorders and duplicates. The seed is part of the test: a failure replays the same fates.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runCase } from '../../src/lab/runner.js';
import { leftovers } from './leak.js';

const WIRE = 'delay=20ms,jitter=4ms,loss=2%,reorder=2%,duplicate=2%';
const SEEDS = [1, 2] as const;
const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces';

for (const seed of SEEDS) {
  const family = seed % 2 === 0 ? 6 : 4;
  const name = `paper over IPv${family}, ${WIRE}, seed ${seed}`;
  test(name, { skip, timeout: 120_000 }, async (t) => {
    const result = await runCase('paper', { family, seed, wire: WIRE });
    if (!result.ok) t.diagnostic(JSON.stringify(result));
    assert.deepEqual(
      result.checks.filter((check) => !check.ok),
      [],
    );
    assert.deepEqual(leftovers(`run-${process.pid}`), []);
  });
}
