/*
 * The data plane's way into the kernel and back into our hands: load and pin, or adopt what a
 * former daemon pinned.
 *
 * `settings` is pinned last and marks a complete set: a daemon that died halfway leaves
 * pins without it, which the next one replaces.  Nothing is attached before that.
 */
import { existsSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ERRNO, lastErrno, SystemError } from '../libc/errno.js';
import {
  ABI_VERSION,
  FLOW_SIZE,
  HALF_OPEN_SIZE,
  HALF_SIZE,
  LIMIT,
  PLACE_SIZE,
  PLAIN_PEER_SIZE,
  PLAIN_SIZE,
  SETTINGS_SIZE,
  TUPLE_SIZE,
  WIRE_SIZE,
} from './abi.gen.js';
import { mountBpffs, pinDirectory, umountBpffs, unpinAll } from './bpffs.js';
import {
  clearLog,
  libbpfError,
  mapFd,
  mapPin,
  mapSetMaxEntries,
  objectClose,
  objectGet,
  objectLoad,
  objectMap,
  objectOpen,
  objectProgram,
  type Pointer,
  programPin,
  update,
} from './libbpf.js';
import { BPF_ANY, BpfMap } from './map.js';

/** Maps by their names in the data plane and the sizes of their values; `settings` last. */
const MAPS = {
  flows: FLOW_SIZE,
  wires: WIRE_SIZE,
  tifids: TUPLE_SIZE,
  half_open: HALF_OPEN_SIZE,
  embryos: TUPLE_SIZE,
  plain: PLAIN_SIZE,
  plain_peers: PLAIN_PEER_SIZE,
  places: PLACE_SIZE,
  halves: HALF_SIZE,
  counters: 8,
  budgets: 8,
  events: 0,
  news: 0,
  guests: 0,
  settings: SETTINGS_SIZE,
} as const;
const PROGRAMS = [
  'boundary_egress',
  'boundary_ingress',
  'gateway_egress',
  'gateway_ingress',
  'tap_egress',
  'tap_ingress',
  'boundary_command',
] as const;

/** Ring buffer 5.8, bpf_loop 5.17: the newest of what the programs use. */
const KERNEL_MIN = [5, 17] as const;

export type MapName = keyof typeof MAPS;
export type ProgramName = (typeof PROGRAMS)[number];

/** Descriptors of the loaded data plane. */
export interface DataPlane {
  maps: Record<MapName, BpfMap>;
  programs: Record<ProgramName, number>;
}

export interface Limits {
  flows?: number;
  halfOpen?: number;
}

export const DEFAULT_OBJECT = fileURLToPath(
  new URL('../../../bpf/boundary.bpf.o', import.meta.url),
);

/** Whether a complete set of pins is there. */
export const isPinned = (runDir: string): boolean =>
  existsSync(join(pinDirectory(runDir), 'settings'));

/** The pinned data plane, loaded first if there is none.  Throws SystemError. */
export function openDataPlane(runDir: string, objectPath: string, limits: Limits): DataPlane {
  const directory = pinDirectory(runDir);
  mountBpffs(directory);
  if (!isPinned(runDir)) {
    unpinAll(directory);
    try {
      loadAndPin(directory, objectPath, limits);
    } catch (error) {
      umountBpffs(directory);
      throw error;
    }
  }
  return adopt(directory);
}

/** Descriptors of what is pinned.  Throws if it is not of this version. */
export function adopt(directory: string): DataPlane {
  checkVersion(directory);
  const maps = Object.fromEntries(
    Object.keys(MAPS).map((name) => [name, new BpfMap(openPin(directory, name), name)]),
  ) as Record<MapName, BpfMap>;
  for (const [name, size] of Object.entries(MAPS)) {
    if (size !== maps[name as MapName].valueSize) throw wrongVersion(directory, `of map ${name}`);
  }
  return { maps, programs: adoptPrograms(directory) };
}

/** The descriptors of those programs that are pinned: another version has others. */
export function adoptAnyPrograms(directory: string): Partial<Record<ProgramName, number>> {
  const pinned = PROGRAMS.filter((name) => existsSync(join(directory, name)));
  return Object.fromEntries(pinned.map((name) => [name, openPin(directory, name)]));
}

function adoptPrograms(directory: string): Record<ProgramName, number> {
  return Object.fromEntries(PROGRAMS.map((name) => [name, openPin(directory, name)])) as Record<
    ProgramName,
    number
  >;
}

function openPin(directory: string, name: string): number {
  const fd = objectGet(join(directory, name));
  if (fd < 0) throw new SystemError(`open pinned ${name} in ${directory}`, -fd);
  return fd;
}

/** The version is the first field of `settings` in all versions. */
function checkVersion(directory: string): void {
  const settings = new BpfMap(openPin(directory, 'settings'), 'settings');
  const version = settings.get(new Uint8Array(4))?.getUint32(0, true);
  settings.close();
  if (version !== ABI_VERSION) {
    throw wrongVersion(directory, `${version}; this program speaks ${ABI_VERSION}`);
  }
}

const wrongVersion = (directory: string, detail: string): SystemError =>
  new SystemError(`adopt the boundary pinned in ${directory}`, ERRNO.EPROTO, {
    hint: `it has another layout: ${detail}.  Run \`tiflow down\` first; its moved flows will end`,
  });

function loadAndPin(directory: string, objectPath: string, limits: Limits): void {
  clearLog();
  const object = objectOpen(objectPath, null);
  if (object === null) {
    const hint = 'is it built?  `make build` builds it';
    throw libbpfError(`open the data plane ${objectPath}`, lastErrno(), hint);
  }
  try {
    setLimits(object, limits);
    const error = objectLoad(object);
    if (error !== 0) throw libbpfError(`load the data plane ${objectPath}`, error, loadHint(error));
    writeVersion(object);
    pin(object, directory);
  } finally {
    objectClose(object);
  }
}

/* Most of a small table is for those who have shown that they exist. */
const embryosOf = (flows: number): number =>
  Math.max(1, Math.min(LIMIT.EMBRYOS_MAX, Math.floor(flows / 4)));

function setLimits(object: Pointer, limits: Limits): void {
  const entries: [MapName, number | undefined][] = [
    ['flows', limits.flows],
    ['wires', limits.flows && 2 * limits.flows], // each flow's, and former ones
    ['tifids', limits.flows],
    ['half_open', limits.halfOpen],
    ['embryos', limits.flows && embryosOf(limits.flows)],
  ];
  for (const [name, limit] of entries) {
    if (limit === undefined) continue;
    const error = mapSetMaxEntries(mapOf(object, name), limit);
    if (error !== 0) throw libbpfError(`limit map ${name} to ${limit} entries`, error);
  }
}

/** Before pinning, so that no one ever sees a pinned map without a version. */
function writeVersion(object: Pointer): void {
  const settings = Buffer.alloc(SETTINGS_SIZE);
  settings.writeUInt32LE(ABI_VERSION);
  const fd = mapFd(mapOf(object, 'settings'));
  const error = update(fd, new Uint8Array(4), settings, BPF_ANY);
  if (error !== 0) throw libbpfError('write the version of the data plane', error);
}

function pin(object: Pointer, directory: string): void {
  for (const name of PROGRAMS) {
    const program = objectProgram(object, name);
    if (program === null) throw new Error(`the data plane has no program ${name}`);
    const error = programPin(program, join(directory, name));
    if (error !== 0) throw libbpfError(`pin ${name} in ${directory}`, error);
  }
  for (const name of Object.keys(MAPS) as MapName[]) {
    const error = mapPin(mapOf(object, name), join(directory, name));
    if (error !== 0) throw libbpfError(`pin ${name} in ${directory}`, error);
  }
}

function mapOf(object: Pointer, name: MapName): Pointer {
  const map = objectMap(object, name);
  if (map === null) throw new Error(`the data plane has no map ${name}`);
  return map;
}

/** What to do when the kernel refuses the programs; undefined: the errno says it. */
function loadHint(error: number): string | undefined {
  if (error === -ERRNO.EPERM) return undefined;
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const [majorMin, minorMin] = KERNEL_MIN;
  if (major < majorMin || (major === majorMin && minor < minorMin)) {
    return `needs Linux ${majorMin}.${minorMin} or later, this is ${release()}`;
  }
  if (!existsSync('/sys/kernel/btf/vmlinux')) {
    return 'this kernel has no BTF (CONFIG_DEBUG_INFO_BTF), see `tiflow doctor`';
  }
  return "the kernel's verifier refused it; its log is the cause of this error";
}
