/**
 * The whole middlebox matrix, or one row of it: plays it, and says whether each cell is what it
 * has to be.
 */
import { sweepStale } from '../registry.js';
import type { Check } from '../scene.js';
import type { Family } from '../topology.js';
import { now } from '../wait.js';
import { type Cell, type Cells, COLUMNS, FAMILIES, outcome } from './cell.js';
import { playRow } from './play.js';
import { ROWS, type Row } from './rows.js';

export interface RowResult {
  row: string;
  summary: string;
  ok: boolean;
  cells: { server: FamilyCells; client: FamilyCells };
  checks: Check[];
  duration_ms: number;
}

type FamilyCells = { ipv4: Cell; ipv6: Cell };

/** The JSON line of `lab run matrix`. */
export interface MatrixResult {
  version: 1;
  case: 'matrix';
  ok: boolean;
  moves: number;
  /** of all cells that moved */
  gap_ms: number[];
  rows: RowResult[];
  seed: number;
  duration_ms: number;
}

export interface MatrixOptions {
  seed: number;
  rows?: readonly Row[];
  onStep?(text: string, afterMs: number): void;
  onRow?(result: RowResult): void;
}

/** Labs at once: much of a row is waiting, and two cores take two. */
const AT_ONCE = 2;

export async function runMatrix(o: MatrixOptions): Promise<MatrixResult> {
  const { seed, rows = ROWS } = o;
  const begun = now();
  const onStep = (text: string): void => o.onStep?.(text, now() - begun);
  for (const swept of sweepStale()) onStep(`swept lab ${swept} that a dead run left behind`);
  const results = new Map<Row, RowResult>();
  let moves = 0;
  const waiting = [...rows];
  const work = async (): Promise<void> => {
    for (let row = waiting.shift(); row; row = waiting.shift()) {
      const played = await runRow(row, seed, onStep);
      results.set(row, played.result);
      moves += played.moves;
      o.onRow?.(played.result);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  const inOrder = rows.flatMap((row) => results.get(row) ?? []);
  return {
    ...{ version: 1, case: 'matrix', ok: inOrder.every((r) => r.ok), moves },
    gap_ms: inOrder.flatMap((r) => Object.values(r.cells).flatMap(gapsOf)),
    ...{ rows: inOrder, seed, duration_ms: Math.round(now() - begun) },
  };
}

const gapsOf = (cells: FamilyCells): number[] =>
  Object.values(cells).flatMap((cell) => (cell.kind === 'moved' ? [cell.gap_ms] : []));

async function runRow(
  row: Row,
  seed: number,
  onStep: (text: string) => void,
): Promise<{ result: RowResult; moves: number }> {
  const begun = now();
  const played = await playRow(row, { seed, onStep }).catch((error: Error) => notPlayed(error));
  const { cells, moves } = played;
  const checks = [...played.checks, ...COLUMNS.flatMap((c) => FAMILIES.map((f) => judged(c, f)))];
  function judged(column: 'server' | 'client', family: Family): Check {
    const is = outcome(cells[column][family]);
    const ok = is === row.expected[column];
    return { name: `${column} moves, IPv${family}: ${row.expected[column]}`, ok, detail: is };
  }
  const byName = (of: Cells['server']): FamilyCells => ({ ipv4: of[4], ipv6: of[6] });
  return {
    moves,
    result: {
      ...{ row: row.name, summary: row.summary, ok: checks.every((check) => check.ok) },
      cells: { server: byName(cells.server), client: byName(cells.client) },
      ...{ checks, duration_ms: Math.round(now() - begun) },
    },
  };
}

function notPlayed(error: Error): { cells: Cells; checks: Check[]; moves: number } {
  const cell: Cell = { kind: 'broken', detail: error.message };
  const both = { 4: cell, 6: cell };
  return { cells: { server: both, client: both }, checks: [], moves: 0 };
}
