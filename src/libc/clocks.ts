/*
 * The kernel's clocks that Node does not have side by side (clock_gettime(2)).
 */
import koffi from 'koffi';
import { checked } from './errno.js';

/* clockid_t, linux/time.h. */
const CLOCK = { REALTIME: 0, MONOTONIC: 1, BOOTTIME: 7 } as const;

const cClockGettime = koffi.load('libc.so.6').func('int clock_gettime(int clock, void *time)');

/** Three clocks at one moment, in ms. */
export interface Clocks {
  /** Stands while the system is suspended; nobody can set it. */
  monotonicMs: number;
  /** The same, but goes on while the system is suspended. */
  boottimeMs: number;
  /** The time of day: is set. */
  realtimeMs: number;
}

/** Throws SystemError. */
export function readClocks(): Clocks {
  return {
    monotonicMs: read(CLOCK.MONOTONIC),
    boottimeMs: read(CLOCK.BOOTTIME),
    realtimeMs: read(CLOCK.REALTIME),
  };
}

function read(clock: number): number {
  const time = Buffer.alloc(16);
  checked(cClockGettime(clock, time), `read clock ${clock}`);
  return Number(time.readBigInt64LE(0)) * 1e3 + Number(time.readBigInt64LE(8)) / 1e6;
}
