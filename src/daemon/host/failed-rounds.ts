/* What the world has refused (libc/guard.ts): counted, logged once, and tried again later and later,
 * as long as something fails.
 *
 *   failed ──► after 1 s: retry ──► nothing failed: as before
 *                  ▲        `──── something failed: after 2 s, 4 s, ... 60 s
 *                  `───────────────────────────────────────'
 */

import type { Clock } from '../../sync/clock.js';
import type { FailedRoundsView } from '../view/view.js';

const RETRY_MS = { least: 1_000, most: 60_000 };

/* What cannot be done is tried again and again; a line for each would be all that is in the log. */
const SAID_AGAIN_MS = 60 * 60_000;
/* Different messages: each may name an address or a process. */
const SAID_MAX = 256;

export interface FailedRoundsOptions {
  clock: Clock;
  warn: (message: string, error: Error) => void;
  /** Does again whatever can be done again. */
  retry: () => void;
}

export class FailedRounds {
  readonly #o: FailedRoundsOptions;
  readonly #saidAt = new Map<string, number>();
  #count = 0;
  #last: string | null = null;
  #delayMs = RETRY_MS.least;
  #timer: unknown;

  constructor(o: FailedRoundsOptions) {
    this.#o = o;
  }

  /** To be called with each. */
  failed(error: Error): void {
    this.#count += 1;
    this.#last = error.message;
    this.#say(error);
    this.#timer ??= this.#o.clock.setTimer(this.#delayMs, () => this.#retry());
  }

  view(): FailedRoundsView {
    return { count: this.#count, last: this.#last };
  }

  close(): void {
    this.#o.clock.clearTimer(this.#timer);
  }

  #retry(): void {
    this.#timer = undefined;
    const before = this.#count;
    this.#delayMs = Math.min(2 * this.#delayMs, RETRY_MS.most);
    this.#o.retry();
    if (this.#count === before) this.#delayMs = RETRY_MS.least;
  }

  #say(error: Error): void {
    const nowMs = this.#o.clock.now();
    const saidAt = this.#saidAt.get(error.message);
    if (saidAt !== undefined && nowMs - saidAt < SAID_AGAIN_MS) return;
    if (this.#saidAt.size >= SAID_MAX) this.#saidAt.clear();
    this.#saidAt.set(error.message, nowMs);
    this.#o.warn(`failed, will be tried again: ${error.message}`, error);
  }
}
