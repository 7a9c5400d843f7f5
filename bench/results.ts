/*
 * results.json: one array of results, by name.  A run replaces what it measured and keeps the
 * rest, so that measurements can be made one at a time.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { Result } from './measurement.js';

/** Results on disk; none if there is no file.  Throws if the file is not JSON. */
export function readResults(path: string): Result[] {
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Result[]) : [];
}

/** Replaces the results of the same names, appends new ones. */
export function mergeResults(path: string, fresh: readonly Result[]): void {
  const byName = new Map(readResults(path).map((result) => [result.name, result]));
  for (const result of fresh) byName.set(result.name, result);
  write(path, [...byName.values()]);
}

/** Drops results of other names: those of measurements that are no longer made. */
export function keepResults(path: string, names: ReadonlySet<string>): void {
  write(
    path,
    readResults(path).filter((result) => names.has(result.name)),
  );
}

function write(path: string, results: readonly Result[]): void {
  const lines = results.map((result) => `  ${JSON.stringify(result)}`);
  writeFileSync(`${path}.new`, `[\n${lines.join(',\n')}\n]\n`);
  renameSync(`${path}.new`, path);
}

/** The results as a table: name, value, unit, spread of the samples, aim. */
export function formatResults(results: readonly Result[]): string {
  const rows = results.map((r) => [
    r.name,
    String(r.value),
    r.unit,
    `${Math.min(...r.samples)} .. ${Math.max(...r.samples)} (${r.samples.length})`,
    r.aim ?? '',
    verdict(r),
  ]);
  const all = [['measurement', 'median', 'unit', 'samples', 'aim', ''], ...rows];
  const widths = [0, 1, 2, 3, 4, 5].map((i) => Math.max(...all.map((row) => row[i]?.length ?? 0)));
  const align = (cell: string, i: number): string =>
    i === 1 ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0);
  return all.map((row) => row.map(align).join('  ').trimEnd()).join('\n');
}

function verdict(r: Result): string {
  if (r.met === null) return '';
  return r.met ? 'met' : 'MISSED';
}
