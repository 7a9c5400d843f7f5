/* Another build of the data plane: of the same ABI, with one constant changed. */
import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { arch } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const SOURCES = fileURLToPath(new URL('../../../bpf', import.meta.url));
const MACHINES: Record<string, string> = { x64: 'x86_64', arm64: 'aarch64' };

/** Compiles it in `directory`; the path of the object. */
export function buildVariant(directory: string): string {
  const copy = join(directory, 'variant');
  cpSync(SOURCES, copy, { recursive: true });
  const source = join(copy, 'boundary.bpf.c');
  const tracking = join(copy, 'track.h');
  const text = readFileSync(tracking, 'utf8');
  const changed = text.replace('f->snd_una - base < 1U << 30', 'f->snd_una - base < 1U << 29');
  if (changed === text) throw new Error(`what is to be changed is not in ${tracking}`);
  writeFileSync(tracking, changed);
  const object = join(copy, 'boundary.bpf.o');
  const headers = `/usr/include/${MACHINES[arch()] ?? arch()}-linux-gnu`;
  execFileSync('clang', [
    ...['-O2', '-g', '-target', 'bpf', '-mcpu=v3', `-I${copy}`, `-I${headers}`],
    ...['-c', source, '-o', object],
  ]);
  return object;
}
