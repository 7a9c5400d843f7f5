/* Does what two-phase.ts says at the destination: for the process that receives, and for whoever
 * comes after it has lost its channel, has died, or the machine has rebooted.
 */

import { join } from 'node:path';
import { discard } from './discard.js';
import type { DestinationJournal, Journals } from './journal.js';
import { endProcess } from './process-mark.js';
import { qemusOfMigration } from './qemu-process.js';
import { Qmp, QmpError } from './qmp.js';
import {
  type DestinationEvent,
  type DestinationPhase,
  destinationStep,
  type Word,
} from './two-phase.js';
import type { VmDaemon } from './vm-daemon.js';

export interface DestinationSide {
  journals: Journals;
  daemon: VmDaemon;
}

export class DestinationLog {
  readonly #o: DestinationSide;
  readonly #continue: () => Promise<'continued' | 'refused' | 'silent'>;
  #journal: DestinationJournal | undefined;

  /** `continueVm` throws nothing. */
  constructor(
    o: DestinationSide,
    journal: DestinationJournal | undefined,
    continueVm: () => Promise<'continued' | 'refused' | 'silent'>,
  ) {
    this.#o = o;
    this.#journal = journal;
    this.#continue = continueVm;
  }

  /** Undefined: there is none, or it has been removed. */
  get journal(): DestinationJournal | undefined {
    return this.#journal;
  }

  /** What is to be said of it.  Throws when something cannot be done; then it can be repeated. */
  async happens(e: DestinationEvent): Promise<Word | undefined> {
    let word: Word | undefined;
    for (const effect of destinationStep(this.#journal?.phase, e)) {
      if ('say' in effect) word = effect.say;
      else if ('write' in effect) this.#write(effect.write);
      else if (effect.do === 'continue')
        word = await this.happens({ event: await this.#continue() });
      else if (effect.do === 'forget') this.#forget();
      else if (this.#journal !== undefined) await discard(this.#journal, this.#o.daemon);
    }
    return word;
  }

  #write(phase: DestinationPhase): void {
    if (this.#journal === undefined) return;
    this.#journal.phase = phase;
    this.#o.journals.write(this.#journal);
  }

  #forget(): void {
    if (this.#journal !== undefined) this.#o.journals.remove(this.#journal);
    this.#journal = undefined;
  }
}

/** Our own QMP socket of a receiving QEMU: nobody else knows it, so nobody else can hold it. */
export function ownQmpPath(journals: Journals, id: string): string {
  return join(journals.privateDirectory({ id, side: 'destination' }), 'qmp.sock');
}

/** Takes a migration over from whoever acts on it here, and answers the source's question. */
export async function recoverHere(
  id: string,
  o: DestinationSide,
): Promise<{ word: Word; alive: boolean; log: DestinationLog }> {
  // Whoever still acts on it must not act any more: it may hold a `go` that it has not read yet.
  const owner = o.journals.readDestination(id)?.owner;
  if (owner !== undefined && owner.pid !== process.pid && !(await endProcess(owner))) {
    throw new Error(`process ${owner.pid}, which received migration ${id}, cannot be killed`);
  }
  const journal = o.journals.readDestination(id);
  if (journal !== undefined) o.journals.claim(journal);
  const log = new DestinationLog(o, journal, () => continueAgain(o.journals, id, journal));
  const alive = qemusOfMigration(id).length > 0;
  const word = (await log.happens({ event: 'asked', alive })) ?? 'unknown';
  return { word, alive, log };
}

/* Somebody may have continued it before, so that a refusal proves nothing. */
async function continueAgain(
  journals: Journals,
  id: string,
  journal: DestinationJournal | undefined,
): Promise<'continued' | 'silent'> {
  let qmp: Qmp | undefined;
  try {
    qmp = await Qmp.connect(ownQmpPath(journals, id));
    return (await continueVm(qmp, journal?.links ?? [])) === 'continued' ? 'continued' : 'silent';
  } catch {
    return 'silent';
  } finally {
    qmp?.close();
  }
}

/** `refused`: QEMU has said why, and the VM has not run by this.  Throws QmpError. */
export async function continueVm(
  qmp: Qmp,
  links: readonly string[],
): Promise<'continued' | QmpError> {
  const { status } = await qmp.execute<{ status: string }>('query-status');
  if (status === 'inmigrate') return new QmpError('it is not complete', 'GenericError');
  // Running, or ended by its guest, or waiting for its disk: it has run.
  if (status !== 'paused' && status !== 'prelaunch') return 'continued';
  try {
    for (const name of links) await qmp.execute('set_link', { name, up: false });
    await qmp.execute('cont');
    return 'continued';
  } catch (error) {
    if (error instanceof QmpError && error.isRefusal) return error;
    throw error;
  }
}
