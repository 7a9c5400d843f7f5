/**
 * Waiting for a condition, always with a bound: the lab never sleeps for luck.
 */
import { LabError } from './namespace.js';

const PROBE_INTERVAL_MS = 20;

/** CLOCK_MONOTONIC in ms: the clock of the daemons' events, the same in every namespace. */
export const now = (): number => Number(process.hrtime.bigint()) / 1e6;

export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Probes until it returns something (not undefined, not false), and returns that.
 * Throws LabError naming `what` once `boundMs` have passed.
 */
export async function until<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  boundMs = 10_000,
): Promise<T> {
  const deadline = now() + boundMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined && found !== false) return found;
    if (now() > deadline) throw new LabError(`waited ${boundMs} ms in vain for ${what}`);
    await pause(PROBE_INTERVAL_MS);
  }
}

/** A promise with a bound. */
export function within<T>(what: string, promise: Promise<T>, boundMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new LabError(`waited ${boundMs} ms in vain for ${what}`)),
      boundMs,
    );
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
