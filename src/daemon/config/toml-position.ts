/* Where in a TOML document a value stands: smol-toml keeps no positions.
 *
 * A value ends on the first line up to which the document parses and contains it; it begins after
 * the last line before that up to which the document parses at all.  Quadratic, which a
 * configuration of a few dozen lines can afford, and right for every spelling of a key.
 */

import { parse } from 'smol-toml';

/** The line, from 1, on which the value at path `at` begins; of what it is missing in, if it is. */
export function lineOf(text: string, at: readonly string[]): number {
  const lines = text.split('\n');
  let start = 1;
  for (let end = 1; end <= lines.length; end++) {
    const table = tableOf(lines.slice(0, end).join('\n'));
    if (table === undefined) continue;
    if (contains(table, at)) return start;
    start = end + 1;
  }
  return at.length > 0 ? lineOf(text, at.slice(0, -1)) : 1;
}

function tableOf(text: string): unknown {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}

/** Whether `value` has something at path `at`. */
export function contains(value: unknown, at: readonly string[]): boolean {
  const [key, ...rest] = at;
  if (key === undefined) return true;
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key)
    ? contains((value as Record<string, unknown>)[key], rest)
    : false;
}
