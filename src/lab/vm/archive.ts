/**
 * Trees of files as initramfs archives. The kernel takes several archives one after the other, and
 * a later one replaces files of an earlier one: that is how the layers of a guest are put
 * together (Documentation/driver-api/early-userspace/buffer-format.rst).
 */
import { chmodSync, cpSync, mkdirSync, realpathSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { runCommand } from '../namespace.js';
import type { GuestFile } from './guest-files.js';

export function writeFiles(tree: string, files: readonly GuestFile[]): void {
  for (const [path, mode, content] of files) {
    mkdirSync(dirname(`${tree}/${path}`), { recursive: true });
    writeFileSync(`${tree}/${path}`, content);
    chmodSync(`${tree}/${path}`, mode);
  }
}

/** Copies files of this machine to the same paths in the tree, links followed. */
export function copyFiles(tree: string, paths: readonly string[]): void {
  for (const path of paths) {
    mkdirSync(dirname(tree + path), { recursive: true });
    cpSync(realpathSync(path), tree + path);
  }
}

/** A program and the shared libraries that it is linked with, the loader among them. */
export function withLibraries(programs: readonly string[]): string[] {
  const listed = runCommand(['ldd', ...programs]);
  const libraries = [...listed.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1] ?? '');
  return [...new Set([...programs, ...libraries])].sort();
}

/** Everything in the tree as one archive; all belongs to root. */
export function archive(tree: string, file: string): void {
  const pack = 'cd "$1" && find . | cpio -o -H newc -R 0:0 --quiet > "$2"';
  runCommand(['sh', '-c', pack, 'sh', tree, file]);
}
