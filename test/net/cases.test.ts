/**
 * Every case of topology `paper`, over both families, on real kernels with real programs:
 *
 *     aramis ──── router ──┬── athos ──── vm
 *                          └── porthos ┄┄ (where vm goes)
 *
 * One after the other, each in a lab of its own: they share the machine's two cores.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PAPER_CASES } from '../../src/lab/cases/table.js';
import { runCase } from '../../src/lab/runner.js';
import { leftovers } from './leak.js';

const FAMILIES = [4, 6] as const;
const BOUND_MS = 120_000;
const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces';

for (const { name, summary } of PAPER_CASES) {
  describe(`${name}: ${summary}`, () => {
    for (const family of FAMILIES) {
      test(`IPv${family}`, { skip, timeout: BOUND_MS }, async (t) => {
        const steps: string[] = [];
        const onStep = (text: string, afterMs: number): void => {
          steps.push(`${(afterMs / 1e3).toFixed(3)} s  ${text}`);
        };
        const result = await runCase(name, { family, seed: 1, onStep });
        if (!result.ok) t.diagnostic(JSON.stringify(result));
        const failed = result.checks.filter((check) => !check.ok);
        assert.deepEqual(failed, [], steps.join('\n'));
        assert.equal(result.ok, true);
        assert.deepEqual(leftovers(`run-${process.pid}`), []);
      });
    }
  });
}
