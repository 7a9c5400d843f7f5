/* CLOCK_MONOTONIC, as the data plane, the monitor stream and every network namespace of the
 * machine know it.
 */

/** Milliseconds, with a fraction. */
export const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6;

/** The same in the data plane's nanoseconds. */
export const monotonicNs = (): bigint => process.hrtime.bigint();

/** From the data plane's nanoseconds. */
export const msOfNs = (ns: bigint): number => Number(ns) / 1e6;
