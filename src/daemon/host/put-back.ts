/* When to look after something that bears our mark has been taken away, by whomever: at once; later and
 * later, if what was put back is taken away again and again.
 */

import type { Clock } from '../../sync/clock.js';

/* A network manager that cleans up removes all of it in one burst. */
const BURST_MS = 2;
const WAIT_MAX_MS = 30_000;
/* Who has not come back for so long does not come back because of us. */
const CALM_MS = 60_000;

export class PutBack {
  readonly #clock: Clock;
  readonly #look: () => void;
  #waitMs = BURST_MS;
  #lastMs = Number.NEGATIVE_INFINITY;
  #timer: unknown;

  /** `look`: finds out what is missing, and calls `done` if something was put back. */
  constructor(clock: Clock, look: () => void) {
    this.#clock = clock;
    this.#look = look;
  }

  /** Something of ours has been removed. */
  removed(): void {
    if (this.#clock.now() - this.#lastMs > CALM_MS) this.#waitMs = BURST_MS;
    this.#timer ??= this.#clock.setTimer(this.#waitMs, () => {
      this.#timer = undefined;
      this.#look();
    });
  }

  /** Something had to be put back. */
  done(): void {
    this.#lastMs = this.#clock.now();
    this.#waitMs = Math.min(2 * this.#waitMs, WAIT_MAX_MS);
  }

  close(): void {
    this.#clock.clearTimer(this.#timer);
  }
}
