/*
 * The benchmark's own process inside a network namespace, for as long as one function runs: what
 * it opens there (sockets, tc, /proc/net) stays there.  setns(2).
 *
 * Spares a process per socket and per look at a counter, whose start would be in every number.
 */
import koffi from 'koffi';
import { checked } from '../src/libc/errno.js';
import { closeFd } from '../src/libc/socket.js';

const O_RDONLY = 0;
const O_CLOEXEC = 0o2000000;
const CLONE_NEWNET = 0x40000000;

const libc = koffi.load('libc.so.6');
const cOpen = libc.func('int open(const char *path, int flags)');
const cSetns = libc.func('int setns(int fd, int kind)');

let home: number | undefined;

/** Runs `f` in the namespace and comes back.  `f` must not await.  Throws SystemError. */
export function insideOf<T>(path: string, f: () => T): T {
  home ??= open('/proc/self/ns/net');
  const there = open(path);
  try {
    checked(cSetns(there, CLONE_NEWNET), `enter ${path}`);
    return f();
  } finally {
    checked(cSetns(home, CLONE_NEWNET), 'come back from a network namespace');
    closeFd(there);
  }
}

function open(path: string): number {
  const fd: number = cOpen(path, O_RDONLY | O_CLOEXEC);
  return checked(fd, `open ${path}`);
}
