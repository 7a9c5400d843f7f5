/** Time as the synchronization agent knows it: monotonic, and a fake one in the simulation. */
export interface Clock {
  /** Milliseconds since some fixed moment. */
  now(): number;
  /** Calls `f` once, `ms` from now.  Comes back with what clearTimer takes. */
  setTimer(ms: number, f: () => void): unknown;
  /** No-op if it has run, or if there is none: undefined. */
  clearTimer(timer: unknown): void;
}
