/* The source's side of two-phase.ts, for whoever acts: the migration itself, the guard of one that was
 * killed, or `tiflow migrate --recover ID`.
 *
 * Never two running copies: the destination runs nothing without `go`, and says only what it has
 * written down.  Never none, as long as there is a word to be had: what was stopped here is
 * continued here or there.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { giveBack } from './discard.js';
import type { Journals, SourceJournal } from './journal.js';
import { removeMirrors } from './mirror.js';
import { endProcess, hasEnded, isAlive } from './process-mark.js';
import type { WordAnswer } from './protocol.js';
import { Qmp } from './qmp.js';
import { connectRemote, type Remote } from './remote.js';
import { resumeVm } from './source-qemu.js';
import { Undecided } from './stages.js';
import { removeTap, stillTheirs } from './tap.js';
import { type SourceEffect, type SourcePhase, sourceStep, type Word } from './two-phase.js';
import type { VmDaemon } from './vm-daemon.js';

const RECOVER_TIMEOUT_MS = 60_000;
const RESUME_TIMEOUT_MS = 30_000;
/** Its connection is closed before it is gone. */
const DIES_WITHIN_MS = 500;
const QUIT_TIMEOUT_MS = 10_000;
const SYNCHRONIZE_BACK_MS = 2_000;
const BACK_OFF_FIRST_MS = 250;
const BACK_OFF_MAX_MS = 8_000;

export interface SourceSide {
  journals: Journals;
  journal: SourceJournal;
  daemon: VmDaemon;
  /** For how long the destination is tried to be reached. */
  reconnectMs: number;
  /** A QMP connection to the source's QEMU that is open already. */
  qmp?: Qmp | undefined;
  /** An operator's, for when the destination has none. */
  operatorWord?: Word | undefined;
}

/** The source's QEMU has ended by itself: nothing can be resumed, here or anywhere. */
export class VmGone extends Error {
  override readonly name = 'VmGone';
}

export type Recovered = 'resumed' | 'migrated' | 'ended-there';

/**
 * Ends a migration that nobody drives any more.  Throws Undecided when it cannot be ended yet, and
 * VmGone when it has been ended, but there was no VM left to be resumed.
 */
export async function recover(side: SourceSide): Promise<Recovered> {
  side.journals.claim(side.journal);
  const recovery = new Recovery(side);
  try {
    await recovery.follow(sourceStep(side.journal.phase, { event: 'recover' }));
  } finally {
    await recovery.close();
  }
  if (recovery.gone !== undefined) throw recovery.gone;
  if (side.journal.phase !== 'moved') return 'resumed';
  return recovery.word === 'ran' ? 'ended-there' : 'migrated';
}

class Recovery {
  readonly #side: SourceSide;
  #remote: Remote | undefined;
  word: Word | undefined;
  gone: VmGone | undefined;

  constructor(side: SourceSide) {
    this.#side = side;
  }

  async close(): Promise<void> {
    await this.#remote?.close();
  }

  async follow(effects: readonly SourceEffect[]): Promise<void> {
    for (const effect of effects) await this.#follow(effect);
  }

  async #follow(effect: SourceEffect): Promise<void> {
    const { journals, journal } = this.#side;
    if ('write' in effect) record(this.#side, effect.write);
    else if ('send' in effect) await (effect.send === 'done' ? this.#done() : this.#ask());
    else if (effect.do === 'release') await releaseSource(this.#side);
    else if (effect.do === 'resume') await this.#resume();
    else journals.remove(journal);
  }

  async #ask(): Promise<void> {
    const { journal } = this.#side;
    const { remote, word } = await wordOf(this.#side);
    this.#remote = remote;
    this.word = word;
    await this.follow(sourceStep(journal.phase, { event: 'heard', word }));
  }

  async #resume(): Promise<void> {
    await resumeHere(this.#side).catch((error: unknown) => {
      if (!(error instanceof VmGone)) throw error;
      this.gone = error;
    });
  }

  async #done(): Promise<void> {
    const { channel } = this.#remote ?? {};
    if (this.word === 'running') await channel?.request('announce', {}, RECOVER_TIMEOUT_MS);
    await channel?.request('done', {}, RECOVER_TIMEOUT_MS);
  }
}

/**
 * The destination's word, or the operator's if it has none.  Throws Undecided when there is none, and
 * `go` was sent.
 */
async function wordOf(side: SourceSide): Promise<{ remote: Remote | undefined; word: Word }> {
  const { journal, operatorWord } = side;
  try {
    const { remote, word } = await askThere(side);
    if (word !== 'unknown' || journal.phase !== 'committed') return { remote, word };
    await remote.close();
    throw new Error(`${journal.remote.host} does not know it either`);
  } catch (cause) {
    if (operatorWord !== undefined) return { remote: undefined, word: operatorWord };
    if (journal.phase !== 'committed') throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Undecided(undecidedText(journal, why), { cause });
  }
}

/**
 * The commit: `go`, and what becomes of it, written down.  If there is no answer, the channel is given
 * up and the destination is asked in a new one, `remote`.  Throws Undecided.
 */
export async function commit(
  side: SourceSide,
  o: { go(): Promise<WordAnswer>; giveUp(): Promise<void> },
): Promise<{ word: Word; why: string; remote?: Remote | undefined }> {
  record(side, 'committed');
  const lost = (error: Error) => ({ word: 'unknown' as const, why: error.message });
  const answer: { word: Word; why?: string } = await o.go().catch(lost);
  const { word, why = 'it does not answer' } = answer;
  if (word !== 'unknown') return hear(side, { word, why });
  await o.giveUp();
  return hear(side, { ...(await wordOf(side)), why });
}

function hear<T extends { word: Word }>(side: SourceSide, heard: T): T {
  const [first] = sourceStep(side.journal.phase, { event: 'heard', word: heard.word });
  if (first !== undefined && 'write' in first) record(side, first.write);
  return heard;
}

function record({ journals, journal }: SourceSide, phase: SourcePhase): void {
  journal.phase = phase;
  journals.write(journal);
}

function undecidedText({ id, name, qmp, remote: { host } }: SourceJournal, why: string): string {
  return [
    `whether ${name} has run on ${host} is not known: ${why}.`,
    `Here it stays paused (QMP ${qmp}).`,
    `When ${host} can be reached: tiflow migrate --recover ${id}.`,
    `If ${host} is lost, or does not know it, look there yourself; then, and only then,`,
    `add --word never (it runs on here) or --word ran (it ends here)`,
  ].join(' ');
}

/** With back-off, for a bounded time: what has no answer is no answer. */
export async function askThere(side: SourceSide): Promise<{ remote: Remote; word: Word }> {
  const deadline = performance.now() + side.reconnectMs;
  for (let backOffMs = BACK_OFF_FIRST_MS; ; backOffMs = Math.min(2 * backOffMs, BACK_OFF_MAX_MS)) {
    const isLast = performance.now() + backOffMs > deadline;
    let remote: Remote | undefined;
    try {
      remote = await connectRemote(side.journal.remote);
      const { word, alive } = await remote.channel.request<WordAnswer>(
        'recover',
        { id: side.journal.id },
        RECOVER_TIMEOUT_MS,
      );
      // A QEMU that lives may answer later.
      if (word !== 'unknown' || !alive || isLast) return { remote, word };
    } catch (error) {
      if (isLast) {
        await remote?.close();
        throw error;
      }
    }
    await remote?.close();
    await delay(backOffMs);
  }
}

/** The VM runs here again, and its flows come back. */
export async function resumeHere(side: SourceSide): Promise<void> {
  const { journal, daemon, qmp: open } = side;
  const usable = open !== undefined && open.closed === undefined;
  if (!usable && (await hasEnded(journal.qemu, DIES_WITHIN_MS))) {
    throw new VmGone(`QEMU of ${journal.name} (pid ${journal.qemu.pid}) has ended`);
  }
  // Whoever holds it must give it up some time; until then we are the next in its queue.
  const qmp = usable ? open : await Qmp.connect(journal.qmp, { timeoutMs: side.reconnectMs });
  try {
    await resumeVm(qmp, RESUME_TIMEOUT_MS);
    await removeMirrors(qmp);
  } finally {
    if (qmp !== open) qmp.close();
  }
  if (journal.flows === 'here') return;
  const moved = journal.flows === 'moved';
  for (const tap of stillTheirs(journal.taps)) {
    await daemon.synchronize(tap, SYNCHRONIZE_BACK_MS, moved);
  }
}

/** It never ran there; what was made for it must go, too.  Throws Contradiction. */
export async function discardThere(side: SourceSide): Promise<void> {
  const { remote, word } = await askThere(side);
  try {
    sourceStep(side.journal.phase, { event: 'heard', word });
    await remote.channel.request('done', {}, RECOVER_TIMEOUT_MS);
  } finally {
    await remote.close();
  }
}

/** The VM runs elsewhere: its QEMU here quits; its taps and its old address are given up. */
export async function releaseSource({ journal, daemon, qmp }: SourceSide): Promise<void> {
  await giveBack(stillTheirs(journal.taps), daemon);
  await quit(journal, qmp);
  for (const tap of stillTheirs(journal.taps)) await daemon.forgetTap(tap);
  for (const name of stillTheirs(journal.interfaces)) await removeTap(name);
}

async function quit(journal: SourceJournal, open: Qmp | undefined): Promise<void> {
  const { qemu } = journal;
  if (!isAlive(qemu)) return;
  try {
    const usable = open !== undefined && open.closed === undefined;
    const qmp = usable ? open : await Qmp.connect(journal.qmp);
    await qmp.execute('quit').finally(() => qmp.close());
  } catch {
    // It ends below, one way or the other.
  }
  if (await hasEnded(qemu, QUIT_TIMEOUT_MS)) return;
  if (!(await endProcess(qemu))) throw new Error(`QEMU (pid ${qemu.pid}) cannot be ended`);
}
