/**
 * The verbs of `tiflow lab`. Progress goes to standard error, results to standard output; with
 * --json a result is one line.
 */
import { spawnSync } from 'node:child_process';
import type { Command } from 'commander';
import { UsageError } from '../cli/exit.js';
import { addRun } from './cli-run.js';
import { verb, wholeNumber } from './cli-verb.js';
import { listText, listView, printStatus, statusView, TOPOLOGIES } from './cli-view.js';
import { Hosts, onHost } from './hosts.js';
import { Lab } from './lab.js';
import { loadRecord, removeLab, sweepStale } from './registry.js';
import { SITES } from './topology.js';
import { VmLab } from './vm/lab.js';

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
  if (topology === 'vm' && o.wire !== undefined) {
    throw new UsageError('--wire: topology vm has no userspace wire');
  }
  sweepStale();
  const lab = topology === 'vm' ? await upVm(o) : await upPaper(o);
  lab.keep();
  printStatus(lab.record);
  process.exit(0);
}

const upVm = (o: UpOptions): Promise<VmLab> =>
  VmLab.build(o.name, false, o.plain ? { daemons: [] } : {});

const upPaper = (o: UpOptions): Promise<Lab> =>
  Lab.build({
    name: o.name,
    owned: false,
    daemons: o.plain ? [] : ['aramis', 'vm'],
    ...(o.wire === undefined ? {} : { wire: { impairment: o.wire, seed: o.seed } }),
  });

function addExec(lab: Command): void {
  addName(lab.command('exec'))
    .argument('<host>', 'a host of the lab')
    .argument('<command...>', 'after --')
    .description('run a command on a host of the lab')
    .action((host: string, argv: string[], o: NameOption) => verb(() => exec(host, argv, o.name)));
}

function exec(hostName: string, argv: readonly string[], name: string): void {
  const [file = '', ...rest] = onHost(new Hosts(loadRecord(name)).host(hostName), argv);
  const { status, signal } = spawnSync(file, rest, { stdio: 'inherit' });
  process.exitCode = signal ? 1 : (status ?? 1);
}

function addMove(lab: Command): void {
  addName(lab.command('move'))
    .argument('<vm>', 'vm')
    .argument('<destination>', SITES.join(' or '))
    .description(
      'unplug the VM and plug it in elsewhere; a real guest: migrate it (tiflow migrate)',
    )
    .action((vm: string, to: string, o: NameOption) => verb(() => move(vm, to, o.name)));
}

async function move(vm: string, destination: string, name: string): Promise<void> {
  const site = SITES.find((s) => s === destination);
  if (!site) throw new UsageError(`no destination ${destination} (there are ${SITES.join(', ')})`);
  if (loadRecord(name).topology === 'vm') {
    const lab = VmLab.load(name);
    exec(await lab.whereabouts(vm), ['tiflow', 'migrate', vm, '--to', site], name);
    return;
  }
  const lab = Lab.load(name);
  if (lab.host(vm).name !== 'vm') throw new UsageError(`${vm} cannot be moved (only vm can)`);
  lab.move(site);
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
