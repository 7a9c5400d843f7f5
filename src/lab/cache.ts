/**
 * What the lab makes of Debian packages once and keeps: a directory for each result, whose name
 * says all that went in.
 */
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { runCommand } from './namespace.js';
import { processStart } from './registry.js';

export const CACHE = '/var/cache/tiflow-lab';

/**
 * Builds in a directory of its own and gives the result its name at the end: who finds the name
 * finds the whole. Two builds at once both work, the second one's result is thrown away; what
 * one that was killed has left is removed by the next.
 */
export function buildInCache(cache: string, directory: string, make: (work: string) => void): void {
  mkdirSync(cache, { recursive: true });
  for (const name of readdirSync(cache)) {
    const pid = /^\.build-(\d+)$/.exec(name)?.[1];
    const dead = pid !== undefined && processStart(Number(pid)) === undefined;
    if (dead) rmSync(`${cache}/${name}`, { recursive: true, force: true });
  }
  const work = `${cache}/.build-${process.pid}`;
  rmSync(work, { recursive: true, force: true });
  mkdirSync(`${work}/image`, { recursive: true });
  try {
    make(work);
    renameSync(`${work}/image`, directory);
  } catch (error) {
    const others = ['ENOTEMPTY', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? '');
    if (!others) throw error;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Has apt fetch something; once more with new lists, where the mirror has a newer version only. */
export function withNewLists(fetch: () => void): void {
  try {
    fetch();
  } catch {
    runCommand(['apt-get', 'update', '-q']);
    fetch();
  }
}
