/*
 * Makes whoever gets the addresses of an interface get them anew, on a link that is known to be another
 * one: nobody is told on suspicion (verification.ts).  Each in the mildest way that works (measured,
 * decision 20), and none gives a lease back: what is sent to a server of another network either goes
 * astray, or takes the address away from connections that still wait for it.
 *
 *   NetworkManager    device connect       `reapply` does not ask; nothing is told to what has ports
 *   systemd-networkd  reconfigure          `renew` asks the old server, and does not hear a NAK
 *   dhcpcd            rebind (SIGHUP)
 *   udhcpc            SIGUSR1 twice        once: it stays with its old server for seconds
 *   dhclient          started again        it takes no signals
 *
 * Not a DHCP client itself, and not for IPv6: see autoconf.ts.
 */
import { readFileSync } from 'node:fs';
import { readFile, readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { run, start } from '../libc/command.js';
import { ERRNO, SystemError } from '../libc/errno.js';
import type { LeaseOwner } from './lease-owner.js';
import type { ProgramRecord } from './processes.js';

const STOP_TIMEOUT_MS = 2000;
const SIGNAL_TIMEOUT_MS = 2000;
const POLL_MS = 2;
const SIGUSR1_PENDING = 1n << 9n;

/**
 * Done when the owner has been told, not when an address is there: that one is seen by the monitor.
 * Throws SystemError.
 */
export async function askAnew(owner: LeaseOwner, interfaceName: string): Promise<void> {
  const attempted = `have ${owner.name} get the addresses of ${interfaceName} anew`;
  switch (owner.name) {
    case 'NetworkManager':
      await run(attempted, ['nmcli', '--wait', '0', 'device', 'connect', interfaceName]);
      return;
    case 'systemd-networkd':
      await run(attempted, ['networkctl', 'reconfigure', interfaceName]);
      return;
    case 'dhcpcd':
      await run(attempted, ['dhcpcd', '-n', interfaceName]);
      return;
    case 'udhcpc':
      await renewUdhcpc(owner.program.pid, attempted);
      return;
    case 'dhclient':
      await restartDhclient(owner.program, attempted);
      return;
    case 'connmand':
      return; // It is never told.
  }
}

/** Runs the command of the configuration, with the interface as $1.  Throws SystemError. */
export async function runRenewal(command: string, interfaceName: string): Promise<void> {
  const attempted = `renew the addresses of ${interfaceName}`;
  await run(attempted, ['sh', '-c', command, 'renew', interfaceName]);
}

/* "Two SIGUSR1 received, start things over" (busybox, udhcpc.c): the first has it ask its old server,
 * the second, before that has answered, forgets the lease without a RELEASE.  One at a time: two that
 * are pending together are one.
 */
async function renewUdhcpc(pid: number, attempted: string): Promise<void> {
  signal(pid, 'SIGUSR1', attempted);
  const deadline = Date.now() + SIGNAL_TIMEOUT_MS;
  while (await isSigusr1Pending(pid)) {
    if (Date.now() > deadline) {
      const hint = `udhcpc (pid ${pid}) does not react: is it stopped?`;
      throw new SystemError(attempted, ERRNO.ETIMEDOUT ?? 110, { hint });
    }
    await sleep(POLL_MS);
  }
  signal(pid, 'SIGUSR1', attempted);
}

async function isSigusr1Pending(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  const masks = status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm);
  return [...masks].some(([, mask]) => (BigInt(`0x${mask}`) & SIGUSR1_PENDING) !== 0n);
}

/* Its new process asks for the address that is in its file of leases, is refused, and goes on from
 * there.  As it was started: what its script writes is for others to read, and our umask is not.
 */
async function restartDhclient({ pid, argv }: ProgramRecord, attempted: string): Promise<void> {
  const executable = await readlink(`/proc/${pid}/exe`).catch(() => 'dhclient');
  const umask = umaskOf(pid);
  await stop(pid, attempted);
  start(attempted, ['sh', '-c', `umask ${umask}; exec "$0" "$@"`, executable, ...argv]);
}

function umaskOf(pid: number): string {
  try {
    return /^Umask:\s*([0-7]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '022';
  } catch {
    return '022';
  }
}

async function stop(pid: number, attempted: string): Promise<void> {
  signal(pid, 'SIGTERM', attempted);
  const deadline = Date.now() + STOP_TIMEOUT_MS;
  while (isAlive(pid)) {
    if (Date.now() > deadline) signal(pid, 'SIGKILL', attempted);
    await sleep(POLL_MS);
  }
}

function signal(pid: number, name: NodeJS.Signals, attempted: string): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    const { code, errno = 0 } = error as NodeJS.ErrnoException;
    if (code === 'ESRCH' && (name === 'SIGTERM' || name === 'SIGKILL')) return;
    throw new SystemError(`${attempted}: send ${name} to process ${pid}`, Math.abs(errno));
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
