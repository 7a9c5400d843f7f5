/* Takes back everything that the destination has made for a VM that does not come: its QEMU, its
 * taps, its files.  From the journal alone, so that another process can do it, and as often as one
 * likes.
 */

import { rmSync } from 'node:fs';
import type { DestinationJournal, Journals } from './journal.js';
import { endProcess } from './process-mark.js';
import { qemusOfMigration } from './qemu-process.js';
import type { VmDaemon } from './vm-daemon.js';

/** Throws when something stays; the journal stays then, too. */
export async function discard(
  journals: Journals,
  journal: DestinationJournal,
  daemon: VmDaemon,
): Promise<void> {
  // First what matters most: that no second copy can ever run.
  await killQemus(journal.id);
  // Before the source synchronizes its flows back, nobody may hold them here.
  for (const tap of journal.taps) await daemon.forgetTap(tap);
  for (const path of journal.files) rmSync(path, { force: true });
  journals.remove(journal);
}

export async function killQemus(id: string): Promise<void> {
  for (const { mark } of qemusOfMigration(id)) {
    if (await endProcess(mark)) continue;
    throw new Error(`QEMU (pid ${mark.pid}) of migration ${id} cannot be killed`);
  }
}
