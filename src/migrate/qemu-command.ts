/* The receiving QEMU's command line, made of the running one's.
 *
 * QEMU migrates into a process that was started with the same devices.  The running one's command
 * line says them best, whoever wrote it; what is replaced here is only what belongs to the place:
 * taps, sockets, where copied disks are, and how it was started.  qemu(1).
 *
 * Pure.  Which process it is, and which sockets are free at the other place: not here.
 */

import { formatOption, optionValue, parseOption, type QemuOption } from './qemu-option.js';

/** A network device of the guest that is connected to a tap. */
export interface TapNetdev {
  /** Its place among the options: names it, as QEMU lets -nic have no id. */
  at: number;
  id: string | undefined;
  ifname: string | undefined;
  fd: number | undefined;
}

export interface Place {
  /** The machine by its full name, where an alias like "pc" may mean another one there. */
  machine?: string;
  /** Descriptor that the new process inherits, by TapNetdev.at. */
  tapFds: ReadonlyMap<number, number>;
  /** Another path for a file or a unix socket; those that are not in it stay. */
  paths: ReadonlyMap<string, string>;
  /** Where QEMU serves a QMP that is nobody's but ours. */
  ownQmp?: string;
}

const OWN_QMP = 'tiflow-qmp';

/** Cannot be moved as it is; the message says which option and what to do. */
export class QemuCommandError extends Error {
  override readonly name = 'QemuCommandError';
}

/* How it was started, not what it is.  -S and -incoming are set anew. */
const DROPPED_FLAGS = new Set(['daemonize', 'S', 'preconfig']);
const DROPPED_WITH_VALUE = new Set(['incoming', 'pidfile', 'loadvm', 'D']);
/* All others take a value: `qemu-system-x86_64 -help`, versions 5.2 to 9.2. */
const FLAGS = new Set([
  ...DROPPED_FLAGS,
  ...['h', 'help', 'version', 'audio-help', 'no-user-config', 'nodefaults', 'enable-kvm', 's'],
  ...['no-reboot', 'no-shutdown', 'no-acpi', 'no-hpet', 'no-fd-bootchk', 'win2k-hack', 'usb'],
  ...['nographic', 'curses', 'sdl', 'portrait', 'full-screen', 'snapshot', 'mem-prealloc'],
  ...['singlestep', 'one-insn-per-tb', 'only-migratable', 'enable-fips', 'semihosting'],
  ...['xen-attach', 'xen-domid-restrict', 'enable-sync-profile'],
]);

/* Options whose value is a character device or a place for one: "unix:PATH,server=on". */
const BACKENDS = new Set(['qmp', 'qmp-pretty', 'monitor', 'serial', 'parallel', 'debugcon', 'gdb']);
const FILES = new Set(['kernel', 'initrd', 'dtb', 'bios', 'cdrom', 'hda', 'hdb', 'hdc', 'hdd']);
const DISKS = new Set(['drive', 'blockdev', ...[...'abcd'].map((letter) => `hd${letter}`)]);

interface Word {
  /** Without dashes; undefined: not an option, such as a bare disk image. */
  option: string | undefined;
  value: string | undefined;
}

/** The options of a command line without its program. */
function words(argv: readonly string[]): Word[] {
  const found: Word[] = [];
  for (let at = 0; at < argv.length; at += 1) {
    const word = argv[at] ?? '';
    if (!word.startsWith('-') || word === '-') {
      found.push({ option: undefined, value: word });
      continue;
    }
    const option = word.replace(/^--?/, '');
    if (FLAGS.has(option)) found.push({ option, value: undefined });
    else {
      at += 1;
      found.push({ option, value: argv[at] });
    }
  }
  return found;
}

/** What -name says: the guest's name. */
export function guestName(argv: readonly string[]): string | undefined {
  const value = lastValue(argv, 'name');
  if (value === undefined) return undefined;
  const option = parseOption(value);
  return option.head ?? optionValue(option, 'guest');
}

/** It changes its user by itself after it has started. */
export function changesUser(argv: readonly string[]): boolean {
  return words(argv).some(
    ({ option, value = '' }) =>
      option === 'runas' || (option === 'run-with' && /(^|,)user=/.test(value)),
  );
}

/** -machine's type, as written. */
export function machineType(argv: readonly string[]): string | undefined {
  const values = words(argv).filter(({ option }) => option === 'machine' || option === 'M');
  const options = values.map(({ value = '' }) => parseOption(value));
  const types = options.map((option) => option.head ?? optionValue(option, 'type'));
  return types.findLast((type) => type !== undefined);
}

/** Path of the first QMP server on a unix socket, of -qmp, or of -mon with its -chardev. */
export function qmpPath(argv: readonly string[]): string | undefined {
  const all = words(argv).filter(({ option = '', value }) => !isOwnQmp(option, value));
  for (const { option, value = '' } of all) {
    if (option === 'qmp' || option === 'qmp-pretty') {
      const path = unixPath(value);
      if (path !== undefined) return path;
    }
  }
  return all
    .filter(({ option, value = '' }) => option === 'mon' && isControl(parseOption(value)))
    .map(({ value = '' }) => chardevPath(all, parseOption(value)))
    .find((path) => path !== undefined);
}

function isControl(mon: QemuOption): boolean {
  return optionValue(mon, 'mode') === 'control';
}

function chardevPath(all: readonly Word[], mon: QemuOption): string | undefined {
  const id = optionValue(mon, 'chardev') ?? mon.head;
  const chardevs = all.filter(({ option }) => option === 'chardev');
  const found = chardevs
    .map(({ value = '' }) => parseOption(value))
    .find((each) => optionValue(each, 'id') === id);
  return found?.head === 'socket' ? optionValue(found, 'path') : undefined;
}

/** Path of "unix:PATH,..." */
function unixPath(value: string): string | undefined {
  return /^unix:(.+)$/.exec(parseOption(value).head ?? '')?.[1];
}

/** Unix sockets on which this QEMU listens. */
export function socketPaths(argv: readonly string[]): string[] {
  return words(argv).flatMap(({ option = '', value = '' }) => {
    if (isOwnQmp(option, value)) return [];
    if (BACKENDS.has(option)) return unixPath(value) ?? [];
    const parsed = parseOption(value);
    if (option === 'chardev' && parsed.head === 'socket' && isServer(parsed)) {
      return optionValue(parsed, 'path') ?? [];
    }
    return [];
  });
}

function isServer(chardev: QemuOption): boolean {
  return optionValue(chardev, 'server') === 'on';
}

/** Files that QEMU reads when it starts and that are not written: kernel, initrd, firmware, ... */
export function neededFiles(argv: readonly string[]): string[] {
  const startFiles = new Set(['kernel', 'initrd', 'dtb', 'bios', 'cdrom']);
  return words(argv).flatMap(({ option = '', value }) =>
    startFiles.has(option) && value?.startsWith('/') ? value : [],
  );
}

/** Throws QemuCommandError for a kind of network device that cannot be rebuilt. */
export function tapNetdevs(argv: readonly string[]): TapNetdev[] {
  return words(argv).flatMap(({ option = '', value = '' }, at) => {
    if (!['netdev', 'nic', 'net'].includes(option)) return [];
    const netdev = netdevOf(value);
    if (netdev.head !== 'tap' && netdev.head !== 'bridge') return [];
    refuseMultiQueue(option, value, netdev);
    const fd = optionValue(netdev, 'fd');
    return {
      at,
      id: optionValue(netdev, 'id'),
      ifname: optionValue(netdev, 'ifname'),
      // A number; a name would be a descriptor handed over by QMP, which only its giver knows.
      fd: fd !== undefined && /^\d+$/.test(fd) ? Number(fd) : undefined,
    };
  });
}

function refuseMultiQueue(option: string, value: string, netdev: QemuOption): void {
  const many = ['queues', 'fds', 'vhostfds'].find((key) => optionValue(netdev, key) !== undefined);
  if (many === undefined || (many === 'queues' && optionValue(netdev, many) === '1')) return;
  throw new QemuCommandError(
    `-${option} ${value}: a tap with several queues cannot be rebuilt at another place; restart the VM without "${many}"`,
  );
}

function netdevOf(value: string): QemuOption {
  const json = parseJson(value);
  if (json === undefined) {
    const option = parseOption(value);
    return { ...option, head: option.head ?? optionValue(option, 'type') };
  }
  const textOf = (each: unknown) =>
    typeof each === 'boolean' ? (each ? 'on' : 'off') : String(each);
  const keys = Object.entries(json).map(([key, each]): [string, string] => [key, textOf(each)]);
  return { head: String(json.type), keys: keys.filter(([key]) => key !== 'type') };
}

/** The command line for the other place, without its program. */
export function receivingCommand(argv: readonly string[], place: Place): string[] {
  const out: string[] = [];
  for (const [at, { option, value }] of words(argv).entries()) {
    if (option === undefined) {
      // A bare word is a disk image.
      out.push(place.paths.get(value ?? '') ?? value ?? '');
      continue;
    }
    if (DROPPED_FLAGS.has(option) || DROPPED_WITH_VALUE.has(option)) continue;
    // Of the migration that brought it here.
    if (isOwnQmp(option, value)) continue;
    out.push(`-${option}`);
    if (value !== undefined) out.push(placed(option, value, place, place.tapFds.get(at)));
  }
  if (place.machine !== undefined && machineType(argv) === undefined) {
    out.push('-machine', `type=${place.machine}`);
  }
  return [...out, ...ownQmp(place.ownQmp), '-S', '-incoming', 'defer'];
}

function ownQmp(path: string | undefined): string[] {
  if (path === undefined) return [];
  const keys = Object.entries({ id: OWN_QMP, path, server: 'on', wait: 'off' });
  const chardev = formatOption({ head: 'socket', keys });
  return ['-chardev', chardev, '-mon', `chardev=${OWN_QMP},mode=control`];
}

function isOwnQmp(option: string, value = ''): boolean {
  if (option !== 'chardev' && option !== 'mon') return false;
  const parsed = parseOption(value);
  return optionValue(parsed, option === 'mon' ? 'chardev' : 'id') === OWN_QMP;
}

function placed(option: string, value: string, place: Place, tapFd: number | undefined): string {
  if (tapFd !== undefined) return tapOption(value, tapFd);
  if (option === 'machine' || option === 'M') return machineOption(value, place.machine);
  if (FILES.has(option)) return place.paths.get(value) ?? value;
  if (BACKENDS.has(option)) return backendAt(value, place.paths);
  if (DISKS.has(option) || option === 'chardev') return withPaths(value, place.paths);
  return value;
}

function machineOption(value: string, machine: string | undefined): string {
  if (machine === undefined || machineType(['-machine', value]) === undefined) return value;
  const { keys } = parseOption(value);
  return formatOption({ head: machine, keys: keys.filter(([key]) => key !== 'type') });
}

/* ifname, script, downscript, br, helper and vnet_hdr say how to get a tap: it is there already.
 * A vhostfd is somebody's who had opened /dev/vhost-net; QEMU opens it itself.
 */
const HOW_TO_GET_A_TAP = new Set([
  ...['type', 'fd', 'ifname', 'script', 'downscript', 'br', 'helper', 'vnet_hdr', 'queues'],
  'vhostfd',
]);

function tapOption(value: string, fd: number): string {
  const all = netdevOf(value);
  const keys = all.keys.filter(([key]) => !HOW_TO_GET_A_TAP.has(key));
  if (optionValue(all, 'vhostfd') !== undefined && optionValue(all, 'vhost') === undefined) {
    keys.push(['vhost', 'on']);
  }
  return formatOption({ head: 'tap', keys: [...keys, ['fd', String(fd)]] });
}

function backendAt(value: string, paths: ReadonlyMap<string, string>): string {
  const option = parseOption(value);
  const [, scheme = '', path = ''] = /^(unix|file|pipe):(.*)$/.exec(option.head ?? '') ?? [];
  const moved = paths.get(path);
  return moved === undefined ? value : formatOption({ ...option, head: `${scheme}:${moved}` });
}

/* Any value that is one of the paths: "file=", "file.filename=", "filename", "path=". */
function withPaths(value: string, paths: ReadonlyMap<string, string>): string {
  const json = parseJson(value);
  if (json !== undefined) {
    return JSON.stringify(json, (_key, each: unknown) =>
      typeof each === 'string' ? (paths.get(each) ?? each) : each,
    );
  }
  const option = parseOption(value);
  const head = option.head === undefined ? undefined : (paths.get(option.head) ?? option.head);
  const keys = option.keys.map(([key, each]): [string, string] => [key, paths.get(each) ?? each]);
  const same = head === option.head && keys.every(([, v], at) => v === option.keys[at]?.[1]);
  return same ? value : formatOption({ head, keys });
}

function parseJson(value: string): Record<string, unknown> | undefined {
  if (!value.startsWith('{')) return undefined;
  try {
    return JSON.parse(value) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

function lastValue(argv: readonly string[], name: string): string | undefined {
  return words(argv).findLast(({ option }) => option === name)?.value;
}
