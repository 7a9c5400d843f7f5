/**
 * What `tiflow lab status` and `lab list` show, as JSON and as text.
 */
import { CASES } from './cases/table.js';
import { ROWS } from './matrix/rows.js';
import { isRunning, isStale, type LabRecord, listRecords } from './registry.js';
import { VmLab } from './vm/lab.js';

export const TOPOLOGIES: Record<string, string> = {
  paper: 'aramis - router - athos | porthos, vm plugged in at athos',
  vm: 'aramis - router - athos | porthos, hypervisors; vm is a real guest on athos',
};

/** The site that the VM is at; null: none, or it is on its way from one to the other. */
function placeOf(record: LabRecord): string | null {
  if (record.topology !== 'vm') return record.plugged;
  const sites = VmLab.load(record.name).sites('vm');
  return sites.length === 1 ? (sites[0] ?? null) : null;
}

export function statusView(record: LabRecord): Record<string, unknown> {
  const running = record.processes.filter(isRunning);
  const hosts = record.hosts.map((host) => ({
    ...host,
    processes: running.filter((p) => p.host === host.name).map(({ pid, what }) => ({ pid, what })),
  }));
  const { version, name, topology, directory } = record;
  return { version, name, topology, directory, vm_at: placeOf(record), hosts };
}

export function printStatus(record: LabRecord): void {
  const width = Math.max(...record.hosts.map((host) => host.namespace.length));
  const place = placeOf(record);
  const lines = record.hosts.map(({ name, namespace, run_dir }) => {
    const daemon = record.processes.some(
      (p) => p.host === name && p.what === 'daemon' && isRunning(p),
    );
    const where = name === 'vm' ? `plugged in at ${place}` : '';
    const tiflow = daemon ? `tiflow --run-dir ${run_dir}` : '';
    const guest = record.topology === 'vm' && name === place ? 'vm runs here' : '';
    return `${name.padEnd(9)}${namespace.padEnd(width + 2)}${[where, guest, tiflow].filter(Boolean).join('; ')}`;
  });
  process.stdout.write(`lab ${record.name}: ${record.topology}\n${lines.join('\n')}\n`);
}

export function listView() {
  const topologies = Object.entries(TOPOLOGIES).map(([name, summary]) => ({ name, summary }));
  const cases = CASES.map(({ name, summary }) => ({ name, summary }));
  const labs = listRecords().map((record) => ({
    name: record.name,
    topology: record.topology,
    stale: isStale(record),
  }));
  const matrix = ROWS.map(({ name, summary }) => ({ name, summary }));
  return { version: 1, topologies, cases, matrix, labs };
}

export function listText({ topologies, cases, matrix, labs }: ReturnType<typeof listView>): string {
  const rows = (items: Array<{ name: string; summary: string }>): string[] =>
    items.map(({ name, summary }) => `  ${name.padEnd(30)}${summary}`);
  const standing = labs.map((l) => ({ name: l.name, summary: l.stale ? 'stale' : l.topology }));
  const sections = [
    ['topologies', ...rows(topologies)],
    ['cases', ...rows(cases)],
    ['rows of the matrix', ...rows(matrix)],
    ['labs', ...(standing.length > 0 ? rows(standing) : ['  none'])],
  ];
  return `${sections.map((lines) => lines.join('\n')).join('\n')}\n`;
}
