/*
 * The programs that run in this network namespace, from /proc.
 *
 * By namespace, because one /proc shows the processes of all of them: a DHCP client for an
 * eth0 of another namespace or container must not be touched.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { setImmediate as yieldToEvents } from 'node:timers/promises';

/* /proc never waits for a disk, and a look at one process takes 13 us: through the thread pool
 * it takes 20 times that, and a move waits for it.  A slice of a millisecond at a time.
 */
const SLICE = 64;

export interface ProgramRecord {
  pid: number;
  /** The program's own name, also if it is an applet of busybox: 'udhcpc'. */
  name: string;
  /** Its arguments, without its name; none where it has put a title of its own in their place. */
  argv: string[];
  title: string;
}

/** The running programs among `names` that live in our own network namespace. */
export async function programsHere(names: readonly string[]): Promise<ProgramRecord[]> {
  const here = readlinkSync('/proc/self/ns/net');
  const pids = readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number);
  const found: ProgramRecord[] = [];
  for (let at = 0; at < pids.length; at += SLICE) {
    if (at > 0) await yieldToEvents();
    found.push(...pids.slice(at, at + SLICE).flatMap((pid) => programOf(pid, names, here) ?? []));
  }
  return found;
}

function programOf(pid: number, names: readonly string[], here: string): ProgramRecord | undefined {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
    const applet = basename(words[0] ?? '') === 'busybox' ? 1 : 0;
    const title = words[applet] ?? '';
    const name = basename(title.replace(/: .*$/s, ''));
    if (!names.includes(name)) return undefined;
    if (readlinkSync(`/proc/${pid}/ns/net`) !== here) return undefined;
    return { pid, name, argv: words.slice(applet + 1), title };
  } catch {
    return undefined; // It has ended meanwhile, or is not ours to look into.
  }
}
