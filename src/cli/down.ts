/* `tiflow down [IF...]`: detach; without interfaces stop the daemon and leave nothing behind.
 *
 * Works on what is pinned, too, when the daemon is dead.  Refuses to break connections that live
 * only through the boundary, unless told to; those are then reset, so that their programs are
 * told at once.  So do VMs that are away from home, moved connections or none: they have no address
 * of this network.
 */

import type { Command } from 'commander';
import { DaemonClient, DaemonNotRunning } from '../daemon/api/client.js';
import { CONFIG_PATH, type Config, readConfig } from '../daemon/config/config.js';
import { matchesName } from '../daemon/config/interface-pattern.js';
import { removeRunDirectory } from '../daemon/config/run-directory.js';
import { removeRecords } from '../daemon/vm/record.js';
import { SystemError } from '../libc/errno.js';
import { waitUntilStopped } from './background.js';
import { VerbError } from './exit.js';
import { type Installation, installationOf, NOTHING } from './installation.js';
import { requirePrivileges } from './privileges.js';
import { addRunDirOption, type RunDirOption, runDirOf } from './run-dir.js';

interface DownOptions extends RunDirOption {
  config?: string;
  force?: boolean;
}

export function addDown(program: Command): void {
  addRunDirOption(program.command('down'))
    .description('detach the boundary; without interfaces stop the daemon and leave nothing')
    .argument('[interface...]', 'only from these')
    .option(
      '--force',
      'even if flows have moved: they are reset; even if VMs are away: they lose the network',
    )
    .option(
      '--config <file>',
      `configuration that the daemon was started with (default ${CONFIG_PATH})`,
    )
    .action(down);
}

async function down(names: string[], o: DownOptions): Promise<void> {
  const config = readConfig(o.config ?? CONFIG_PATH, { mustExist: o.config !== undefined });
  const runDir = runDirOf({ runDir: o.runDir ?? config.runDir });
  const client = new DaemonClient(runDir);
  const alive = await client.status().then(() => true, absentDaemon);
  if (!alive) requirePrivileges('down');
  const found = await readInstallation(runDir, alive ? client : undefined, names, o);
  try {
    if (names.length === 0) await removeAll(found, { ...config, runDir }, o);
    else await detach(found, names, o);
  } finally {
    found.close();
  }
}

/* What is pinned may be of a version whose tables we cannot read; it can still be removed. */
async function readInstallation(
  runDir: string,
  client: DaemonClient | undefined,
  names: string[],
  o: DownOptions,
): Promise<Installation> {
  try {
    return await installationOf(runDir, client);
  } catch (error) {
    if (!(error instanceof SystemError) || error.code !== 'EPROTO' || names.length > 0) throw error;
    if (o.force === true) return NOTHING;
    throw new VerbError(`${error.message}\ntiflow down --force removes it unread`);
  }
}

async function detach(found: Installation, patterns: string[], o: DownOptions): Promise<void> {
  const attached = found.attached();
  const matched = (pattern: string) => attached.filter((name) => matchesName(pattern, name));
  const unknown = patterns.find((pattern) => matched(pattern).length === 0);
  const names = [...new Set(patterns.flatMap(matched))];
  if (unknown !== undefined) {
    const list = attached.join(', ') || 'no interface';
    throw new VerbError(`no boundary is attached to ${unknown} (attached: ${list})`);
  }
  const moved = found.movedOn(names);
  refuseToBreak({ moved: moved.length, away: found.awayOn(names) }, names.join(', '), o);
  if (moved.length > 0) await resetSockets(moved);
  for (const name of names) {
    await found.detach(name);
    process.stdout.write(`${name}: boundary detached\n`);
  }
}

async function removeAll(found: Installation, config: Config, o: DownOptions): Promise<void> {
  requirePrivileges('down');
  const moved = found.movedOn(undefined);
  const attached = found.attached();
  refuseToBreak({ moved: moved.length, away: found.awayOn(undefined) }, config.runDir, o);
  if (await found.stopDaemon()) {
    await waitUntilStopped(config.runDir);
    process.stdout.write('daemon stopped\n');
  }
  found.close();
  if (moved.length > 0) await resetSockets(moved);
  const { Boundary } = await import('../boundary/boundary.js');
  Boundary.remove(config.runDir);
  removeRecords(config.runDir);
  await releaseRetained(config);
  removeRunDirectory(config.runDir);
  for (const name of attached) process.stdout.write(`${name}: boundary detached\n`);
  process.stdout.write(`nothing of tiflow is left in ${config.runDir}\n`);
}

function refuseToBreak(
  { moved, away }: { moved: number; away: string[] },
  what: string,
  o: DownOptions,
): void {
  if (o.force === true) return;
  const lines: string[] = [];
  if (away.length > 0) {
    const [vms, are, them] = away.length === 1 ? ['VM', 'is', 'it'] : ['VMs', 'are', 'them'];
    const why = `the ${vms} behind ${away.join(', ')} ${are} away from home and would have no network`;
    lines.push(`down ${what}: ${why} (migrate ${them} home first); --force detaches all the same`);
  }
  if (moved > 0) {
    const flows = moved === 1 ? '1 flow has' : `${moved} flows have`;
    lines.push(
      `down ${what}: ${flows} moved and would break (see: tiflow flows); --force resets them`,
    );
  }
  if (lines.length > 0) throw new VerbError(lines.join('\n'));
}

async function releaseRetained(config: Config): Promise<void> {
  const { Netlink } = await import('../netlink/netlink.js');
  const { RetainedAddresses } = await import('../link/retained-kernel.js');
  const { DetourTable } = await import('../link/detour.js');
  const netlink = new Netlink();
  try {
    const attached = { interfaces: () => [], forwards: () => false };
    const retained = new RetainedAddresses(netlink, { table: config.table, ...attached });
    for (const address of retained.list()) process.stdout.write(`${address}: released\n`);
    retained.keep([]);
    new DetourTable(netlink, { table: config.table + 1 }).removeAll();
  } finally {
    netlink.close();
  }
}

/* While the boundary is still there, so that the reset finds its way to the peer. */
async function resetSockets(tuples: readonly string[]): Promise<void> {
  const { Netlink } = await import('../netlink/netlink.js');
  const { destroySocket, tcpSockets } = await import('../link/sockets.js');
  const { tupleText } = await import('../wire/tuple.js');
  const netlink = new Netlink();
  try {
    const doomed = tcpSockets(netlink).filter(({ tuple }) => tuples.includes(tupleText(tuple)));
    const reset = doomed.filter(({ tuple }) => destroySocket(netlink, tuple)).length;
    process.stdout.write(`${reset} of ${tuples.length} moved flows reset\n`);
  } catch (error) {
    // A kernel without INET_DIAG_DESTROY: their programs find out later; all else goes on.
    if (!(error instanceof SystemError)) throw error;
    process.stderr.write(`tiflow: reset moved flows: ${error.message}\n`);
  } finally {
    netlink.close();
  }
}

function absentDaemon(error: unknown): false {
  if (error instanceof DaemonNotRunning) return false;
  throw error;
}
