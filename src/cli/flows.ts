/* `tiflow flows`: every connection that the boundary knows, as the program and as the network
 * see it.
 */

import type { Command } from 'commander';
import { DaemonClient } from '../daemon/api/client.js';
import { formatDuration } from '../daemon/config/duration.js';
import type { FlowState, FlowView } from '../daemon/view/view.js';
import { addRunDirOption, type RunDirOption, runDirOf } from './run-dir.js';
import { alignColumns, type Colour, type Paint, painterFor } from './table.js';

export function addFlows(program: Command): void {
  addRunDirOption(program.command('flows'))
    .description('list the flows: kernel tuple, wire tuple, TIFID, state, moves, last gap')
    .option('--json', 'print one JSON object')
    .option('--brief', `one line per flow for awk, no header: ${BRIEF_FIELDS.join(' ')}`)
    .action(async (o: RunDirOption & { json?: boolean; brief?: boolean }) => {
      const view = await new DaemonClient(runDirOf(o)).flows();
      if (o.json) process.stdout.write(`${JSON.stringify(view)}\n`);
      else {
        const lines = o.brief
          ? view.flows.map(formatBrief)
          : formatFlows(view.flows, painterFor(process.stdout));
        process.stdout.write(lines.map((line) => `${line}\n`).join(''));
      }
    });
}

/** Fields of a line of --brief, in this order; new ones only at the end.  "-" stands for none. */
export const BRIEF_FIELDS = [
  'TIFID',
  'ROLE',
  'STATE',
  'MOVES',
  'GAP_MS',
  'EPOCH',
  'IDLE_MS',
  'KERNEL_LOCAL',
  'KERNEL_REMOTE',
  'WIRE_LOCAL',
  'WIRE_REMOTE',
  'REASON',
  'TAP',
  'FORWARDED',
] as const;

/** One line with BRIEF_FIELDS, separated by one space. */
export function formatBrief(flow: FlowView): string {
  return [
    flow.tifid ?? '-',
    flow.role ?? '-',
    flow.state,
    flow.moves,
    flow.last_gap_ms ?? '-',
    flow.epoch,
    flow.idle_ms,
    ...ends(flow.kernel),
    ...ends(flow.wire),
    flow.reason ?? '-',
    flow.tap ?? '-',
    flow.forwarded ? 'yes' : 'no',
  ].join(' ');
}

/** A header and one line per flow; the wire is shown where it differs from the kernel's view. */
export function formatFlows(flows: readonly FlowView[], paint: Paint): string[] {
  const hasVms = flows.some((flow) => flow.tap !== null);
  const isGateway = flows.some((flow) => flow.forwarded);
  const rows = flows.map((flow) => [
    flow.state,
    flow.tifid ?? '-',
    `${flow.moves}`,
    flow.last_gap_ms === null ? '-' : formatDuration(flow.last_gap_ms),
    flow.kernel,
    flow.wire === flow.kernel ? '=' : flow.wire,
    ...(hasVms ? [flow.tap ?? '-'] : []),
    ...(isGateway ? [flow.forwarded ? 'behind' : 'here'] : []),
    flow.reason ?? '',
  ]);
  const [head = '', ...lines] = alignColumns([
    [
      ...['STATE', 'TIFID', 'MOVES', 'GAP', 'KERNEL', 'WIRE'],
      ...(hasVms ? ['VM'] : []),
      ...(isGateway ? ['HOST'] : []),
      'REASON',
    ],
    ...rows,
  ]);
  return [
    paint('bold', head),
    ...lines.map((line, row) => paintState(line, flows[row]?.state ?? 'steady', paint)),
  ];
}

const STATE_COLOUR: Record<FlowState, Colour | undefined> = {
  steady: 'green',
  stuck: 'red',
  held: 'red',
  syncing: 'yellow',
  confirming: 'yellow',
  ended: 'dim',
  legacy: 'dim',
};

function paintState(line: string, state: FlowState, paint: Paint): string {
  const colour = STATE_COLOUR[state];
  return colour === undefined ? line : paint(colour, state) + line.slice(state.length);
}

function ends(tuple: string): [string, string] {
  const [local = '-', remote = '-'] = tuple.split(' > ');
  return [local, remote];
}
