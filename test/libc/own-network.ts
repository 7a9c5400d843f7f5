/*
 * A network namespace of the test's own, without a name: it ends with the process.
 *
 * unshare(2) moves the calling thread only, which is the one that runs JavaScript, so its
 * sockets and its child processes are in there and libuv's other threads are not.
 */
import { execFileSync } from 'node:child_process';
import koffi from 'koffi';
import { checked } from '../../src/libc/errno.js';

const CLONE_NEWNET = 0x40000000;
const unshare = koffi.load('libc.so.6').func('int unshare(int flags)');

/** Runs a program; what it printed. */
export const run = (command: string, ...args: string[]): string =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

/** Moves this process into a new network namespace in which lo is up. */
export function ownNetwork(): void {
  checked(unshare(CLONE_NEWNET), 'make a network namespace');
  run('ip', 'link', 'set', 'lo', 'up');
}

/** A pair of connected Ethernet interfaces. */
export function vethPair(): [string, string] {
  run('ip', 'link', 'add', 'a0', 'type', 'veth', 'peer', 'name', 'b0');
  return ['a0', 'b0'];
}
