/* What each side remembers of a migration, so that its death at any instant leaves enough to
 * finish it or to take it back: <run_dir>/migrations/ID.json, removed at the end.
 *
 * Written whole and renamed, and synchronized to the disk: what it says has happened before.
 */

import {
  closeSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { makeDirectory } from '../daemon/run-directory.js';
import { isAlive, markOf, type ProcessMark } from './process-mark.js';

const mark = z.object({ pid: z.int(), started: z.string() });
const id = z.string().regex(/^[\w-]{1,80}$/);

const common = { version: z.literal(1), id, owner: mark, name: z.string() };

const sourceShape = z.object({
  ...common,
  side: z.literal('source'),
  remote: z.object({ host: z.string(), rsh: z.array(z.string()), tiflow: z.string() }),
  qemu: mark,
  qmp: z.string(),
  /** Taps that our daemon has the boundary on; none in guest placement. */
  taps: z.array(z.string()),
  /** All taps of the VM. */
  interfaces: z.array(z.string()),
  /** `moved`: the destination has been asked to synchronize them. */
  flows: z.enum(['here', 'frozen', 'exported', 'moved']),
  /** `sent`: written before it is sent.  `acknowledged`: the VM runs at the destination. */
  go: z.enum(['none', 'sent', 'acknowledged']),
});

/* The receiving QEMU is not in it: it carries the identifier in its environment, from its first
 * instant on.
 */
const destinationShape = z.object({
  ...common,
  side: z.literal('destination'),
  qmp: z.string(),
  /** Taps that we asked the daemon to take. */
  taps: z.array(z.string()),
  /** Network devices whose link is switched off and on, in guest placement. */
  links: z.array(z.string()),
  /** Files that we made, and sockets that QEMU makes for us. */
  files: z.array(z.string()),
  go: z.enum(['none', 'received']),
});

export type SourceJournal = z.infer<typeof sourceShape>;
export type DestinationJournal = z.infer<typeof destinationShape>;
export type AnyJournal = SourceJournal | DestinationJournal;

/** A journal is missing, broken, or in somebody's hands. */
export class JournalError extends Error {
  override readonly name = 'JournalError';
}

export class Journals {
  readonly directory: string;

  constructor(runDir: string) {
    this.directory = join(runDir, 'migrations');
  }

  pathOf(of: { id: string; side: AnyJournal['side'] }): string {
    // Both sides may be one machine.
    return join(this.directory, `${of.id}${of.side === 'source' ? '' : '.receiving'}.json`);
  }

  /** For the sockets of one side of one migration. */
  privateDirectory(of: { id: string; side: AnyJournal['side'] }): string {
    return join(this.directory, `${of.id}.${of.side === 'source' ? 's' : 'd'}`);
  }

  write(journal: AnyJournal): void {
    makeDirectory(this.directory);
    const path = this.pathOf(journal);
    const fd = openSync(`${path}.new`, 'w', 0o600);
    try {
      writeSync(fd, `${JSON.stringify(journal, undefined, 2)}\n`);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(`${path}.new`, path);
  }

  /** Undefined: there is none.  Throws JournalError if it cannot be understood. */
  readSource(id: string): SourceJournal | undefined {
    return this.#read({ id, side: 'source' }, sourceShape);
  }

  readDestination(id: string): DestinationJournal | undefined {
    return this.#read({ id, side: 'destination' }, destinationShape);
  }

  remove(of: { id: string; side: AnyJournal['side'] }): void {
    rmSync(this.privateDirectory(of), { recursive: true, force: true });
    // The second is of somebody who was killed while he wrote.
    for (const path of [this.pathOf(of), `${this.pathOf(of)}.new`]) rmSync(path, { force: true });
    try {
      rmdirSync(this.directory);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' && code !== 'ENOTEMPTY') throw error;
    }
  }

  /** Identifiers of migrations from here that have not come to an end. */
  unfinished(): SourceJournal[] {
    let names: string[];
    try {
      names = readdirSync(this.directory);
    } catch {
      return [];
    }
    const ids = names.filter((name) => /^[^.]+\.json$/.test(name)).map((name) => name.slice(0, -5));
    return ids.flatMap((each) => this.readSource(each) ?? []);
  }

  /** Makes this process the one that acts on a migration.  Throws JournalError. */
  claim(journal: AnyJournal): void {
    const { owner } = journal;
    if (owner.pid !== process.pid && isAlive(owner)) {
      throw new JournalError(
        `migration ${journal.id} is in the hands of process ${owner.pid}; wait for it, or end it`,
      );
    }
    journal.owner = ourMark();
    this.write(journal);
  }

  #read<T extends AnyJournal>(
    of: { id: string; side: AnyJournal['side'] },
    shape: z.ZodType<T>,
  ): T | undefined {
    if (!id.safeParse(of.id).success) throw new JournalError(`${of.id} is no migration`);
    const path = this.pathOf(of);
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
    const parsed = shape.safeParse(parseJson(text));
    if (parsed.success) return parsed.data;
    throw new JournalError(`${path}: not understood: ${z.prettifyError(parsed.error)}`);
  }
}

export function ourMark(): ProcessMark {
  return markOf(process.pid) ?? { pid: process.pid, started: '' };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
