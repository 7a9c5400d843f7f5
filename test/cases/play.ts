/**
 * Plays the cases of a group, each in a lab of its own, one after the other.  Files of groups are
 * played side by side: each case runs in the process of its file, with a lab named after that.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type AnyCase, CASE_GROUPS, type CaseGroup } from '../../src/lab/cases/table.js';
import { runCase } from '../../src/lab/runner.js';
import type { Family } from '../../src/lab/topology.js';
import { leftovers } from '../net/leak.js';
import { WHOLE } from '../whole.js';

const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces';
const FAMILIES: readonly Family[] = [4, 6];

interface Play {
  boundMs: number;
  /** a sample is each case in one family, by turns; the whole: in both */
  alternate?: boolean;
}

export function playGroup(group: CaseGroup, { boundMs, alternate = false }: Play): void {
  const played = CASE_GROUPS[group].filter((each) => WHOLE || !('seldom' in each));
  for (const [i, each] of played.entries()) {
    describe(`${each.name}: ${each.summary}`, () => {
      const title = (family: Family) => ('vm' in each ? 'both families' : `IPv${family}`);
      for (const family of familiesOf(each, alternate ? FAMILIES[i % 2] : undefined)) {
        test(title(family), { skip, timeout: boundMs }, (t) =>
          play(each.name, family, (text) => t.diagnostic(text)),
        );
      }
    });
  }
}

/** Cases with real guests are played once: their guests talk over both families at once. */
function familiesOf(each: AnyCase, sample: Family | undefined): readonly Family[] {
  if ('vm' in each) return [4];
  if ('families' in each && each.families) return each.families;
  return WHOLE || sample === undefined ? FAMILIES : [sample];
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
