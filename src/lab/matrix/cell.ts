/**
 * What became of one connection when one of its ends moved past a middlebox. Pure.
 */
import type { Family } from '../topology.js';

/** Which end moves; the other one stays on aramis. */
export type Column = 'server' | 'client';
export const COLUMNS: readonly Column[] = ['server', 'client'];
export const FAMILIES: readonly Family[] = [4, 6];

export type Cell =
  | { kind: 'moved'; gap_ms: number }
  /** it never was a TI flow; its program was told in time after the move */
  | { kind: 'plain'; reason: string }
  /** it was one and could not be moved; its program was told in time */
  | { kind: 'refused'; reason: string }
  /** a hang, a wrong byte, a reset of what had moved: what must never be */
  | { kind: 'broken'; detail: string };

/** A cell without what differs from run to run. */
export type Outcome = 'moved' | `plain: ${string}` | `refused: ${string}` | `broken: ${string}`;

export function outcome(cell: Cell): Outcome {
  switch (cell.kind) {
    case 'moved':
      return 'moved';
    case 'broken':
      return `broken: ${cell.detail}`;
    default:
      return `${cell.kind}: ${cell.reason}`;
  }
}

/** The cells of a row, by column and family. */
export type Cells = Record<Column, Record<Family, Cell>>;
