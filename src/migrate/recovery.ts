/* The commit rule on the source's side, for whoever acts: the migration itself, the guard of one
 * that was killed, or `tiflow migrate --recover ID`.
 *
 *   go: none ─────────────────────────────► the VM is resumed here
 *   go: sent ── the destination says "gone" ─► the VM is resumed here
 *         │  └─ unreachable ────────────────► nothing: it stays paused, and the operator is told
 *         └──── the destination says "running"
 *   go: acknowledged ─────────────────────► the source is cleaned up
 *
 * Never two running copies: the destination runs nothing without `go`, and answers only when it is
 * certain.  Never none: as long as both machines live, one of the ends of this graph is reached.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { giveBack } from './discard.js';
import type { Journals, SourceJournal } from './journal.js';
import { removeMirrors } from './mirror.js';
import { endProcess, hasEnded, isAlive } from './process-mark.js';
import type { RecoverAnswer } from './protocol.js';
import { Qmp } from './qmp.js';
import { connectRemote, type Remote } from './remote.js';
import { resumeVm } from './source-qemu.js';
import { Undecided } from './stages.js';
import { removeTap } from './tap.js';
import type { VmDaemon } from './vm-daemon.js';

const RECOVER_TIMEOUT_MS = 30_000;
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
}

/** The source's QEMU has ended by itself: nothing can be resumed, here or anywhere. */
export class VmGone extends Error {
  override readonly name = 'VmGone';
}

export type Recovered = 'resumed' | 'migrated';

/** Ends a migration that nobody drives any more.  Throws Undecided when it cannot be ended yet. */
export async function recover(side: SourceSide): Promise<Recovered> {
  const { journals, journal } = side;
  journals.claim(journal);
  if (journal.go === 'sent') await (await decide(side)).close();
  if (journal.go === 'acknowledged') {
    await finish(side);
    return 'migrated';
  }
  const gone = await resumeHere(side).catch((error: unknown) => {
    if (error instanceof VmGone) return error;
    throw error;
  });
  await discardThere(side);
  journals.remove(journal);
  if (gone !== undefined) throw gone;
  return 'resumed';
}

/** After a lost `go`: makes it `acknowledged` or `none`.  Throws Undecided. */
export async function decide(side: SourceSide): Promise<Remote> {
  const { journals, journal } = side;
  const { remote, state } = await askThere(side).catch((cause: Error) => {
    throw new Undecided(undecidedText(journal, cause), { cause });
  });
  journal.go = state === 'running' ? 'acknowledged' : 'none';
  journals.write(journal);
  return remote;
}

function undecidedText({ id, name, qmp, remote }: SourceJournal, cause: Error): string {
  return [
    `whether ${name} runs on ${remote.host} is not known: ${cause.message}.`,
    `Here it stays paused (QMP ${qmp}).`,
    `When ${remote.host} can be reached again: tiflow migrate --recover ${id}.`,
    `If ${remote.host} is lost for ever, and only then, continue it here by QMP: cont`,
  ].join(' ');
}

/* With back-off, for a bounded time.  What has no answer is no answer. */
export async function askThere(
  side: SourceSide,
): Promise<{ remote: Remote; state: RecoverAnswer['state'] }> {
  const { id, remote: host } = side.journal;
  const deadline = performance.now() + side.reconnectMs;
  for (let backOffMs = BACK_OFF_FIRST_MS; ; backOffMs = Math.min(2 * backOffMs, BACK_OFF_MAX_MS)) {
    let remote: Remote | undefined;
    try {
      remote = await connectRemote(host);
      const body = { id };
      const answer = await remote.channel.request<RecoverAnswer>(
        'recover',
        body,
        RECOVER_TIMEOUT_MS,
      );
      return { remote, state: answer.state };
    } catch (error) {
      await remote?.close();
      if (performance.now() + backOffMs > deadline) throw error;
      await delay(backOffMs);
    }
  }
}

/** The VM runs here again, and its flows come back. */
export async function resumeHere({ journal, daemon }: SourceSide, open?: Qmp): Promise<void> {
  const usable = open !== undefined && open.closed === undefined;
  if (!usable && (await hasEnded(journal.qemu, DIES_WITHIN_MS))) {
    throw new VmGone(`QEMU of ${journal.name} (pid ${journal.qemu.pid}) has ended`);
  }
  const qmp = usable ? open : await Qmp.connect(journal.qmp);
  try {
    await resumeVm(qmp, RESUME_TIMEOUT_MS);
    await removeMirrors(qmp);
  } finally {
    if (qmp !== open) qmp.close();
  }
  if (journal.flows === 'here') return;
  const moved = journal.flows === 'moved';
  for (const tap of journal.taps) await daemon.synchronize(tap, SYNCHRONIZE_BACK_MS, moved);
}

/* It ran nothing; what it has made must go, too. */
export async function discardThere(side: SourceSide): Promise<void> {
  const { remote, state } = await askThere(side);
  await remote.close();
  if (state === 'running') {
    throw new Error(`${side.journal.name} runs on ${side.journal.remote.host} without our word`);
  }
}

async function finish(side: SourceSide): Promise<void> {
  // Here first: it is what matters when the destination cannot be reached any more.
  await releaseSource(side);
  const { remote, state } = await askThere(side);
  try {
    // "gone": all was done there, or it has ended since.
    if (state === 'running') await announceThere(remote);
  } finally {
    await remote.close();
  }
  side.journals.remove(side.journal);
}

async function announceThere(remote: Remote): Promise<void> {
  await remote.channel.request('announce', {}, RECOVER_TIMEOUT_MS);
  await remote.channel.request('done', {}, RECOVER_TIMEOUT_MS);
}

/** The VM runs elsewhere: its QEMU here quits; its taps and its old address are given up. */
export async function releaseSource({ journal, daemon }: SourceSide, open?: Qmp): Promise<void> {
  await giveBack(journal.taps, daemon);
  await quit(journal, open);
  for (const tap of journal.taps) await daemon.forgetTap(tap);
  for (const name of journal.interfaces) await removeTap(name);
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
