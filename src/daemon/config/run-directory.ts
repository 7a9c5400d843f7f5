/* The run directory of one daemon: its lock, its socket, its log; the pinned objects of the
 * boundary are beside them, in bpf/, and outlive it.
 *
 * The lock is flock(2): the kernel releases it at any death, nothing is to be guessed from a
 * process id, and two daemons that start at once cannot both win.  A socket file that is found
 * under the lock therefore belongs to a dead daemon.
 */

import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

export interface RunDirectory {
  path: string;
  socketPath: string;
  /** Removes the socket and gives up the lock. */
  release(): void;
}

/** The daemon cannot use this run directory; the message says what to do. */
export class RunDirectoryError extends Error {
  override readonly name = 'RunDirectoryError';
  constructor(
    message: string,
    /** errno name: EWOULDBLOCK when another daemon has it, EACCES, ... */
    readonly code: string,
  ) {
    super(message);
  }
}

export const socketPath = (runDir: string): string => join(runDir, 'tiflow.sock');
export const logPath = (runDir: string): string => join(runDir, 'tiflow.log');
/** What is known of links and of uplinks outlives a daemon. */
export const linkMemoryPath = (runDir: string): string => join(runDir, 'links.json');
export const uplinksPath = (runDir: string): string => join(runDir, 'uplinks.json');
/** What was asked for by `tiflow up` and `down`. */
export const wantsPath = (runDir: string): string => join(runDir, 'wants.json');
const lockPath = (runDir: string): string => join(runDir, 'tiflow.lock');

/** Creates the directory (0700) if needed, locks it, removes a dead daemon's socket.
 * Throws RunDirectoryError when another daemon has it or it cannot be used.
 */
export function claimRunDirectory(path: string): RunDirectory {
  const fd = openLock(path);
  const socket = socketPath(path);
  try {
    lock(fd, path);
    removeStaleSocket(socket);
    ftruncateSync(fd, 0);
    writeSync(fd, `${process.pid}\n`, 0);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  const release = () => {
    rmSync(socket, { force: true });
    closeSync(fd);
  };
  return { path, socketPath: socket, release };
}

/** Removes what a daemon left, and the directory if nothing else is in it.  Only for a run
 * directory that nobody holds; other people's files stay, whatever directory it was.
 */
export function removeRunDirectory(runDir: string): void {
  for (const path of [socketPath, lockPath, logPath, linkMemoryPath, uplinksPath, wantsPath]) {
    rmSync(path(runDir), { force: true });
  }
  try {
    rmdirSync(runDir);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENOTEMPTY' && code !== 'EBUSY') throw error;
  }
}

/** Process id of the daemon that holds the lock now, or undefined if none does. */
export function daemonPid(runDir: string): number | undefined {
  let fd: number;
  try {
    fd = openSync(lockPath(runDir), 'r');
  } catch {
    return undefined;
  }
  try {
    return tryLock(fd) ? undefined : lockedPid(runDir);
  } finally {
    closeSync(fd); // and with it a lock that we got
  }
}

function openLock(path: string): number {
  try {
    makeDirectory(path);
    return openSync(lockPath(path), 'a+', 0o600);
  } catch (cause) {
    const { code = 'unknown error' } = cause as NodeJS.ErrnoException;
    const advice = code === 'EACCES' || code === 'EPERM' ? ' (run as root, or give --run-dir)' : '';
    throw new RunDirectoryError(`use run directory ${path}: ${code}${advice}`, code);
  }
}

/** Makes the directory for its owner alone, and those above it.  Not mkdir's `recursive`: Node 20
 * loops for ever where the file system answers ENOENT to any name, as /proc does.
 */
export function makeDirectory(path: string): void {
  if (existsSync(path)) return;
  if (!existsSync(dirname(path))) makeDirectory(dirname(path));
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

function lock(fd: number, path: string): void {
  if (tryLock(fd)) return;
  const pid = lockedPid(path);
  const who = pid === undefined ? 'another daemon' : `another daemon (pid ${pid})`;
  throw new RunDirectoryError(
    `${who} runs in ${path}; one is enough for all interfaces (tiflow up IF...)`,
    'EWOULDBLOCK',
  );
}

/* The lock belongs to the open file, which flock(1) shares with us, so it stays ours when
 * flock(1) has ended.  Node has no call for it.
 */
function tryLock(fd: number): boolean {
  const flock = spawnSync('flock', ['--nonblock', '--exclusive', '3'], {
    stdio: ['ignore', 'ignore', 'ignore', fd],
  });
  if (flock.error !== undefined) {
    const { code = 'unknown error' } = flock.error as NodeJS.ErrnoException;
    throw new RunDirectoryError(`run flock: ${code} (install util-linux)`, code);
  }
  return flock.status === 0;
}

function lockedPid(runDir: string): number | undefined {
  const pid = Number.parseInt(readFileSync(lockPath(runDir), 'utf8'), 10);
  return Number.isNaN(pid) ? undefined : pid;
}

function removeStaleSocket(path: string): void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) {
    throw new RunDirectoryError(`${path} is in the way: it is no socket; remove it`, 'EEXIST');
  }
  rmSync(path);
}
