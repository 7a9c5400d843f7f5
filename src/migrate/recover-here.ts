/* The destination after its channel was lost: does the VM run here, or has everything gone?
 *
 * The answer is final.  What does not run when asked is killed before the answer is given, because
 * the source continues the VM on it.
 */

import { discard } from './discard.js';
import type { DestinationJournal, Journals } from './journal.js';
import { endProcess } from './process-mark.js';
import { type QemuProcess, qemusOfMigration } from './qemu-process.js';
import { Qmp } from './qmp.js';
import type { VmDaemon } from './vm-daemon.js';

export async function recoverHere(
  id: string,
  o: { journals: Journals; daemon: VmDaemon },
): Promise<{ state: 'running' | 'gone'; journal: DestinationJournal | undefined }> {
  // Whoever still acts on it must not act any more: it may hold a `go` that it has not read yet.
  const owner = o.journals.readDestination(id)?.owner;
  if (owner !== undefined && owner.pid !== process.pid && !(await endProcess(owner))) {
    throw new Error(`process ${owner.pid}, which received migration ${id}, cannot be killed`);
  }
  const journal = o.journals.readDestination(id);
  // Without a journal there is nothing, or all of it is gone.
  if (journal === undefined) return { state: 'gone', journal };
  o.journals.claim(journal);
  const [qemu] = qemusOfMigration(id);
  if (qemu !== undefined && (await isRunning(qemu))) return { state: 'running', journal };
  // It may have run here, and ended since: then its disks are all that there is of it.
  if (qemu === undefined && journal.go !== 'none') journal.files = [];
  await discard(o.journals, journal, o.daemon);
  return { state: 'gone', journal: undefined };
}

/* A QEMU that does not answer does not count as running: it will be killed. */
async function isRunning(qemu: QemuProcess): Promise<boolean> {
  if (qemu.qmpPath === undefined) return false;
  try {
    const qmp = await Qmp.connect(qemu.qmpPath);
    const { running } = await qmp.execute<{ running: boolean }>('query-status');
    qmp.close();
    return running;
  } catch {
    return false;
  }
}
