/*
 * How busy the machine was: CPU time that was not idle, from /proc/stat (proc_stat(5)).
 *
 * Of the whole machine, because most of what a packet costs is spent in softirqs that belong to
 * no process.  Hence whatever else runs is in it as well, for all that is compared alike.  Time
 * stolen by the hypervisor is left out: it is not ours.
 */
import { readFileSync } from 'node:fs';

const TICKS_PER_S = 100;
const BUSY = ['user', 'nice', 'system', 'idle', 'iowait', 'irq', 'softirq'] as const;

/** Seconds of CPU time spent since boot, all CPUs, without idle, iowait and steal. */
export function busySeconds(): number {
  const fields = readFileSync('/proc/stat', 'utf8').split('\n')[0]?.trim().split(/\s+/).slice(1);
  const ticks = BUSY.map((name, i) =>
    name === 'idle' || name === 'iowait' ? 0 : Number(fields?.[i]),
  );
  return ticks.reduce((sum, n) => sum + n, 0) / TICKS_PER_S;
}
