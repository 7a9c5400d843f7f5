/* What a daemon writes down of each VM behind a tap, for the next daemon: who its guest is, and by
 * what it was called before.  `tap` is the interface's index, so that a tap that was made anew under
 * the same name is not mistaken for it.
 */

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type GuestState, parseGuestState } from '../guest/identity.js';

export interface VmRecord {
  version: 1;
  name: string;
  tap: number;
  guest: GuestState;
  /** How its addresses here are asked for; empty: it is at home and keeps its own. */
  request: string[];
  /** By what it was reached at the place that it came from. */
  former: string[];
}

const directory = (runDir: string): string => join(runDir, 'taps');
const file = (runDir: string, name: string): string => join(directory(runDir), `${name}.json`);

export function writeRecord(runDir: string, record: VmRecord): void {
  mkdirSync(directory(runDir), { recursive: true, mode: 0o700 });
  const path = file(runDir, record.name);
  writeFileSync(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** What was written down of this tap; undefined: nothing that can be used. */
export function readRecord(runDir: string, name: string, tap: number): VmRecord | undefined {
  try {
    const record = JSON.parse(readFileSync(file(runDir, name), 'utf8')) as VmRecord;
    if (record.version !== 1 || record.tap !== tap) return undefined;
    return { ...record, guest: parseGuestState(record.guest) };
  } catch {
    return undefined;
  }
}

export function forgetRecord(runDir: string, name: string): void {
  rmSync(file(runDir, name), { force: true });
}

/** Forgets all, with the directory. */
export function removeRecords(runDir: string): void {
  const path = directory(runDir);
  if (!existsSync(path)) return;
  for (const name of readdirSync(path)) rmSync(join(path, name), { force: true });
  rmSync(path, { recursive: true, force: true });
}
