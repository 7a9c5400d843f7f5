/* A run directory for one test, gone however the test ends. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Boundary } from '../../src/boundary/boundary.js';

/** A new run directory; removed at exit together with whatever is pinned in it. */
export function runDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), `tiflow-test-${process.pid}-`));
  process.on('exit', () => {
    Boundary.remove(directory);
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

/** Whether something is mounted under `directory`. */
export const hasMounts = (directory: string): boolean =>
  readFileSync('/proc/self/mounts', 'utf8').includes(` ${directory}`);
