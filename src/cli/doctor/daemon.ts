/* The daemon, its configuration, and the secrets in it. */

import { existsSync, statSync } from 'node:fs';
import { DaemonClient, DaemonNotRunning } from '../../daemon/api/client.js';
import { type Config, ConfigError, readConfig } from '../../daemon/config/config.js';
import { tiflowVersion } from '../../daemon/view/version.js';
import { LACKS, type PlanView, type StatusView } from '../../daemon/view/view.js';
import { type Check, fail, ok, warn } from './check.js';

/** Is one running, of this version, and does it have what it needs? */
export async function checkDaemon(
  runDir: string,
  table: number,
): Promise<{ checks: Check[]; status: StatusView | undefined }> {
  try {
    const client = new DaemonClient(runDir);
    const status = await client.status();
    const checks = [
      ...describeDaemon(status, tiflowVersion()),
      ...describePlan(await client.plan()),
      ...(await checkLoaded(runDir)),
    ];
    return { checks, status };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    if (!(error instanceof DaemonNotRunning)) {
      const check = fail('daemon', error.message, 'see tiflow.log in the run directory');
      return { checks: [check], status: undefined };
    }
    const absence = describeAbsence(runDir, await isPinned(runDir));
    const checks = [
      absence,
      ...(await checkLoaded(runDir)),
      ...(await checkLeftovers(absence, table)),
    ];
    return { checks, status: undefined };
  }
}

/* Addresses that are retained by nobody: a daemon died, and its tables are gone. */
async function checkLeftovers(absence: Check, table: number): Promise<Check[]> {
  if (absence.level === 'fail') return [];
  const { Netlink } = await import('../../netlink/netlink.js');
  const { RetainedAddresses } = await import('../../link/retained-kernel.js');
  const netlink = new Netlink();
  try {
    const o = { table, interfaces: () => [], forwards: () => false };
    const addresses = new RetainedAddresses(netlink, o).list();
    if (addresses.length === 0) return [];
    const message = `addresses retained by a daemon that is gone: ${addresses.join(', ')}`;
    return [warn('retained', message, 'tiflow down')];
  } finally {
    netlink.close();
  }
}

/* Where libbpf is missing, which has its own check, nothing can be told and nothing runs. */
async function isPinned(runDir: string): Promise<boolean> {
  try {
    const { Boundary } = await import('../../boundary/boundary.js');
    return Boundary.exists(runDir);
  } catch {
    return false;
  }
}

/* An upgrade that was installed and not started, or whose programs the kernel has refused. */
async function checkLoaded(runDir: string): Promise<Check[]> {
  if (!(await isPinned(runDir))) return [];
  const { DEFAULT_OBJECT } = await import('../../boundary/load.js');
  if (!existsSync(DEFAULT_OBJECT)) return []; // which has its own check
  const { objectName, pinnedObjects } = await import('../../boundary/programs.js');
  const { pinDirectory } = await import('../../boundary/bpffs.js');
  return [describeLoaded(pinnedObjects(pinDirectory(runDir)), objectName(DEFAULT_OBJECT))];
}

/** `loaded`: the objects whose programs are pinned; `built`: the one that should be. */
export function describeLoaded(loaded: readonly string[], built: string): Check {
  const name = 'data-plane.loaded';
  const [only, ...more] = loaded;
  if (only === built && more.length === 0) return ok(name, `what is built (${built})`);
  const text = `${loaded.join(', ') || 'an old layout'} is loaded, ${built} is built`;
  return warn(
    name,
    text,
    'restart the daemon (flows go on meanwhile); its log says why, if it stays so',
  );
}

/** `own`: the version of the command that asks. */
export function describeDaemon(status: StatusView, own: string): Check[] {
  const attached = status.interfaces.filter((link) => link.attached).map((link) => link.name);
  return [
    status.tiflow === own
      ? ok('daemon', `running, version ${own}, pid ${status.pid}`)
      : warn(
          'daemon',
          `running version ${status.tiflow}, this is ${own}`,
          'restart it; flows go on meanwhile',
        ),
    attached.length > 0
      ? ok('daemon.attached', `attached to ${attached.join(', ')}`)
      : warn('daemon.attached', 'attached to no interface: nothing is protected', 'tiflow up IF'),
    ...status.missing.map(({ name, why }) =>
      fail('daemon.missing', `${name} is not protected: ${why}`, 'it is taken when it can be'),
    ),
    ...status.lacks.map((lack) => warn('daemon.lacks', LACKS[lack], 'nothing, if that will do')),
    ...describeFailedRounds(status.failed_rounds),
  ];
}

/** What the daemon would do now: nothing, unless it was refused or is about to do it. */
export function describePlan({ steps }: PlanView): Check[] {
  if (steps.length === 0) return [ok('daemon.plan', 'nothing to do: all is as it is wanted')];
  return steps.map(({ do: what, because, refused, again_in_ms }) =>
    refused === null
      ? warn('daemon.plan', `to do: ${what} (${because})`, 'nothing: it is done within a second')
      : fail(
          'daemon.plan',
          `to do: ${what} (${because}); refused: ${refused}`,
          `mend that; it is tried again in ${Math.ceil(again_in_ms / 1000)} s`,
        ),
  );
}

function describeFailedRounds({ count, last }: StatusView['failed_rounds']): Check[] {
  if (count === 0) return [];
  const text = `${count} times something was refused, the last time: ${last}`;
  return [warn('daemon.failed-rounds', text, 'see the log; all of it is tried again')];
}

/** `pinned`: the boundary of a daemon that has died is still there. */
export function describeAbsence(runDir: string, pinned: boolean): Check {
  if (!pinned) return warn('daemon', `none runs in ${runDir}`, 'tiflow up IF');
  return fail(
    'daemon',
    `dead, but its boundary is still in ${runDir}: flows go on, and none can move`,
    'start it again: tiflow up IF (or take all down: tiflow down)',
  );
}

/** The configuration parses, and only its owner can read the keys. */
export function checkConfig(path: string): { checks: Check[]; config: Config | undefined } {
  try {
    const config = readConfig(path, { mustExist: false });
    const what = existsSync(path) ? path : `no ${path}: defaults`;
    return { checks: [ok('config', what), ...checkSecrets(config, path)], config };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { checks: [fail('config', error.message, 'correct it')], config: undefined };
  }
}

/** One check per file that holds a pre-shared key. */
export function checkSecrets(config: Config, path: string): Check[] {
  const files = [...(config.psk?.files ?? []), ...(config.psk?.inline ? [path] : [])];
  return files.map((file) => {
    const mode = statSync(file).mode & 0o777;
    const text = `${file} has mode ${mode.toString(8).padStart(4, '0')}`;
    if ((mode & 0o077) === 0) return ok('psk.permissions', text);
    return fail('psk.permissions', `${text}: others can use the key`, `chmod 600 ${file}`);
  });
}
