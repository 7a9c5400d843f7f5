/* A process named so that a later one with the same number is not taken for it, not even after a
 * reboot.
 */

import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

export interface ProcessMark {
  pid: number;
  /** Clock ticks from boot to its start: field 22 of /proc/PID/stat, proc(5). */
  started: string;
  /** /proc/sys/kernel/random/boot_id of that boot: random(4). */
  boot: string;
}

const POLL_MS = 10;
const BOOT_ID = '/proc/sys/kernel/random/boot_id';

/** Of this boot of the machine. */
export const bootId = readFileSync(BOOT_ID, 'latin1').trim();

/** Undefined: there is no such process, or it has ended and waits for its parent. */
export function markOf(pid: number): ProcessMark | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name in parentheses may hold anything, spaces and parentheses among it.
    const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const started = fields[18];
    if (state === 'Z' || state === 'X' || started === undefined) return undefined;
    return { pid, started, boot: bootId };
  } catch {
    return undefined;
  }
}

export function isAlive(mark: ProcessMark): boolean {
  return mark.boot === bootId && markOf(mark.pid)?.started === mark.started;
}

/** True if it has ended within the bound. */
export async function hasEnded(mark: ProcessMark, boundMs: number): Promise<boolean> {
  for (let waitedMs = 0; isAlive(mark); waitedMs += POLL_MS) {
    if (waitedMs >= boundMs) return false;
    await delay(POLL_MS);
  }
  return true;
}

/** Ends it for certain, by SIGKILL; true if it is gone. */
export async function endProcess(mark: ProcessMark, boundMs = 5_000): Promise<boolean> {
  if (!isAlive(mark)) return true;
  try {
    process.kill(mark.pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
  return hasEnded(mark, boundMs);
}
