/**
 * What became of a connection while something happened on a machine. Pure.
 */
import type { Report } from '../programs/stream-protocol.js';

export type Outcome =
  | 'goes on'
  /** a program was told: an error, or the end */
  | 'reset'
  /** nobody is told anything, and nothing arrives any more */
  | 'dead';

/** Of what both ends' programs report; undefined: not to be told yet. */
export function outcomeSoFar(ends: readonly Report[], sinceMs: number): Outcome | undefined {
  if (ends.some((end) => end.errors.length > 0 || end.ended > 0 || end.closed > 0)) return 'reset';
  return ends.every((end) => end.oldest_arrival_ms > sinceMs) ? 'goes on' : undefined;
}

/** What was fine without tiflow is fine with it. */
export const isNoWorse = (withTiflow: Outcome, without: Outcome): boolean =>
  without !== 'goes on' || withTiflow === 'goes on';
