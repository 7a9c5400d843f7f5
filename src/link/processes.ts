/*
 * The programs that run in this network namespace, from /proc.
 *
 * By namespace, because one /proc shows the processes of all of them: a DHCP client for an
 * eth0 of another namespace or container must not be touched.
 */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename } from 'node:path';

export interface ProgramRecord {
  pid: number;
  /** The program's own name, also if it is an applet of busybox: 'udhcpc'. */
  name: string;
  /** Its arguments, without its name. */
  argv: string[];
}

/** The running programs among `names` that live in our own network namespace. */
export async function programsHere(names: readonly string[]): Promise<ProgramRecord[]> {
  const here = await readlink('/proc/self/ns/net');
  const pids = (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry)).map(Number);
  const found = await Promise.all(pids.map((pid) => programOf(pid, names, here)));
  return found.flatMap((program) => program ?? []);
}

async function programOf(
  pid: number,
  names: readonly string[],
  here: string,
): Promise<ProgramRecord | undefined> {
  try {
    const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0').slice(0, -1);
    const applet = basename(words[0] ?? '') === 'busybox' ? 1 : 0;
    const name = basename(words[applet] ?? '');
    if (!names.includes(name)) return undefined;
    if ((await readlink(`/proc/${pid}/ns/net`)) !== here) return undefined;
    return { pid, name, argv: words.slice(applet + 1) };
  } catch {
    return undefined; // It has ended meanwhile, or is not ours to look into.
  }
}
