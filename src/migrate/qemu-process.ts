/* Running QEMUs, found in /proc: by name, or by QMP socket.
 *
 * Only those of our own network namespace: one /proc may show the machines of several.
 */

import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { markOf, type ProcessMark } from './process-mark.js';
import { guestName, qmpPath, tapNetdevs } from './qemu-command.js';

export interface QemuProcess {
  mark: ProcessMark;
  /** As it is called: for the other place, where paths may differ. */
  program: string;
  /** Without the program. */
  argv: string[];
  name: string | undefined;
  qmpPath: string | undefined;
  uid: number;
  gid: number;
}

/** All that may be seen. */
export function runningQemus(): QemuProcess[] {
  const here = readlinkSync('/proc/self/ns/net');
  return pids().flatMap((pid) => qemuOf(pid, here) ?? []);
}

function pids(): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number);
}

/** Those that `what` means: a guest's name, or the path of a QMP socket. */
export function findQemus(what: string): QemuProcess[] {
  const isPath = what.includes('/');
  return runningQemus().filter((qemu) =>
    isPath ? qemu.qmpPath === resolve(what) : qemu.name === what,
  );
}

/** The environment of a receiving QEMU names its migration: no instant at which nobody knows it. */
export const MIGRATION_VARIABLE = 'TIFLOW_MIGRATION';

/** Those that live, whatever they are called, and whoever holds their QMP. */
export function qemusOfMigration(id: string): ProcessMark[] {
  const entry = `${MIGRATION_VARIABLE}=${id}`;
  return pids()
    .filter((pid) => textOf(`/proc/${pid}/environ`).split('\0').includes(entry))
    .flatMap((pid) => markOf(pid) ?? []);
}

/** Interface names of its taps, by TapNetdev.at. */
export function tapNames(qemu: QemuProcess): Map<number, string> {
  const open = openTaps(qemu.mark.pid);
  const names = new Map<number, string>();
  const netdevs = tapNetdevs(qemu.argv);
  for (const { at, fd, ifname } of netdevs) {
    const name = (fd === undefined ? undefined : open.get(fd)) ?? ifname;
    if (name !== undefined && !name.includes('%')) names.set(at, name);
  }
  // Those that QEMU named itself ("tap0"): what is left, in the order in which it opened them.
  const taken = new Set(names.values());
  const left = [...open.values()].filter((name) => !taken.has(name));
  for (const { at } of netdevs) {
    const name = names.has(at) ? undefined : left.shift();
    if (name !== undefined) names.set(at, name);
  }
  return names;
}

/**
 * Devices of the machine that it has open: /dev/kvm, /dev/vhost-net, what is passed through.  Not
 * taps and terminals, which belong to the place, and not those that every machine has.
 */
export function openDevices(pid: number): string[] {
  const paths = entriesOf(`/proc/${pid}/fd`).map((fd) => linkOf(`/proc/${pid}/fd/${fd}`));
  const isTold = (path: string) => path.startsWith('/dev/') && !EVERYWHERE.test(path);
  return [...new Set(paths.filter(isTold))].filter(isCharacterDevice).sort();
}

const EVERYWHERE = /^\/dev\/(null|zero|full|u?random|tty\w*|console|ptmx|net\/tun|pts\/.*)$/;

function isCharacterDevice(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isCharacterDevice() ?? false;
}

function qemuOf(pid: number, here: string): QemuProcess | undefined {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
    const [program = '', ...argv] = words;
    if (!/^(qemu-system-\w+|qemu-kvm|kvm)$/.test(basename(program))) return undefined;
    if (readlinkSync(`/proc/${pid}/ns/net`) !== here) return undefined;
    const mark = markOf(pid);
    if (mark === undefined) return undefined;
    const cwd = readlinkSync(`/proc/${pid}/cwd`);
    const path = qmpPath(argv);
    const { uid, gid } = statSync(`/proc/${pid}`);
    return {
      ...{ mark, program, argv, uid, gid, name: guestName(argv) },
      qmpPath: path === undefined ? undefined : resolve(cwd, path),
    };
  } catch {
    return undefined; // It has ended meanwhile, or is not ours to look into.
  }
}

/* Descriptors of taps: "iff:" in fdinfo, drivers/net/tun.c: tun_chr_show_fdinfo. */
function openTaps(pid: number): Map<number, string> {
  const taps = new Map<number, string>();
  for (const entry of entriesOf(`/proc/${pid}/fdinfo`)) {
    const name = /^iff:\t(\S+)$/m.exec(textOf(`/proc/${pid}/fdinfo/${entry}`))?.[1];
    if (name !== undefined) taps.set(Number(entry), name);
  }
  return new Map([...taps].sort(([a], [b]) => a - b));
}

function entriesOf(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
