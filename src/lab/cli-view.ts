/**
 * What `tiflow lab status` and `lab list` show, as JSON and as text.
 */
import { CASES } from './cases/table.js';
import { isRunning, isStale, type LabRecord, listRecords } from './registry.js';

export const TOPOLOGIES: Record<string, string> = {
  paper: 'aramis - router - athos | porthos, vm plugged in at athos',
};
export function statusView(record: LabRecord): Record<string, unknown> {
  const running = record.processes.filter(isRunning);
  const hosts = record.hosts.map((host) => ({
    ...host,
    processes: running.filter((p) => p.host === host.name).map(({ pid, what }) => ({ pid, what })),
  }));
  const { version, name, topology, directory, plugged } = record;
  return { version, name, topology, directory, vm_at: plugged, hosts };
}

export function printStatus(record: LabRecord): void {
  const width = Math.max(...record.hosts.map((host) => host.namespace.length));
  const lines = record.hosts.map(({ name, namespace, run_dir }) => {
    const daemon = record.processes.some(
      (p) => p.host === name && p.what === 'daemon' && isRunning(p),
    );
    const where = name === 'vm' ? `plugged in at ${record.plugged}` : '';
    const tiflow = daemon ? `tiflow --run-dir ${run_dir}` : '';
    return `${name.padEnd(9)}${namespace.padEnd(width + 2)}${[where, tiflow].filter(Boolean).join('; ')}`;
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
  return { version: 1, topologies, cases, labs };
}

export function listText({ topologies, cases, labs }: ReturnType<typeof listView>): string {
  const rows = (items: Array<{ name: string; summary: string }>): string[] =>
    items.map(({ name, summary }) => `  ${name.padEnd(15)}${summary}`);
  const standing = labs.map((l) => ({ name: l.name, summary: l.stale ? 'stale' : l.topology }));
  const sections = [
    ['topologies', ...rows(topologies)],
    ['cases', ...rows(cases)],
    ['labs', ...(standing.length > 0 ? rows(standing) : ['  none'])],
  ];
  return `${sections.map((lines) => lines.join('\n')).join('\n')}\n`;
}
