/* `tiflow migrate VM --to HOST`: the VM goes on there, and so do its connections.
 *
 * Here: the command line, what is printed, Ctrl-C, and the guard, a second process that finishes
 * or takes back the migration if this one is killed.
 */

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Command, Option } from 'commander';
import { parseDurationMs } from '../daemon/config/duration.js';
import { makeDirectory } from '../daemon/config/run-directory.js';
import { Journals } from '../migrate/journal.js';
import { isLibvirtDomain } from '../migrate/libvirt.js';
import { Migration } from '../migrate/migration.js';
import { hasEnded } from '../migrate/process-mark.js';
import { Qmp } from '../migrate/qmp.js';
import { recover, type SourceSide, VmGone } from '../migrate/recovery.js';
import { runStages, Undecided } from '../migrate/stages.js';
import type { MigrationRequest } from '../migrate/survey.js';
import { vmDaemonAt } from '../migrate/vm-daemon.js';
import { EXIT, UsageError, VerbError } from './exit.js';
import { migrateByLibvirt } from './migrate-libvirt.js';
import { finalEvent, MigrationPrinter } from './migrate-report.js';
import { requirePrivileges } from './privileges.js';
import { addStateDirOption, directoriesOf, type StateDirOption } from './run-dir.js';

/* The guard has more time than a person who waits. */
const RECONNECT_MS = 60_000;
const GUARD_RECONNECT_MS = 15 * 60_000;
const OWNER_ENDS_MS = 30_000;
/** The first after standard input, output and error. */
const GUARD_QMP_FD = 3;

type Directories = ReturnType<typeof directoriesOf>;

interface MigrateOptions extends StateDirOption {
  to?: string;
  mode: 'live' | 'pause-and-copy';
  storage: 'shared' | 'copy';
  storageDir?: string;
  address: string[];
  bridge?: string;
  bandwidth?: number;
  downtimeLimit?: number;
  direct?: boolean;
  rsh: string;
  remoteTiflow: string;
  placement: 'auto' | 'hypervisor' | 'guest';
  dryRun?: boolean;
  json?: boolean;
  recover?: string;
  word?: 'never' | 'ran';
  guard?: string;
}

export function addMigrate(program: Command): void {
  const command = program.command('migrate').argument('[vm]', 'its name, or its QMP socket');
  addStateDirOption(command)
    .description('move a running VM to another hypervisor; its connections go on')
    .option('--to <host>', 'where to: a host that ssh knows')
    .addOption(choice('--mode <mode>', 'live', 'pause-and-copy').default('live'))
    .addOption(choice('--storage <what>', 'shared', 'copy').default('shared'))
    .option('--storage-dir <dir>', 'where copied disks go there (default: the same path)')
    .option(
      '--address <address>',
      'outside address there, like 198.51.100.7/24 (default: dhcp)',
      collect,
      [],
    )
    .option('--bridge <name>', 'bridge of its taps there (default: the same name, or the only one)')
    .option('--bandwidth <rate>', 'bytes per second at most, like 100M', parseRate)
    .option('--downtime-limit <duration>', 'how long it may stand still, like 300ms', parseDowntime)
    .option('--direct', 'send memory and disks by plain TCP, for trusted networks')
    .option('--rsh <command>', 'runs a command on a host', 'ssh')
    .option('--remote-tiflow <path>', 'how tiflow is called there', 'tiflow')
    .addOption(choice('--placement <where>', 'auto', 'hypervisor', 'guest').default('auto'))
    .option('--dry-run', 'only check whether it would go')
    .option('--json', 'one JSON object a line')
    .option('--recover <id>', 'finish or take back a migration that was cut short')
    .addOption(choice('--word <word>', 'never', 'ran'))
    .addOption(new Option('--guard <id>').hideHelp())
    .action(migrate);
}

async function migrate(vm: string | undefined, o: MigrateOptions): Promise<void> {
  requirePrivileges('migrate');
  const at = directoriesOf(o);
  if (o.guard !== undefined) return guard(o.guard, at);
  if (o.word !== undefined && o.recover === undefined) {
    throw new UsageError('--word is for a migration that is recovered (--recover ID)');
  }
  if (o.recover !== undefined) {
    const how = { reconnectMs: RECONNECT_MS, operatorWord: o.word };
    process.stdout.write(`${await recoverById(o.recover, at, how)}\n`);
    return;
  }
  if (vm === undefined) throw new UsageError('migrate: which VM? (tiflow migrate VM --to HOST)');
  const request = requestOf(vm, o);
  if (isLibvirtDomain(vm)) return migrateByLibvirt(request, o);
  await migrateByQmp(request, at, o);
}

async function migrateByQmp(
  request: MigrationRequest,
  at: Directories,
  o: MigrateOptions,
): Promise<void> {
  const printer = new MigrationPrinter(o.json === true);
  const interrupt = interrupted(printer);
  let dismissGuard: (() => void) | undefined;
  const migration = new Migration({
    request,
    journals: new Journals(at),
    daemon: vmDaemonAt(at.runDir),
    progress: (stage, at) => printer.event({ stage, event: 'progress', ...at }),
    note: (message) => printer.event({ stage: 'check', event: 'note', message }),
    startGuard: (id, qmp) => {
      dismissGuard = startGuard(id, at, qmp);
    },
    reconnectMs: RECONNECT_MS,
  });
  const { stages } = migration;
  const chosen = o.dryRun === true ? stages.slice(0, 1) : stages;
  const emit = printer.event.bind(printer);
  const outcome = await runStages(chosen, { signal: interrupt, emit });
  const last = finalEvent({ request, outcome, facts: migration.facts, tookMs: printer.tookMs() });
  const isOver =
    (outcome.result === 'undone' && outcome.notUndone.every(({ error }) => isGone(error))) ||
    (outcome.result === 'done' && outcome.unfinished.length === 0);
  await migration.close(isOver);
  dismissGuard?.();
  if (o.dryRun === true && outcome.result === 'done') printer.wouldGo(last);
  else printer.last(last);
}

function requestOf(vm: string, o: MigrateOptions): MigrationRequest {
  if (o.to === undefined) throw new UsageError(`migrate ${vm}: where to? (--to HOST)`);
  if (o.storageDir !== undefined && o.storage !== 'copy') {
    throw new UsageError('--storage-dir is for disks that are copied (--storage copy)');
  }
  const stem = vm
    .replace(/^.*\//, '')
    .replaceAll(/[^\w-]/g, '_')
    .slice(0, 40);
  return {
    ...{ vm, host: o.to, rsh: o.rsh.split(' ').filter(Boolean), tiflow: o.remoteTiflow },
    ...{ mode: o.mode, storage: o.storage, placement: o.placement, direct: o.direct === true },
    id: `${stem}-${randomBytes(4).toString('hex')}`,
    addresses: o.address.length === 0 ? ['dhcp'] : o.address,
    storageDir: o.storageDir,
    bridge: o.bridge,
    bandwidth: o.bandwidth,
    downtimeMs: o.downtimeLimit,
  };
}

/* A VM that has ended leaves nothing to recover. */
function isGone(error: Error): boolean {
  return error instanceof VmGone;
}

/* The first Ctrl-C takes the migration back; the others are told to wait for that. */
function interrupted(printer: MigrationPrinter): AbortSignal {
  const abort = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      printer.note(abort.signal.aborted ? 'still taking it back' : 'interrupted: taking it back');
      abort.abort();
    });
  }
  return abort.signal;
}

/* A pipe to a child: when this process dies, however it dies, the child reads the end of it.  It has
 * our QMP connection, too: nobody else gets his turn at the VM before it is over.
 */
function startGuard(id: string, { runDir, stateDir }: Directories, qmp: Qmp): () => void {
  makeDirectory(runDir);
  const log = openSync(join(runDir, 'migrate-guard.log'), 'a', 0o600);
  const script = fileURLToPath(new URL('./main.js', import.meta.url));
  const argv = ['--guard', id, '--run-dir', runDir, '--state-dir', stateDir];
  const child = spawn(process.execPath, [script, 'migrate', ...argv], {
    detached: true,
    cwd: '/',
    stdio: ['pipe', log, log, qmp.socket],
  });
  closeSync(log);
  // Node stops to read what it hands down.
  qmp.socket.resume();
  child.unref();
  child.on('error', () => undefined); // Then nobody guards; --recover remains.
  child.stdin?.on('error', () => undefined);
  return () => child.stdin?.end('over\n');
}

async function guard(id: string, at: Directories): Promise<void> {
  let heard = '';
  for await (const chunk of process.stdin.setEncoding('utf8')) heard += chunk;
  // It has ended by itself, and has said what to do if anything is to be done.
  if (heard !== '') return;
  const journals = new Journals(at);
  const journal = journals.readSource(id);
  if (journal === undefined) return journals.remove({ id, side: 'source' });
  // The kernel closes the pipe before the process is gone.
  await hasEnded(journal.owner, OWNER_ENDS_MS);
  const qmp = await Qmp.adopt(journal.qmp, GUARD_QMP_FD).catch(() => undefined);
  const how = { reconnectMs: GUARD_RECONNECT_MS, qmp };
  const what = await recoverById(id, at, how).finally(() => qmp?.close());
  process.stdout.write(`${new Date().toISOString()} its process was killed; ${what}\n`);
}

async function recoverById(
  id: string,
  at: Directories,
  how: Pick<SourceSide, 'reconnectMs' | 'operatorWord' | 'qmp'>,
): Promise<string> {
  const journals = new Journals(at);
  const journal = journals.readSource(id);
  if (journal === undefined) {
    const open = journals.unfinished().map((each) => each.id);
    const list = open.length === 0 ? 'there is none' : `there are ${open.join(', ')}`;
    throw new VerbError(`no unfinished migration ${id} (${list})`);
  }
  const { name, remote } = journal;
  try {
    const daemon = vmDaemonAt(at.runDir);
    const became = {
      resumed: 'runs here',
      migrated: `has moved to ${remote.host}`,
      'ended-there': `has moved to ${remote.host}, and has ended there`,
    };
    const end = await recover({ journals, journal, daemon, ...how });
    return `migration ${id}: ${name} ${became[end]}`;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    if (error instanceof Undecided) throw new VerbError(why);
    throw new VerbError(`recover migration ${id} of ${name}: ${why}`, EXIT.failure);
  }
}

function choice(flags: string, ...choices: string[]): Option {
  return new Option(flags, choices.join(', ')).choices(choices);
}

function collect(value: string, before: string[]): string[] {
  return [...before, value];
}

function parseRate(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMG]?)$/.exec(text);
  const unit = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[match?.[2] ?? ''];
  const rate = Math.round(Number(match?.[1]) * (unit ?? Number.NaN));
  if (rate >= 1) return rate;
  throw new UsageError(`--bandwidth ${text}: must be bytes per second, with K, M or G, like 100M`);
}

function parseDowntime(text: string): number {
  const durationMs = parseDurationMs(text);
  // QEMU: migrate-set-parameters downtime-limit is at most 2000 s.
  if (durationMs !== undefined && durationMs >= 1 && durationMs <= 2_000_000) return durationMs;
  throw new UsageError(`--downtime-limit ${text}: must be a duration with a unit, like 300ms`);
}
