/*
 * Who has a loaded program in hand: a process by a descriptor, or a BPF file system by a pin.  One that
 * is on an interface and in nobody's hand was ours when its pins went, with a mount that was taken away.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { closeFd } from '../libc/socket.js';
import { objectGet } from './libbpf.js';

/* programs-…/boundary_egress */
const PINS_DEEP = 2;

/** In words, to be shown; undefined: nobody.  For rare cases: it reads all of /proc. */
export function holderOf(programId: number): string | undefined {
  return pinHolder(programId) ?? processHolder(programId);
}

function pinHolder(programId: number): string | undefined {
  const mount = bpfMounts().find((directory) => pinsProgram(directory, programId, PINS_DEEP));
  return mount === undefined ? undefined : `pinned in ${mount}`;
}

/* proc(5): "… mount-point … - bpf …" */
function bpfMounts(): string[] {
  return linesOf('/proc/self/mountinfo')
    .filter((line) => line.includes(' - bpf '))
    .map((line) => line.split(' ')[4] ?? '');
}

function pinsProgram(directory: string, programId: number, deep: number): boolean {
  return entriesOf(directory).some((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return deep > 1 && pinsProgram(path, programId, deep - 1);
    const fd = entry.name.endsWith('.debug') ? -1 : objectGet(path);
    if (fd < 0) return false;
    try {
      return linesOf(`/proc/self/fdinfo/${fd}`).includes(idLine(programId));
    } finally {
      closeFd(fd);
    }
  });
}

function processHolder(programId: number): string | undefined {
  const wanted = idLine(programId);
  const pid = entriesOf('/proc')
    .map(({ name }) => name)
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .find((name) => holds(`/proc/${name}/fdinfo`, wanted));
  return pid && `of process ${pid} (${linesOf(`/proc/${pid}/comm`)[0] ?? 'gone'})`;
}

/* proc(5); of a map it is map_id, and those are counted apart. */
const idLine = (programId: number): string => `prog_id:\t${programId}`;

const holds = (directory: string, wanted: string): boolean =>
  entriesOf(directory).some(({ name }) => linesOf(join(directory, name)).includes(wanted));

/* Processes come and go while we look. */
function entriesOf(directory: string) {
  try {
    return readdirSync(directory, { withFileTypes: true });
  } catch {
    return [];
  }
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n');
  } catch {
    return [];
  }
}
