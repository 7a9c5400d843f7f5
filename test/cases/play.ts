/**
 * Plays the cases of a group, each in a lab of its own, one after the other.  Files of groups are
 * played side by side: each case runs in the process of its file, with a lab named after that.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CASE_GROUPS, type CaseGroup } from '../../src/lab/cases/table.js';
import { runCase } from '../../src/lab/runner.js';
import type { Family } from '../../src/lab/topology.js';
import { leftovers } from '../net/leak.js';
import { WHOLE } from '../whole.js';

const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces';
const FAMILIES: readonly Family[] = [4, 6];

interface Play {
  boundMs: number;
  /** the sample: each case in one family, by turns */
  alternate?: boolean;
}

export function playGroup(group: CaseGroup, { boundMs, alternate = false }: Play): void {
  for (const [i, { name, summary }] of CASE_GROUPS[group].entries()) {
    const sample = alternate ? FAMILIES.slice(i % 2, (i % 2) + 1) : FAMILIES;
    describe(`${name}: ${summary}`, () => {
      for (const family of WHOLE ? FAMILIES : sample) {
        test(`IPv${family}`, { skip, timeout: boundMs }, (t) =>
          play(name, family, (text) => t.diagnostic(text)),
        );
      }
    });
  }
}

async function play(name: string, family: Family, note: (text: string) => void): Promise<void> {
  const steps: string[] = [];
  const onStep = (text: string, afterMs: number): void => {
    steps.push(`${(afterMs / 1e3).toFixed(3)} s  ${text}`);
  };
  const result = await runCase(name, { family, seed: 1, onStep });
  if (!result.ok) note(JSON.stringify(result));
  const failed = result.checks.filter((check) => !check.ok);
  assert.deepEqual(failed, [], steps.join('\n'));
  assert.equal(result.ok, true);
  assert.deepEqual(leftovers(`run-${process.pid}`), []);
}
