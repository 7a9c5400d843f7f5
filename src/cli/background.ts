/* Starting the daemon behind a verb that returns, and waiting until it has ended. */

import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { DaemonClient, DaemonNotRunning } from '../daemon/api/client.js';
import { daemonPid, logPath, makeDirectory } from '../daemon/config/run-directory.js';
import type { StatusView } from '../daemon/view/view.js';
import { EXIT, type ExitCode, VerbError } from './exit.js';

const START_TIMEOUT_MS = 15_000;
const STOP_TIMEOUT_MS = 15_000;
const POLL_MS = 50;
const LOG_LINES_SHOWN = 5;

/** Starts the daemon and returns when it answers.  Throws VerbError with its last words. */
export async function startDaemon(o: { runDir: string; config?: string }): Promise<StatusView> {
  const before = logOf(o.runDir).length;
  let ended: ExitCode | undefined;
  const child = launch(o);
  child.once('exit', (code) => {
    ended = exitCode(code);
  });
  child.once('error', () => {
    ended = EXIT.failure;
  });
  const client = new DaemonClient(o.runDir);
  for (let waitedMs = 0; waitedMs < START_TIMEOUT_MS && ended === undefined; waitedMs += POLL_MS) {
    const status = await client.status().catch(ignoreNotRunning);
    if (status !== undefined) {
      child.unref();
      return status;
    }
    await delay(POLL_MS);
  }
  const said = logOf(o.runDir)
    .slice(before)
    .trim()
    .replace(/^tiflow: /gm, '');
  const lastWords = said.split('\n').slice(-LOG_LINES_SHOWN);
  child.kill('SIGTERM');
  const what = ended === undefined ? 'does not answer' : 'ended at once';
  const text = [`the daemon ${what}; the end of ${logPath(o.runDir)}:`, ...lastWords].join('\n  ');
  throw new VerbError(text, ended ?? EXIT.failure);
}

/** Waits until no daemon holds `runDir`.  Throws VerbError when it does not end. */
export async function waitUntilStopped(runDir: string): Promise<void> {
  for (let waitedMs = 0; waitedMs < STOP_TIMEOUT_MS; waitedMs += POLL_MS) {
    if (daemonPid(runDir) === undefined) return;
    await delay(POLL_MS);
  }
  throw new VerbError(`the daemon (pid ${daemonPid(runDir)}) does not stop; kill it and try again`);
}

function launch(o: { runDir: string; config?: string }) {
  makeDirectory(o.runDir);
  const log = openSync(logPath(o.runDir), 'a', 0o600);
  const script = fileURLToPath(new URL('./main.js', import.meta.url));
  const args = [script, 'daemon', '--run-dir', resolve(o.runDir)];
  if (o.config !== undefined) args.push('--config', resolve(o.config));
  try {
    return spawn(process.execPath, args, {
      detached: true,
      cwd: '/',
      stdio: ['ignore', log, log],
    });
  } finally {
    closeSync(log);
  }
}

function logOf(runDir: string): string {
  try {
    return readFileSync(logPath(runDir), 'utf8');
  } catch {
    return '';
  }
}

function ignoreNotRunning(error: unknown): undefined {
  if (!(error instanceof DaemonNotRunning)) throw error;
}

function exitCode(code: number | null): ExitCode {
  return Object.values(EXIT).find((known) => known === code && known !== EXIT.ok) ?? EXIT.failure;
}
