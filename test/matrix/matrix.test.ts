/**
 * The middlebox matrix: what becomes of connections whose server or client moves past each box.
 * Asserted is what each cell is, not how long it took. docs/MIDDLEBOXES.md is its page.
 *
 *     aramis ── [box] ── router [box] ──┬── athos [box] ──── vm
 *                                       └── porthos [box] ┄┄ (where vm goes)
 */
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { type MatrixResult, runMatrix } from '../../src/lab/matrix/matrix.js';
import { ROWS } from '../../src/lab/matrix/rows.js';
import { leftovers } from '../net/leak.js';

const BOUND_MS = 15 * 60_000;
const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces';

describe('the middlebox matrix', { skip, timeout: BOUND_MS }, () => {
  const steps: string[] = [];
  let result: MatrixResult;

  // All at once: rows share the two cores, and most of each is waiting.
  before(
    async () => {
      const onStep = (text: string, afterMs: number): void => {
        steps.push(`${(afterMs / 1e3).toFixed(3)} s  ${text}`);
      };
      result = await runMatrix({ seed: 1, onStep });
    },
    { timeout: BOUND_MS },
  );

  for (const { name, summary } of ROWS) {
    test(`${name}: ${summary}`, () => {
      const row = result.rows.find((r) => r.row === name);
      const failed = row?.checks.filter((check) => !check.ok);
      const about = steps.filter((step) => step.includes(`${name}: `));
      assert.deepEqual(failed, [], about.join('\n'));
      assert.ok((row?.checks.length ?? 0) >= 4);
    });
  }

  test('nothing is left of its labs', () => {
    assert.deepEqual(leftovers(`matrix-${process.pid}`), []);
  });
});
