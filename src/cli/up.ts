/* `tiflow up IF...`: protect the connections of these interfaces from now on. */

import type { Command } from 'commander';
import { DaemonClient, DaemonNotRunning } from '../daemon/api/client.js';
import { CONFIG_PATH, readConfig } from '../daemon/config/config.js';
import { DEFAULT_ROUTE, isPattern, matchesName } from '../daemon/config/interface-pattern.js';
import { logPath, removeRunDirectory } from '../daemon/config/run-directory.js';
import type { StatusView } from '../daemon/view/view.js';
import { startDaemon, waitUntilStopped } from './background.js';
import { requireInterfaces } from './interfaces.js';
import { requirePrivileges } from './privileges.js';
import { addRunDirOption, type RunDirOption, runDirOf } from './run-dir.js';

interface UpOptions extends RunDirOption {
  config?: string;
  gateway?: boolean;
}

export function addUp(program: Command): void {
  addRunDirOption(program.command('up'))
    .description('attach the boundary to interfaces; starts the daemon if none runs')
    .argument(
      '[interface...]',
      'where packets leave the machine: eth0, "en*" (also such as come later), default (what has a ' +
        'default route), or taps of VMs',
    )
    .option('--gateway', 'protect the connections of the hosts behind this machine, too')
    .option('--no-gateway', 'no longer: only those of this machine')
    .option('--config <file>', `configuration of a daemon that is started (default ${CONFIG_PATH})`)
    .action(up);
}

async function up(asked: string[], o: UpOptions): Promise<void> {
  const names = asked.length > 0 ? asked : [DEFAULT_ROUTE];
  requireInterfaces(names.filter((name) => !isPattern(name)));
  const runDir = upRunDir(o);
  const client = new DaemonClient(runDir);
  const running = await client.status().catch(absentDaemon);
  const started = running === undefined ? await start(runDir, o) : undefined;
  const attachedBefore = attachedOf(running ?? started);
  try {
    for (const name of names) await client.attach(name, o.gateway);
  } catch (error) {
    if (started !== undefined && isIdle(started)) await undoStart(client, runDir);
    throw error;
  }
  print(names, attachedBefore, await client.status());
}

/* Unlike the reading verbs, this one must not go on with a configuration that is broken. */
function upRunDir(o: UpOptions): string {
  const config = readConfig(o.config ?? CONFIG_PATH, { mustExist: o.config !== undefined });
  return runDirOf({ runDir: o.runDir ?? config.runDir });
}

async function start(runDir: string, o: UpOptions): Promise<StatusView> {
  requirePrivileges('up');
  const status = await startDaemon({ runDir, ...(o.config && { config: o.config }) });
  process.stdout.write(`daemon started (pid ${status.pid}, log ${logPath(runDir)})\n`);
  return status;
}

/* A daemon that found flows of its predecessor has to stay, whatever became of our interfaces. */
function isIdle(status: StatusView): boolean {
  return status.flows.protected === 0 && attachedOf(status).size === 0;
}

async function undoStart(client: DaemonClient, runDir: string): Promise<void> {
  await client.shutdown();
  await waitUntilStopped(runDir);
  const { Boundary } = await import('../boundary/boundary.js');
  Boundary.remove(runDir);
  removeRunDirectory(runDir);
  process.stdout.write('daemon stopped again\n');
}

function print(names: string[], attachedBefore: Set<string>, status: StatusView): void {
  for (const pattern of names.filter(isPattern)) {
    const why = status.missing.find((each) => each.name === pattern)?.why;
    if (why !== undefined) process.stdout.write(`${pattern}: ${why} so far\n`);
  }
  for (const name of namesOf(names, status)) {
    const addresses = addressesOf(status, name);
    const what = attachedBefore.has(name) ? 'attached already' : 'attached';
    const gateway = status.interfaces.some((link) => link.name === name && link.gateway);
    const whose = gateway ? ', of a gateway' : '';
    process.stdout.write(
      `${name}: boundary ${what}${whose} (${addresses.join(', ') || 'no address'})\n`,
    );
  }
}

/* What a pattern stands for now. */
function namesOf(patterns: string[], status: StatusView): Set<string> {
  const attached = [...attachedOf(status)];
  return new Set(
    patterns.flatMap((pattern) => {
      if (!isPattern(pattern)) return [pattern];
      if (pattern === DEFAULT_ROUTE) return attached;
      return attached.filter((name) => matchesName(pattern, name));
    }),
  );
}

/* Of a VM they are its guest's, as soon as it has said something. */
function addressesOf(status: StatusView, name: string): string[] {
  const vm = status.taps.find((tap) => tap.name === name);
  if (vm !== undefined) return ['VM', ...(vm.mac ? [vm.mac] : []), ...vm.inside];
  return status.interfaces.find((link) => link.name === name)?.addresses ?? [];
}

function attachedOf(status: StatusView | undefined): Set<string> {
  const links = (status?.interfaces ?? []).filter((link) => link.attached);
  return new Set([...links, ...(status?.taps ?? [])].map((link) => link.name));
}

function absentDaemon(error: unknown): undefined {
  if (!(error instanceof DaemonNotRunning)) throw error;
}
