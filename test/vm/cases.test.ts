/**
 * Every case of topology `vm`: real guests, migrated between two hypervisors.
 *
 *     aramis ──── router ──┬── athos ──── vm (QEMU)
 *                          └── porthos ┄┄ (where vm goes)
 *
 * The failures alternate between the families: what fails is the migration, which is the same.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { VM_CASES } from '../../src/lab/cases/table.js';
import { runCase } from '../../src/lab/runner.js';
import { leftovers } from '../net/leak.js';

const BOUND_MS = 600_000;
const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces';

for (const [i, { name, summary }] of VM_CASES.entries()) {
  const families = name.startsWith('vm-fail-') ? [i % 2 === 0 ? 4 : 6] : [4, 6];
  describe(`${name}: ${summary}`, () => {
    for (const family of families as Array<4 | 6>) {
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
