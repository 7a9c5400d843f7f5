/*
 * The data plane's way into the kernel and back into our hands: load and pin, or adopt what a
 * former daemon pinned.
 *
 * `settings` is pinned last and marks that all is there: a daemon that died halfway leaves
 * pins without it, which the next one replaces.  Nothing is attached before that.
 *
 * An upgrade brings another object of the same ABI.  Its programs are loaded with the maps that are
 * pinned, so that flows and moves go on; they are attached in the place of the former ones
 * (boundary.ts), which are unpinned only then.  Whoever dies in between leaves two whole sets, and
 * the next one goes on there.  An object that the kernel refuses changes nothing.
 */
import { existsSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ERRNO, lastErrno, SystemError } from '../libc/errno.js';
import { closeFd } from '../libc/socket.js';
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
  mapId,
  mapPin,
  mapReuse,
  mapSetMaxEntries,
  objectClose,
  objectLoad,
  objectMap,
  objectOpen,
  type Pointer,
  pinFd,
  update,
} from './libbpf.js';
import { BPF_ANY, BpfMap } from './map.js';
import {
  objectName,
  openPin,
  openPrograms,
  type ProgramName,
  pinDescriptors,
  pinnedObjects,
  pinPrograms,
} from './programs.js';

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
/** Ring buffer 5.8, bpf_loop 5.17: the newest of what the programs use. */
const KERNEL_MIN = [5, 17] as const;

export type MapName = keyof typeof MAPS;

/** Descriptors of the loaded data plane. */
export interface DataPlane {
  maps: Record<MapName, BpfMap>;
  programs: Record<ProgramName, number>;
  /** Which object the programs are of (programs.ts). */
  object: string;
  /** Why those of the object that is built are not in its place. */
  refused: unknown;
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

/**
 * The pinned data plane with the programs of this object, loaded first if they are not pinned.
 * Throws SystemError; not if there are others, with which it goes on.
 */
export function openDataPlane(runDir: string, objectPath: string, limits: Limits): DataPlane {
  const directory = pinDirectory(runDir);
  mountBpffs(directory);
  if (isPinned(runDir)) {
    checkVersion(directory);
  } else {
    unpinAll(directory);
    try {
      loadAndPin(directory, objectPath, limits);
    } catch (error) {
      umountBpffs(directory);
      throw error;
    }
  }
  const current = loadOther(directory, objectPath);
  return { ...adopt(directory, current.object), ...current };
}

/** Which object to go on with. */
function loadOther(directory: string, objectPath: string): { object: string; refused: unknown } {
  const pinned = pinnedObjects(directory);
  try {
    const object = objectName(objectPath);
    if (!pinned.includes(object)) loadAndPin(directory, objectPath, {});
    return { object, refused: undefined };
  } catch (error) {
    const [former] = pinned;
    if (former === undefined) throw error;
    return { object: former, refused: error };
  }
}

/** Descriptors of what is pinned.  Throws if it is not of this version. */
function adopt(directory: string, object: string): Pick<DataPlane, 'maps' | 'programs'> {
  const maps = Object.fromEntries(
    Object.keys(MAPS).map((name) => [name, new BpfMap(openPin(directory, name), name)]),
  ) as Record<MapName, BpfMap>;
  for (const [name, size] of Object.entries(MAPS)) {
    if (size !== maps[name as MapName].valueSize) throw wrongVersion(directory, `of map ${name}`);
  }
  return { maps, programs: openPrograms(directory, object) };
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

/** Maps that are pinned are used again, those that are not are pinned as well. */
function loadAndPin(directory: string, objectPath: string, limits: Limits): void {
  clearLog();
  const object = objectOpen(objectPath, null);
  if (object === null) {
    const hint = 'is it built?  `make build` builds it';
    throw libbpfError(`open the data plane ${objectPath}`, lastErrno(), hint);
  }
  const isThere = (name: string) => existsSync(join(directory, name));
  const fresh = (Object.keys(MAPS) as MapName[]).filter((name) => !isThere(name));
  try {
    for (const name of Object.keys(MAPS)) if (isThere(name)) reuseMap(object, directory, name);
    setLimits(object, limits);
    const error = objectLoad(object);
    if (error !== 0) throw libbpfError(`load the data plane ${objectPath}`, error, loadHint(error));
    pinMaps(
      object,
      directory,
      fresh.filter((name) => name !== 'settings'),
    );
    pinPrograms(object, directory, objectName(objectPath));
    if (!fresh.includes('settings')) return;
    writeVersion(object);
    pinMaps(object, directory, ['settings']);
  } finally {
    objectClose(object);
  }
}

/* Most of a small table is for those who have shown that they exist. */
const embryosOf = (flows: number): number =>
  Math.max(1, Math.min(LIMIT.EMBRYOS_MAX, Math.floor(flows / 4)));

function reuseMap(object: Pointer, directory: string, name: string): void {
  const fd = openPin(directory, name);
  const error = mapReuse(mapOf(object, name as MapName), fd); // which it duplicates
  closeFd(fd);
  if (error !== 0) throw libbpfError(`use map ${name} again`, error);
}

function pinMaps(object: Pointer, directory: string, names: readonly MapName[]): void {
  for (const name of names) {
    const error = mapPin(mapOf(object, name), join(directory, name));
    if (error !== 0) throw libbpfError(`pin ${name} in ${directory}`, error);
  }
}

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

function mapOf(object: Pointer, name: MapName): Pointer {
  const map = objectMap(object, name);
  if (map === null) throw new Error(`the data plane has no map ${name}`);
  return map;
}

/** Whether these are the ones that are pinned: a mount may have gone, with all pins in it. */
export function isPinnedHere(runDir: string, { maps }: Pick<DataPlane, 'maps'>): boolean {
  if (!isPinned(runDir)) return false;
  const fd = openPin(pinDirectory(runDir), 'settings');
  try {
    return mapId(fd) === mapId(maps.settings.fd);
  } finally {
    closeFd(fd);
  }
}

/** Pins what is loaded once more, as if it had just been loaded.  Throws SystemError. */
export function pinAgain(runDir: string, plane: DataPlane): void {
  const directory = pinDirectory(runDir);
  mountBpffs(directory);
  unpinAll(directory);
  const { settings, ...others } = plane.maps;
  for (const map of Object.values(others)) pinFd(map.fd, join(directory, map.name));
  pinDescriptors(plane.programs, directory, plane.object);
  pinFd(settings.fd, join(directory, settings.name));
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
