/* One line of `tiflow doctor`. */

export interface Check {
  /** Stable, for programs: "kernel.syscall-programs". */
  id: string;
  level: 'ok' | 'warn' | 'fail';
  /** What was found. */
  message: string;
  /** What to do; null if nothing. */
  advice: string | null;
}

export const ok = (id: string, message: string): Check => ({
  id,
  level: 'ok',
  message,
  advice: null,
});

export const warn = (id: string, message: string, advice: string): Check => ({
  id,
  level: 'warn',
  message,
  advice,
});

export const fail = (id: string, message: string, advice: string): Check => ({
  id,
  level: 'fail',
  message,
  advice,
});
