/**
 * `tiflow lab run matrix [ROW]`: plays the middlebox matrix and shows it as a table, as one JSON
 * line, or as the page docs/MIDDLEBOXES.md.
 */
import { writeFileSync } from 'node:fs';
import { alignColumns } from '../../cli/table.js';
import { COLUMNS, outcome } from './cell.js';
import { middleboxDocument } from './document.js';
import { type MatrixResult, type RowResult, runMatrix } from './matrix.js';
import { findRow, ROWS } from './rows.js';

export interface MatrixVerbOptions {
  row: string | undefined;
  json: boolean;
  seed: number;
  /** the page is written there if every cell is what it has to be */
  page: string | undefined;
  onStep(text: string, afterMs: number): void;
}

/** Returns whether every cell is what it has to be. Throws LabError if there is no such row. */
export async function runMatrixVerb(o: MatrixVerbOptions): Promise<boolean> {
  const rows = o.row === undefined ? ROWS : [findRow(o.row)];
  const { seed, onStep } = o;
  const result = await runMatrix({ seed, rows, onStep });
  if (o.json) process.stdout.write(`${JSON.stringify(result)}\n`);
  else process.stdout.write(`${text(result)}\n`);
  if (o.page !== undefined && result.ok) {
    writeFileSync(o.page, middleboxDocument(rows, result.rows));
  }
  return result.ok;
}

function text(result: MatrixResult): string {
  const lines = result.rows.map((row) => [row.row, ...COLUMNS.map((column) => cells(row, column))]);
  const failed = result.rows.flatMap(({ row, checks }) =>
    checks.filter((check) => !check.ok).map((c) => `FAIL ${row}: ${c.name}: ${c.detail}`),
  );
  const verdict = result.ok ? 'ok' : `FAILED (${failed.length} checks)`;
  const seconds = (result.duration_ms / 1e3).toFixed(0);
  const shown = alignColumns([['row', 'server moves', 'client moves'], ...lines]);
  return [...shown, ...failed, `matrix: ${verdict}, ${seconds} s`].join('\n');
}

function cells(row: RowResult, column: 'server' | 'client'): string {
  const { ipv4, ipv6 } = row.cells[column];
  const shown = [ipv4, ipv6].map((cell) =>
    cell.kind === 'moved' ? `moved ${cell.gap_ms} ms` : outcome(cell),
  );
  return [...new Set(shown)].join(', ');
}
