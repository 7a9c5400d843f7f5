/* `tiflow status`: is it on, where, and what does it protect. */

import type { Command } from 'commander';
import { DaemonClient } from '../daemon/api/client.js';
import { formatDuration } from '../daemon/config/duration.js';
import { LACKS, type StatusView } from '../daemon/view/view.js';
import { addRunDirOption, type RunDirOption, runDirOf } from './run-dir.js';
import { alignColumns, type Paint, painterFor } from './table.js';

export function addStatus(program: Command): void {
  addRunDirOption(program.command('status'))
    .description('show the interfaces, the protected flows, and why others are legacy')
    .option('--json', 'print one JSON object')
    .action(async (o: RunDirOption & { json?: boolean }) => {
      const status = await new DaemonClient(runDirOf(o)).status();
      const text = o.json
        ? JSON.stringify(status)
        : formatStatus(status, painterFor(process.stdout));
      process.stdout.write(`${text}\n`);
    });
}

/** Lines for people; counters that are zero are left out. */
export function formatStatus(status: StatusView, paint: Paint): string {
  const { flows, moves } = status;
  const uptime = formatDuration(status.uptime_s * 1000);
  const isGateway = status.interfaces.some((link) => link.gateway);
  const behind = isGateway ? ` (${flows.forwarded} of hosts behind this gateway)` : '';
  const sections = [
    [`tiflow ${status.tiflow}: daemon running, pid ${status.pid}, up ${uptime}`],
    interfaceLines(status, paint),
    vmLines(status, paint),
    alignColumns([
      ['retained', status.retained.join(' ') || 'none'],
      [
        'flows',
        `${flows.protected} protected${behind}, ${flows.moved} moved, ${flows.moving} moving` +
          (flows.stuck > 0 ? `, ${flows.stuck} stuck` : ''),
      ],
      ['legacy', `${flows.legacy}`],
      ['moves', `${moves.completed} completed, ${moves.failed} failed`],
      ...status.lacks.map((lack) => ['lacks', LACKS[lack]]),
      ...failedLines(status),
    ]),
    countLines('legacy flows by reason', status.legacy_by_reason, paint),
    countLines('counters', status.counters, paint),
  ];
  return sections
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join('\n'))
    .join('\n\n');
}

function interfaceLines(status: StatusView, paint: Paint): string[] {
  const wanted = new Map(status.missing.map(({ name, why }) => [name, why]));
  const rows = status.interfaces.map((link) => [
    link.name,
    link.gateway ? 'gateway' : link.attached ? 'attached' : 'not attached',
    link.carrier ? 'up' : 'no carrier',
    link.addresses.join(' ') || '-',
  ]);
  if (rows.length + wanted.size === 0) return ['no interfaces (tiflow up IF...)'];
  const [head = '', ...lines] = alignColumns([
    ['INTERFACE', 'BOUNDARY', 'LINK', 'ADDRESSES'],
    ...rows,
  ]);
  const missing = [...wanted].map(([name, why]) =>
    paint('red', `${name} is not protected: ${why}`),
  );
  return [paint('bold', head), ...lines, ...missing];
}

function failedLines({ failed_rounds: { count, last } }: StatusView): string[][] {
  return count === 0 ? [] : [['failed', `${count} times, tried again; last: ${last}`]];
}

function vmLines(status: StatusView, paint: Paint): string[] {
  if (status.taps.length === 0) return [];
  const rows = status.taps.map((vm) => [
    vm.name,
    vm.mac ?? '-',
    vm.place,
    vm.inside.join(' ') || '-',
    vm.place === 'home' ? '=' : vm.outside.join(' ') || '-',
    `${vm.flows.protected} protected, ${vm.flows.moved} moved`,
  ]);
  const [head = '', ...lines] = alignColumns([
    ['VM', 'MAC', 'PLACE', 'INSIDE', 'OUTSIDE', 'FLOWS'],
    ...rows,
  ]);
  return [paint('bold', head), ...lines];
}

function countLines(title: string, counts: Record<string, number>, paint: Paint): string[] {
  const rows = Object.entries(counts)
    .filter(([, count]) => count > 0)
    .sort(([a, countA], [b, countB]) => countB - countA || a.localeCompare(b));
  if (rows.length === 0) return [];
  const lines = alignColumns(rows.map(([name, count]) => [`  ${name}`, `${count}`]));
  return [paint('bold', title), ...lines];
}
