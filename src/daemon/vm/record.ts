/* What a daemon writes down of each VM behind a tap, for the next daemon: who its guest is, and by
 * what it was called before.  `tap` is the interface's index, so that a tap that was made anew under
 * the same name is not mistaken for it.
 */

import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { type GuestState, parseGuestState } from '../../guest/identity.js';
import { type Address, address } from '../../wire/address.js';
import { readState, writeState } from '../config/state-file.js';

export interface VmRecord {
  version: 1;
  name: string;
  tap: number;
  guest: GuestState;
  /** How its addresses here are asked for; empty: it is at home and keeps its own. */
  request: string[];
  /** By what it was reached at the place that it came from. */
  former: Address[];
  /** Its flows have been packed: it may live elsewhere. */
  left: boolean;
}

const shape = z.object({
  version: z.literal(1),
  name: z.string(),
  tap: z.int(),
  guest: z.unknown().transform((guest) => parseGuestState(guest)),
  request: z.array(z.string()),
  former: z.array(z.string().transform((text) => address(text))),
  left: z.boolean(),
});

const SUFFIX = '.json';
const directory = (runDir: string): string => join(runDir, 'taps');
const file = (runDir: string, name: string): string => join(directory(runDir), `${name}${SUFFIX}`);

/** Whole or not at all, whenever the daemon dies. */
export function writeRecord(runDir: string, record: VmRecord): void {
  mkdirSync(directory(runDir), { recursive: true, mode: 0o700 });
  writeState(file(runDir, record.name), record);
}

/** What was written down of this tap; undefined: nothing that can be used. */
export function readRecord(runDir: string, name: string, tap: number): VmRecord | undefined {
  const record = readState(file(runDir, name), shape);
  return record?.tap === tap ? record : undefined;
}

export function forgetRecord(runDir: string, name: string): void {
  rmSync(file(runDir, name), { force: true });
}

/** Forgets all but those of these taps, and what a daemon that died was writing. */
export function keepRecords(runDir: string, names: readonly string[]): void {
  const kept = new Set(names.map((name) => `${name}${SUFFIX}`));
  for (const name of recordFiles(runDir)) {
    if (!kept.has(name)) rmSync(join(directory(runDir), name), { force: true });
  }
}

/** Forgets all, with the directory. */
export function removeRecords(runDir: string): void {
  rmSync(directory(runDir), { recursive: true, force: true });
}

function recordFiles(runDir: string): string[] {
  try {
    return readdirSync(directory(runDir));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
