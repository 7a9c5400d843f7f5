/* A small file of what the daemon has to know after it has died: JSON, whole or not at all. */

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { z } from 'zod';

/** What was written; undefined: nothing, or nothing that can be used. */
export function readState<T>(path: string, shape: z.ZodType<T>): T | undefined {
  try {
    return shape.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch {
    return undefined;
  }
}

/** The daemon may die here, and there may be no room.  Throws what the file system says. */
export function writeState(path: string, value: unknown): void {
  const draft = `${path}.new`;
  writeFileSync(draft, `${JSON.stringify(value)}\n`, { mode: 0o600 });
  renameSync(draft, path);
}
