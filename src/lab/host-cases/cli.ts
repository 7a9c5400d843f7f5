/**
 * `tiflow lab run hosts`: plays all cases of hosts, over each family, and writes docs/HOSTS.md.
 */
import { writeFileSync } from 'node:fs';
import { type CaseResult, runCase } from '../runner.js';
import { FAMILIES } from '../twins/topology.js';
import { hostsDocument } from './document.js';
import { HOST_CASES } from './table.js';

export interface HostsVerbOptions {
  json: boolean;
  seed: number;
  /** the page is written there if all are ok */
  page: string | undefined;
  onStep(text: string, afterMs: number): void;
}

/** Returns whether all of them went as they have to. */
export async function runHostsVerb(o: HostsVerbOptions): Promise<boolean> {
  const results: CaseResult[] = [];
  for (const each of HOST_CASES) {
    for (const family of each.families ?? FAMILIES) {
      const result = await runCase(each.name, { family, seed: o.seed, onStep: o.onStep });
      results.push(result);
      if (!o.json) process.stdout.write(`${result.case} IPv${family}: ${verdict(result)}\n`);
    }
  }
  const ok = results.every((result) => result.ok);
  if (o.json)
    process.stdout.write(`${JSON.stringify({ version: 1, case: 'hosts', ok, results })}\n`);
  if (o.page !== undefined && ok)
    writeFileSync(o.page, hostsDocument(HOST_CASES, silences(results)));
  return ok;
}

function verdict({ ok, checks }: CaseResult): string {
  const failed = checks.filter((check) => !check.ok).map((c) => `${c.name}: ${c.detail}`);
  return ok ? 'ok' : `FAILED (${failed.join('; ')})`;
}

function silences(results: readonly CaseResult[]): Map<string, number> {
  const longest = new Map<string, number>();
  for (const result of results) {
    const gap = Math.max(longest.get(result.case) ?? 0, ...result.gap_ms);
    longest.set(result.case, gap);
  }
  return longest;
}
