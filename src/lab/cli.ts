/**
 * The verbs of `tiflow lab`. Progress goes to standard error, results to standard output; with
 * --json a result is one line.
 */
import { spawnSync } from 'node:child_process';
import type { Command } from 'commander';
import { UsageError, VerbError } from '../cli/exit.js';
import { CASES, findCase } from './cases/table.js';
import { Lab } from './lab.js';
import { insideNamespace, LabError } from './namespace.js';
import {
  isRunning,
  isStale,
  type LabRecord,
  listRecords,
  loadRecord,
  removeLab,
  sweepStale,
} from './registry.js';
import { type CaseResult, runCase } from './runner.js';
import { Show } from './show.js';
import { SITES, type Site } from './topology.js';

const TOPOLOGIES: Record<string, string> = {
  paper: 'aramis - router - athos | porthos, vm plugged in at athos',
};
const DEFAULT_NAME = 'lab';

interface NameOption {
  name: string;
}

/** Adds `tiflow lab …` to the program. */
export function addLabCommands(program: Command): void {
  const lab = program
    .command('lab')
    .description('hosts as network namespaces: try, show and test tiflow on one machine');
  addUp(lab);
  addRun(lab);
  addExec(lab);
  addMove(lab);
  addStatus(lab);
  addDown(lab);
  addList(lab);
}

const addName = (command: Command): Command =>
  command.option('--name <name>', 'which lab, if there are several', DEFAULT_NAME);

function addUp(lab: Command): void {
  addName(lab.command('up'))
    .argument('<topology>', Object.keys(TOPOLOGIES).join(', '))
    .description('build a lab that stands until `lab down`')
    .option('--plain', 'without tiflow daemons: see what TCP does by itself')
    .option('--wire <impairment>', 'a userspace wire at aramis: delay=50ms,loss=1%,…')
    .option('--seed <n>', 'of the userspace wire', wholeNumber, 1)
    .action((topology: string, o: UpOptions) => verb(() => up(topology, o)));
}

interface UpOptions extends NameOption {
  plain?: boolean;
  wire?: string;
  seed: number;
}

async function up(topology: string, o: UpOptions): Promise<void> {
  if (!(topology in TOPOLOGIES)) {
    throw new UsageError(
      `no topology ${topology} (there is ${Object.keys(TOPOLOGIES).join(', ')})`,
    );
  }
  sweepStale();
  const lab = await Lab.build({
    name: o.name,
    owned: false,
    daemons: o.plain ? [] : ['aramis', 'vm'],
    ...(o.wire === undefined ? {} : { wire: { impairment: o.wire, seed: o.seed } }),
  });
  lab.keep();
  printStatus(lab.record);
  process.exit(0);
}

interface RunVerbOptions {
  ipv6?: boolean;
  json?: boolean;
  show?: boolean;
  keep?: boolean;
  seed: number;
  wire?: string;
}

function addRun(lab: Command): void {
  lab
    .command('run')
    .argument('<case>', 'see `lab list`')
    .description('play a case in a lab of its own; exit 0 only if all its checks hold')
    .option('--ipv6', 'over IPv6 (default: IPv4)')
    .option('--json', 'end with one JSON line on standard output')
    .option('--show', 'show interfaces, connections and the timeline, as the paper does')
    .option('--keep', 'leave the lab standing if the case fails')
    .option('--seed <n>', 'of everything random', wholeNumber, 1)
    .option('--wire <impairment>', 'a userspace wire at aramis: delay=50ms,loss=1%,…')
    .action((name: string, o: RunVerbOptions) => verb(() => run(name, o)));
}

async function run(name: string, o: RunVerbOptions): Promise<void> {
  const show = o.show ? new Show(process.stdout) : undefined;
  show?.begin(name, findCase(name).summary, o.ipv6 ? 6 : 4);
  const result = await runCase(name, {
    family: o.ipv6 ? 6 : 4,
    seed: o.seed,
    wire: o.wire,
    keep: o.keep,
    onStep: show ? (text, at) => show.step(text, at) : printStep,
    onExhibit: show && ((exhibit) => show.exhibit(exhibit)),
  });
  show?.end(result);
  if (o.json) process.stdout.write(`${JSON.stringify(result)}\n`);
  else if (!show) process.stdout.write(`${summary(result)}\n`);
  process.exitCode = result.ok ? 0 : 1;
}

const printStep = (text: string, afterMs: number): void => {
  process.stderr.write(`${(afterMs / 1e3).toFixed(3).padStart(7)} s  ${text}\n`);
};

function summary(result: CaseResult): string {
  const failed = result.checks.filter((check) => !check.ok).length;
  const verdict = result.ok ? 'ok' : `FAILED (${failed} of ${result.checks.length} checks)`;
  const gaps = result.gap_ms.length > 0 ? `, gaps ${result.gap_ms.join(' ')} ms` : '';
  return `${result.case} over IPv${result.family}: ${verdict}, ${result.moves} moves${gaps}`;
}

function addExec(lab: Command): void {
  addName(lab.command('exec'))
    .argument('<host>', 'a host of the lab')
    .argument('<command...>', 'after --')
    .description('run a command on a host of the lab')
    .action((host: string, argv: string[], o: NameOption) => verb(() => exec(host, argv, o.name)));
}

function exec(hostName: string, argv: readonly string[], name: string): void {
  const host = Lab.load(name).host(hostName);
  const [file = '', ...rest] = insideNamespace(host.namespace, argv);
  const { status, signal } = spawnSync(file, rest, { stdio: 'inherit' });
  process.exitCode = signal ? 1 : (status ?? 1);
}

function addMove(lab: Command): void {
  addName(lab.command('move'))
    .argument('<vm>', 'vm')
    .argument('<destination>', SITES.join(' or '))
    .description('unplug the VM and plug it in elsewhere')
    .action((vm: string, to: string, o: NameOption) => verb(() => move(vm, to, o.name)));
}

function move(vm: string, destination: string, name: string): void {
  const lab = Lab.load(name);
  if (lab.host(vm).name !== 'vm') throw new UsageError(`${vm} cannot be moved (only vm can)`);
  const site = SITES.find((s) => s === destination);
  if (!site) throw new UsageError(`no destination ${destination} (there are ${SITES.join(', ')})`);
  lab.move(site satisfies Site);
}

function addStatus(lab: Command): void {
  addName(lab.command('status'))
    .description('show the hosts of a lab, their namespaces and run directories')
    .option('--json', 'print one JSON object')
    .action((o: NameOption & { json?: boolean }) =>
      verb(() => {
        const record = loadRecord(o.name);
        if (o.json) process.stdout.write(`${JSON.stringify(statusView(record))}\n`);
        else printStatus(record);
      }),
    );
}

function statusView(record: LabRecord): Record<string, unknown> {
  const running = record.processes.filter(isRunning);
  const hosts = record.hosts.map((host) => ({
    ...host,
    processes: running.filter((p) => p.host === host.name).map(({ pid, what }) => ({ pid, what })),
  }));
  const { version, name, topology, directory, plugged } = record;
  return { version, name, topology, directory, vm_at: plugged, hosts };
}

function printStatus(record: LabRecord): void {
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

function addDown(lab: Command): void {
  addName(lab.command('down'))
    .description('end a lab; nothing of it is left')
    .option('--stale', 'end the labs of runs that died')
    .action((o: NameOption & { stale?: boolean }) =>
      verb(() => {
        if (o.stale) for (const name of sweepStale()) process.stdout.write(`${name}\n`);
        else removeLab(loadRecord(o.name));
      }),
    );
}

function addList(lab: Command): void {
  lab
    .command('list')
    .description('list the topologies, the cases and the labs that stand')
    .option('--json', 'print one JSON object')
    .action((o: { json?: boolean }) =>
      verb(() => {
        const view = listView();
        process.stdout.write(o.json ? `${JSON.stringify(view)}\n` : listText(view));
      }),
    );
}

function listView() {
  const topologies = Object.entries(TOPOLOGIES).map(([name, summary]) => ({ name, summary }));
  const cases = CASES.map(({ name, summary }) => ({ name, summary }));
  const labs = listRecords().map((record) => ({
    name: record.name,
    topology: record.topology,
    stale: isStale(record),
  }));
  return { version: 1, topologies, cases, labs };
}

function listText({ topologies, cases, labs }: ReturnType<typeof listView>): string {
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

/** Runs a verb; what the lab has to say about a failure is all there is to say. */
async function verb(action: () => void | Promise<void>): Promise<void> {
  try {
    await action();
  } catch (error) {
    throw error instanceof LabError ? new VerbError(error.message) : error;
  }
}

function wholeNumber(text: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new UsageError(`"${text}" is not a whole number`);
  return Number(text);
}
