/**
 * docs/MIDDLEBOXES.md: the matrix as a page. Pure; all of it comes from the rows and the cells,
 * so that a test can tell whether the page is still what the rows say.
 */
import { type Cell, COLUMNS, type Column, outcome } from './cell.js';
import type { RowResult } from './matrix.js';
import type { Row } from './rows.js';

const HEAD = `# Middleboxes

What becomes of a connection that moves past a middlebox: real firewalls, NATs and proxies of nftables, and a userspace wire
where the kernel has none, between two hosts in network namespaces. Each cell is a transfer both ways, compared byte for
byte, over IPv4 and IPv6. \`make middleboxes\` plays all of it and writes this page; do not edit it. A test keeps it and the rows of
\`src/lab/matrix/rows.ts\` the same, another plays them and compares. One row: \`tiflow lab run matrix ROW\`.

| cell | meaning |
|---|---|
| moved (n ms) | the connection went on, every byte of it; n: the longest silence that the programs met, unplugging and DHCP included |
| plain: reason | it never was a TI flow, with the reason of \`tiflow flows\`; the moved program was told in time |
| refused: reason | it could not be moved, with the reason of the event \`move-failed\`; the moved program was told in time |

"In time" is \`give_up\` after the new address is usable. The silences are of a machine with two cores that plays several transfers
at once: read them as sizes. [OPERATIONS](OPERATIONS.md) explains the reasons.
`;

const TABLE = `| row | middlebox | server moves | client moves |
|---|---|---|---|
`;

/** The page of a run of all rows. */
export function middleboxDocument(rows: readonly Row[], results: readonly RowResult[]): string {
  const lines = rows.map((row) => {
    const result = results.find((r) => r.row === row.name);
    const cells = COLUMNS.map((column) => (result ? cellText(result, column) : ''));
    return `| \`${row.name}\` | ${row.summary} | ${cells.join(' | ')} |`;
  });
  const whys = rows.flatMap(({ name, why }) => (why ? [`- \`${name}\`: ${why}`] : []));
  return `${HEAD}\n${TABLE}${lines.join('\n')}\n\n## Why\n\n${whys.join('\n')}\n\n${LIMITS}`;
}

const LIMITS = `## Where the peer cannot be dialled

The end that moves sends a SYN to where its peer is. A peer behind a NAT or behind a firewall that lets nothing in is reached by
nobody, so a server cannot move away from such a client: refused, in time, with a reason. It is the client that could
dial; [decision 11](decisions/0011-the-peer-may-dial.md) says how that will be added. The peer's program is not told by a move that
failed, because nothing reaches it: for that end it is as if the server had vanished.
`;

/** Both families in one where they agree. */
function cellText(result: RowResult, column: Column): string {
  const { ipv4, ipv6 } = result.cells[column];
  if (outcome(ipv4) === outcome(ipv6)) return text(ipv4, ipv6);
  return `IPv4: ${text(ipv4)}; IPv6: ${text(ipv6)}`;
}

function text(...cells: Cell[]): string {
  const gaps = cells.flatMap((cell) => (cell.kind === 'moved' ? [cell.gap_ms] : []));
  const [first] = cells;
  if (gaps.length > 0) return `moved (${Math.max(...gaps)} ms)`;
  return first ? outcome(first) : '';
}

/** What must not change from run to run. */
export const withoutGaps = (page: string): string => page.replaceAll(/moved \(\d+ ms\)/g, 'moved');

/** A page of rows that all went as expected, to compare with. */
export function expectedDocument(rows: readonly Row[]): string {
  const results = rows.map((row): RowResult => {
    const cell = (column: Column): Cell => cellOf(row.expected[column]);
    const both = (column: Column) => ({ ipv4: cell(column), ipv6: cell(column) });
    const cells = { server: both('server'), client: both('client') };
    const { name, summary } = row;
    return { row: name, summary, ok: true, cells, checks: [], duration_ms: 0 };
  });
  return middleboxDocument(rows, results);
}

function cellOf(expected: string): Cell {
  const [kind = '', reason = ''] = expected.split(': ');
  if (kind === 'plain' || kind === 'refused') return { kind, reason };
  return { kind: 'moved', gap_ms: 0 };
}
