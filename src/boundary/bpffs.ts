/*
 * The file system that pinned maps and programs live in: <runDir>/bpf.
 *
 * Our own mount, not /sys/fs/bpf: `ip netns exec` hides that one by mounting a new /sys, and
 * several daemons, one per network namespace, must not meet in one directory.
 */
import { existsSync, mkdirSync, readdirSync, rmdirSync, statfsSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import { ERRNO, lastErrno, SystemError } from '../libc/errno.js';

const BPF_FS_MAGIC = 0xcafe4a11;
const MNT_DETACH = 2;

const libc = koffi.load('libc.so.6');
const mount = libc.func(
  'int mount(const char *, const char *target, const char *type, unsigned long flags, str options)',
);
const umount2 = libc.func('int umount2(const char *target, int flags)');

/** Where the pins of a daemon with this run directory are. */
export const pinDirectory = (runDir: string): string => join(runDir, 'bpf');

/** Whether a bpffs is mounted there. */
export const isBpffs = (directory: string): boolean =>
  existsSync(directory) && statfsSync(directory).type === BPF_FS_MAGIC;

/** Mounts a bpffs there unless there is one.  Throws SystemError. */
export function mountBpffs(directory: string): void {
  makeDirectory(directory);
  if (isBpffs(directory)) return;
  if ((mount('bpf', directory, 'bpf', 0, 'mode=700') as number) === 0) return;
  const errno = lastErrno();
  const attempted = `mount bpffs on ${directory}`;
  if (errno === ERRNO.ENODEV) {
    throw new SystemError(attempted, errno, { hint: 'this kernel has no BPF file system' });
  }
  if (errno === ERRNO.EPERM) {
    throw new SystemError(attempted, errno, { hint: 'needs root, or CAP_SYS_ADMIN' });
  }
  throw new SystemError(attempted, errno);
}

/** Removes every pin and the mount.  No-op if there is none. */
export function umountBpffs(directory: string): void {
  if (isBpffs(directory)) {
    unpinAll(directory);
    // Detached: a reader that stands in the directory must not keep us from going.
    if ((umount2(directory, MNT_DETACH) as number) !== 0) {
      throw new SystemError(`unmount ${directory}`, lastErrno());
    }
  }
  if (existsSync(directory)) rmdirSync(directory);
}

/** Removes every pin in a bpffs, or in a directory of one, and the directories below it. */
export function unpinAll(directory: string): void {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    // The kernel puts maps.debug and progs.debug into every bpffs and lets no one remove them.
    if (entry.name.endsWith('.debug')) continue;
    if (entry.isDirectory()) {
      unpinAll(path);
      rmdirSync(path);
    } else {
      unlinkSync(path);
    }
  }
}

function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (cause) {
    const errno = Math.abs((cause as NodeJS.ErrnoException).errno ?? 0);
    throw new SystemError(`create ${directory}`, errno, { cause });
  }
}
