/**
 * The initramfs of one lab's guests: the layers of the image, then what only this lab has: the
 * host key, who may log in, and, for a guest that has its own tiflow, this very build of it.
 */
import { appendFileSync, cpSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { archive, writeFiles } from './archive.js';
import { tiflowFiles } from './guest-files.js';
import type { GuestImage } from './image.js';

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));

/** Private host key and public user key, as OpenSSH's files have them. */
export interface GuestKeys {
  hostKey: string;
  userKeyPublic: string;
}

/** Writes the initramfs to `file`. */
export function writeInitrd(
  file: string,
  image: GuestImage,
  o: { keys: GuestKeys; tiflow: boolean },
): void {
  const tree = `${file}.tree`;
  mkdirSync(tree, { recursive: true });
  writeFiles(tree, [
    ['etc/ssh/host_key', 0o600, o.keys.hostKey],
    ['etc/ssh/authorized_key', 0o644, o.keys.userKeyPublic],
  ]);
  if (o.tiflow) copyTiflow(tree);
  archive(tree, `${file}.own`);
  cpSync(image.base, file);
  for (const layer of [...(o.tiflow ? [image.node] : []), `${file}.own`]) {
    appendFileSync(file, readFileSync(layer));
  }
  rmSync(tree, { recursive: true });
  rmSync(`${file}.own`);
}

/** This build, as `make build` leaves it, with the packages that it needs at run time. */
function copyTiflow(tree: string): void {
  const to = `${tree}/opt/tiflow`;
  const copy = (path: string): void =>
    cpSync(`${ROOT}${path}`, `${to}/${path}`, { recursive: true, dereference: true });
  for (const path of ['package.json', 'dist/src', 'bpf/boundary.bpf.o', ...runtimeModules()]) {
    copy(path);
  }
  writeFiles(tree, tiflowFiles);
}

/** Paths of the npm packages that are no development dependencies and are for this platform. */
function runtimeModules(): string[] {
  const lock = JSON.parse(readFileSync(`${ROOT}node_modules/.package-lock.json`, 'utf8')) as {
    packages: Record<string, { dev?: boolean; devOptional?: boolean }>;
  };
  return Object.entries(lock.packages)
    .filter(([, { dev, devOptional }]) => !dev && !devOptional)
    .map(([path]) => path);
}
