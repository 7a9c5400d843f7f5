/* Takes back everything that the destination has made for a VM that does not come: its QEMU, its
 * taps, its files.  From the journal alone, so that another process can do it, and as often as one
 * likes.  Only for a VM that has never run here (two-phase.ts): its disks go, too.
 */

import { rmSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { removeFile } from './file-mark.js';
import type { DestinationJournal } from './journal.js';
import { endProcess } from './process-mark.js';
import { qemusOfMigration } from './qemu-process.js';
import { stillTheirs } from './tap.js';
import type { VmDaemon } from './vm-daemon.js';

const FORGET_TIMEOUT_MS = 2_000;

/** Throws when something stays.  What is gone is gone from the journal, which is not written. */
export async function discard(journal: DestinationJournal, daemon: VmDaemon): Promise<void> {
  await giveBack(stillTheirs(journal.taps), daemon);
  // What matters most: that no second copy can ever run.
  await killQemus(journal.id);
  // Before the source synchronizes its flows back, nobody may hold them here.
  for (const tap of stillTheirs(journal.taps)) await daemon.forgetTap(tap);
  for (const file of journal.files) removeFile(file);
  for (const path of journal.sockets) if (!(await isListening(path))) rmSync(path, { force: true });
  Object.assign(journal, { taps: [], files: [], sockets: [] });
}

/**
 * Has the VM's addresses given back in its guest's name, which goes by its taps, so while there is
 * a QEMU that holds them: one that is paused, and stays so.  A daemon that hangs must not keep us.
 */
export async function giveBack(taps: readonly string[], daemon: VmDaemon): Promise<void> {
  const forgotten = Promise.allSettled(taps.map((tap) => daemon.forgetTap(tap)));
  await Promise.race([forgotten, delay(FORGET_TIMEOUT_MS)]);
}

export async function killQemus(id: string): Promise<void> {
  for (const mark of qemusOfMigration(id)) {
    if (await endProcess(mark)) continue;
    throw new Error(`QEMU (pid ${mark.pid}) of migration ${id} cannot be killed`);
  }
}

/** Somebody serves this unix socket. */
export function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(true));
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'EAGAIN'));
    socket.once('connect', () => socket.destroy());
  });
}
