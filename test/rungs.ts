/**
 * A reporter for `node --test`: at the end, what each rung of docs/HACKING.md has taken, beside the
 * budget that stands there, and the sums.  Seconds are those of the tests: two files run at a time,
 * so the whole takes about half of their sum.
 *
 * A rung that takes longer than its budget is named, and is no failure: the machine may be busy.
 */
import { readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const DIST = fileURLToPath(new URL('..', import.meta.url));
const HACKING = fileURLToPath(new URL('../../docs/HACKING.md', import.meta.url));

/** What the runner tells (node:test, class TestsStream), as far as it is wanted here. */
interface TestEvent {
  type: string;
  data: {
    file?: string;
    nesting?: number;
    message?: string;
    details?: { duration_ms?: number; type?: string };
  };
}

export interface Rung {
  /** as the table has it: `test/wire` */
  folders: string[];
  /** of its tests, on two quiet cores */
  budgetS: number;
}

/** The rows of the table of rungs that have a budget. */
export function rungsOf(document: string): Rung[] {
  return document.split('\n').flatMap((line) => {
    const [, , folders = '', , seconds] = line.split('|').map((cell) => cell.trim());
    if (!/^\d+$/.test(seconds ?? '')) return [];
    const names = [...folders.matchAll(/`([^`]+)`/g)].map(([, name]) => name ?? '');
    return [{ folders: names, budgetS: Number(seconds) }];
  });
}

/** Tests and seconds by folder, and the runner's own sums. */
class Totals {
  readonly #byFolder = new Map<string, { tests: number; ms: number }>();
  readonly #sums = new Map<string, number>();

  take({ type, data }: TestEvent): void {
    if (type === 'test:diagnostic') this.#sum(data.message ?? '');
    if ((type !== 'test:pass' && type !== 'test:fail') || data.file === undefined) return;
    const folder = relative(DIST, data.file).split('/').slice(0, 2).join('/');
    const so = this.#byFolder.get(folder) ?? { tests: 0, ms: 0 };
    if (data.details?.type !== 'suite') so.tests++;
    if (data.nesting === 0) so.ms += data.details?.duration_ms ?? 0;
    this.#byFolder.set(folder, so);
  }

  /** The runner tells its sums as diagnostics, "pass 12", last of all. */
  #sum(message: string): void {
    const [, name, value] =
      /^(tests|pass|fail|cancelled|skipped|duration_ms) ([\d.]+)$/.exec(message) ?? [];
    if (name !== undefined) this.#sums.set(name, Number(value));
  }

  sum(name: string): number {
    return this.#sums.get(name) ?? 0;
  }

  get folders(): string[] {
    return [...this.#byFolder.keys()];
  }

  of(folders: readonly string[]): { tests: number; seconds: number } {
    const all = folders.flatMap((folder) => this.#byFolder.get(folder) ?? []);
    const ms = all.reduce((sum, each) => sum + each.ms, 0);
    return { tests: all.reduce((sum, each) => sum + each.tests, 0), seconds: Math.round(ms / 1e3) };
  }
}

function* lines(totals: Totals): Generator<string> {
  const rungs = rungsOf(readFileSync(HACKING, 'utf8'));
  const known = rungs.flatMap(({ folders }) => folders);
  const others = totals.folders.filter((folder) => !known.includes(folder));
  yield '  tests  seconds  budget  folders';
  for (const { folders, budgetS } of [...rungs, { folders: others, budgetS: 0 }]) {
    const { tests, seconds } = totals.of(folders);
    if (tests === 0) continue;
    const numbers = [
      String(tests).padStart(7),
      String(seconds).padStart(9),
      String(budgetS).padStart(8),
    ];
    yield `${numbers.join('')}  ${folders.join(' ')}${seconds > budgetS ? '  OVER BUDGET' : ''}`;
  }
  for (const name of ['tests', 'pass', 'fail', 'skipped']) yield `# ${name} ${totals.sum(name)}`;
  yield `# seconds ${Math.round(totals.sum('duration_ms') / 1e3)}`;
  const failed = totals.sum('fail') + totals.sum('cancelled');
  yield `${totals.sum('pass')} passed, ${failed} failed`;
}

// biome-ignore lint/style/noDefaultExport: node --test takes a reporter by its default export
export default async function* rungs(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const totals = new Totals();
  for await (const event of source) totals.take(event);
  yield '\n';
  for (const line of lines(totals)) yield `${line}\n`;
}
