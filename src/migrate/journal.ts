/* What each side has written down of a migration, so that its death at any instant leaves enough to
 * finish it or to take it back: <state_dir>/migrations/ID.json, removed at the end.  What follows
 * from it: two-phase.ts.
 *
 * Written whole and renamed, and synchronized to the disk with its directory: what it says has
 * happened before, also after a power failure.  Sockets are beside the daemon's, in the run
 * directory, which a reboot empties.
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
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { makeDirectory } from '../daemon/config/run-directory.js';
import { fileMark } from './file-mark.js';
import { isAlive, markOf, type ProcessMark } from './process-mark.js';
import { tapMark } from './tap.js';
import { DESTINATION_PHASES, SOURCE_PHASES } from './two-phase.js';

const mark = z.object({ pid: z.int(), started: z.string(), boot: z.string() });
const id = z.string().regex(/^[\w-]{1,80}$/);

const common = { version: z.literal(2), id, owner: mark, name: z.string() };

const sourceShape = z.object({
  ...common,
  side: z.literal('source'),
  remote: z.object({ host: z.string(), rsh: z.array(z.string()), tiflow: z.string() }),
  qemu: mark,
  qmp: z.string(),
  /** Taps that our daemon has the boundary on; none in guest placement. */
  taps: z.array(tapMark),
  /** All taps of the VM. */
  interfaces: z.array(tapMark),
  /** `moved`: the destination has been asked to synchronize them. */
  flows: z.enum(['here', 'frozen', 'exported', 'moved']),
  phase: z.enum(SOURCE_PHASES),
});

/* The receiving QEMU is not in it: it carries the identifier in its environment, from its first
 * instant on.
 */
const destinationShape = z.object({
  ...common,
  side: z.literal('destination'),
  /** Taps that we asked the daemon to take. */
  taps: z.array(tapMark),
  /** Network devices whose link is switched off and on, in guest placement. */
  links: z.array(z.string()),
  /** Files that we made. */
  files: z.array(fileMark),
  /** Sockets that QEMU makes for us, where nobody had listened. */
  sockets: z.array(z.string()),
  phase: z.enum(DESTINATION_PHASES),
});

export type SourceJournal = z.infer<typeof sourceShape>;
export type DestinationJournal = z.infer<typeof destinationShape>;
export type AnyJournal = SourceJournal | DestinationJournal;
type Of = Pick<AnyJournal, 'id' | 'side'>;

/** A source that has not asked for so long does not ask any more; if it does, nothing is known. */
const NEVER_KEPT_MS = 30 * 24 * 3_600_000;

/** A journal is missing, broken, or in somebody's hands. */
export class JournalError extends Error {
  override readonly name = 'JournalError';
}

export class Journals {
  readonly directory: string;
  readonly #sockets: string;

  constructor(o: { stateDir: string; runDir: string }) {
    this.directory = join(o.stateDir, 'migrations');
    this.#sockets = join(o.runDir, 'migrations');
  }

  pathOf(of: Of): string {
    // Both sides may be one machine.
    return join(this.directory, `${of.id}${of.side === 'source' ? '' : '.receiving'}.json`);
  }

  /** For the sockets of one side of one migration. */
  privateDirectory(of: Of): string {
    return join(this.#sockets, `${of.id}.${of.side === 'source' ? 's' : 'd'}`);
  }

  makePrivateDirectory(of: Of): string {
    const directory = this.privateDirectory(of);
    makeDirectory(directory);
    return directory;
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
    synchronize(this.directory);
  }

  /** Throws what keeps a journal from being written here. */
  probe(): void {
    makeDirectory(this.directory);
    const path = join(this.directory, `probe.${process.pid}`);
    closeSync(openSync(path, 'w', 0o600));
    rmSync(path);
  }

  /** Undefined: there is none.  Throws JournalError if it cannot be understood. */
  readSource(id: string): SourceJournal | undefined {
    return this.#read({ id, side: 'source' }, sourceShape);
  }

  readDestination(id: string): DestinationJournal | undefined {
    return this.#read({ id, side: 'destination' }, destinationShape);
  }

  remove(of: Of): void {
    rmSync(this.privateDirectory(of), { recursive: true, force: true });
    // The second is of somebody who was killed while he wrote.
    for (const path of [this.pathOf(of), `${this.pathOf(of)}.new`]) rmSync(path, { force: true });
    try {
      rmdirSync(this.#sockets);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' && code !== 'ENOTEMPTY') throw error;
    }
  }

  /** Those from here that have not come to an end. */
  unfinished(): SourceJournal[] {
    const ids = this.#names().filter((name) => /^[^.]+\.json$/.test(name));
    return ids.flatMap((name) => this.readSource(name.slice(0, -'.json'.length)) ?? []);
  }

  /** Forgets the words "never" that nobody has asked for in a month. */
  prune(): void {
    for (const name of this.#names()) {
      const id = /^([^.]+)\.receiving\.json$/.exec(name)?.[1];
      if (id === undefined) continue;
      const { mtimeMs } = statSync(join(this.directory, name));
      if (Date.now() - mtimeMs < NEVER_KEPT_MS) continue;
      const journal = this.readDestination(id);
      if (journal?.phase === 'never') this.remove(journal);
    }
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

  #names(): string[] {
    try {
      return readdirSync(this.directory);
    } catch {
      return [];
    }
  }

  #read<T extends AnyJournal>(of: Of, shape: z.ZodType<T>): T | undefined {
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
  return markOf(process.pid) ?? { pid: process.pid, started: '', boot: '' };
}

/* fsync(2): a new name is on the disk when its directory is. */
function synchronize(directory: string): void {
  const fd = openSync(directory, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
