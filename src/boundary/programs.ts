/*
 * The programs that are pinned: one set for each object that was loaded, in a directory named after
 * it, beside the maps that all of them share.
 *
 *   bpf/flows, wires, ..., settings      maps
 *   bpf/programs-0123456789abcdef/       a set: boundary_egress, boundary_ingress, ...
 *   bpf/draft-0123456789abcdef/          one that is being pinned; no names with dots in a bpffs
 *
 * A set is pinned under its name as a whole or not at all (rename(2)).  While programs are being
 * replaced there are two, and each interface carries one or the other: both speak the same ABI.
 */
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { SystemError } from '../libc/errno.js';
import { unpinAll } from './bpffs.js';
import {
  libbpfError,
  objectGet,
  objectProgram,
  type Pointer,
  pinFd,
  programPin,
} from './libbpf.js';

export const PROGRAMS = [
  'boundary_egress',
  'boundary_ingress',
  'gateway_egress',
  'gateway_ingress',
  'tap_egress',
  'tap_ingress',
  'boundary_command',
] as const;
export type ProgramName = (typeof PROGRAMS)[number];

/* BPF_OBJ_NAME_LEN, less a NUL. */
const KERNEL_NAME_CHARACTERS = 15;

/** Whether a filter is called as ours are: "boundary_egress:[4711]". */
export const isOurName = (filter: string): boolean =>
  PROGRAMS.some((name) => filter.startsWith(`${name.slice(0, KERNEL_NAME_CHARACTERS)}:`));

const PREFIX = 'programs-';
const DRAFT = 'draft-';
const NAME_DIGITS = 16;

/** The name of an object file's set: it is the same if and only if the file is. */
export function objectName(objectPath: string): string {
  const digest = createHash('sha256').update(readFileSync(objectPath)).digest('hex');
  return digest.slice(0, NAME_DIGITS);
}

/** The objects whose programs are pinned: one, but for a replacement that was interrupted. */
export function pinnedObjects(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => name.startsWith(PREFIX))
    .map((name) => name.slice(PREFIX.length));
}

/* The first versions had one set, beside the maps. */
const FLAT = '';

const setDirectory = (directory: string, object: string): string =>
  object === FLAT ? directory : join(directory, `${PREFIX}${object}`);

/** Pins the programs of a loaded object.  Throws SystemError. */
export function pinPrograms(loaded: Pointer, directory: string, object: string): void {
  pinSet(directory, object, (name, path) => {
    const program = objectProgram(loaded, name);
    if (program === null) throw new Error(`the data plane has no program ${name}`);
    const error = programPin(program, path);
    if (error !== 0) throw libbpfError(`pin ${name} in ${path}`, error);
  });
}

/** The same of programs that are in our hands.  Throws SystemError. */
export function pinDescriptors(
  programs: Record<ProgramName, number>,
  directory: string,
  object: string,
): void {
  pinSet(directory, object, (name, path) => pinFd(programs[name], path));
}

/* As a whole or not at all. */
function pinSet(
  directory: string,
  object: string,
  pin: (name: ProgramName, path: string) => void,
): void {
  const finished = setDirectory(directory, object);
  const draft = join(directory, `${DRAFT}${object}`);
  for (const name of readdirSync(directory)) {
    // Of a daemon that died here.
    if (name.startsWith(DRAFT)) removeDirectory(join(directory, name));
  }
  mkdirSync(draft, { mode: 0o700 });
  for (const name of PROGRAMS) pin(name, join(draft, name));
  renameSync(draft, finished);
}

/** Descriptors of a whole set.  Throws SystemError. */
export function openPrograms(directory: string, object: string): Record<ProgramName, number> {
  const set = setDirectory(directory, object);
  return Object.fromEntries(PROGRAMS.map((name) => [name, openPin(set, name)])) as Record<
    ProgramName,
    number
  >;
}

interface AnyPrograms {
  object: string;
  programs: Partial<Record<ProgramName, number>>;
}

/** Of each set those programs that are there: another version has others. */
export function openAnyPrograms(directory: string): AnyPrograms[] {
  return [FLAT, ...pinnedObjects(directory)].map((object) => {
    const set = setDirectory(directory, object);
    const names = PROGRAMS.filter((name) => existsSync(join(set, name)));
    const programs = Object.fromEntries(names.map((name) => [name, openPin(set, name)]));
    return { object, programs };
  });
}

/** The same of all objects but one. */
export const openFormer = (directory: string, current: string): AnyPrograms[] =>
  openAnyPrograms(directory).filter(({ object }) => object !== current);

function removeDirectory(directory: string): void {
  unpinAll(directory);
  rmdirSync(directory);
}

/** Removes a set. */
export function unpinPrograms(directory: string, object: string): void {
  const set = setDirectory(directory, object);
  for (const name of PROGRAMS) rmSync(join(set, name), { force: true });
  if (object !== FLAT) rmdirSync(set);
}

/** A pinned object.  Throws SystemError. */
export function openPin(directory: string, name: string): number {
  const fd = objectGet(join(directory, name));
  if (fd < 0) throw new SystemError(`open pinned ${name} in ${directory}`, -fd);
  return fd;
}
