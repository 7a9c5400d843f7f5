/* Text for people: aligned columns, colour only where a terminal shows it. */

import { styleText } from 'node:util';

/** Lines with the columns aligned, two spaces between them, nothing after the last one. */
export function alignColumns(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    }
  }
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

export type Colour = 'green' | 'yellow' | 'red' | 'bold' | 'dim';
export type Paint = (colour: Colour, text: string) => string;

export const plain: Paint = (_, text) => text;

/** https://no-color.org is respected. */
export function painterFor(stream: { isTTY?: boolean }): Paint {
  const wanted = stream.isTTY === true && (process.env.NO_COLOR ?? '') === '';
  return wanted ? styleText : plain;
}
