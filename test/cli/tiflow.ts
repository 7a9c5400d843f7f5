/* Runs the command as its users do, and a daemon made of answers behind its socket. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import pino from 'pino';
import { serveApi } from '../../src/daemon/api/api.js';
import { claimRunDirectory } from '../../src/daemon/config/run-directory.js';
import { FakeControl } from '../daemon/fake-control.js';
import { temporaryDirectory } from '../daemon/temporary.js';

/* As the command of a checkout chooses. */
const entryOf = (verb: string | undefined): string =>
  fileURLToPath(new URL(`../../src/${verb === 'lab' ? 'lab' : 'cli'}/main.js`, import.meta.url));

/* nobody:nogroup on Debian */
const AS_NOBODY = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups', '--'];

export interface Ran {
  exit: number | null;
  stdout: string;
  stderr: string;
}

export async function tiflow(args: string[], o: { asNobody?: boolean } = {}): Promise<Ran> {
  const node = [process.execPath, entryOf(args[0])];
  const [command = '', ...rest] = [...(o.asNobody ? AS_NOBODY : []), ...node];
  const child = spawn(command, [...rest, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ran = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    ran.stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    ran.stderr += text;
  });
  const [exit] = await once(child, 'close');
  return { exit, ...ran };
}

/** A run directory in which a FakeControl answers until the test ends or `shutdown` is asked. */
export async function fakeDaemon(
  t: TestContext,
): Promise<{ runDir: string; control: FakeControl }> {
  const runDir = temporaryDirectory(t);
  const directory = claimRunDirectory(runDir);
  const control = new FakeControl();
  const server = await serveApi(directory, () => control, pino({ level: 'silent' }));
  let stopping: Promise<void> | undefined;
  const stop = () => {
    stopping ??= server.close().then(() => directory.release());
    return stopping;
  };
  control.onShutdown = stop;
  t.after(stop);
  return { runDir, control };
}

export const mayChangeUser = process.getuid?.() === 0;
