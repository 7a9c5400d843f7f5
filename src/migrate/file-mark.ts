/* A file named so that a later one of the same name is not taken for it: what is removed must be
 * what was made, however long ago that was.
 */

import { type BigIntStats, fstatSync, rmSync, statSync } from 'node:fs';
import { z } from 'zod';

export const fileMark = z.object({
  path: z.string(),
  device: z.string(),
  inode: z.string(),
  /** When it was made, in ns: an inode's number is used again at once. */
  born: z.string(),
});
export type FileMark = z.infer<typeof fileMark>;

/** Of a file that is open. */
export function fileMarkOf(path: string, fd: number): FileMark {
  return { path, ...identityOf(fstatSync(fd, { bigint: true })) };
}

/** Removes it, if it is still there and still the same. */
export function removeFile({ path, ...identity }: FileMark): void {
  const now = statSync(path, { bigint: true, throwIfNoEntry: false });
  if (now === undefined) return;
  const { device, inode, born } = identityOf(now);
  if (device !== identity.device || inode !== identity.inode || born !== identity.born) return;
  rmSync(path, { force: true });
}

function identityOf({ dev, ino, birthtimeNs }: BigIntStats): Omit<FileMark, 'path'> {
  return { device: String(dev), inode: String(ino), born: String(birthtimeNs) };
}
