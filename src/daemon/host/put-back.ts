/* When to look after something that bears our mark has been taken away, by whomever: at once; later and
 * later, if what was put back is taken away again and again.  And every half a minute, whatever was
 * told, as long as there is something of ours: what nobody needs any more goes then.
 */

import type { Clock } from '../../sync/clock.js';

/* A network manager that cleans up removes all of it in one burst. */
const BURST_MS = 2;
const WAIT_MAX_MS = 30_000;
/* Who has not come back for so long does not come back because of us. */
const CALM_MS = 60_000;
const LOOK_MS = 30_000;

export interface PutBackOptions {
  clock: Clock;
  /** Finds out what is missing, or not needed; calls `done` if something was put back. */
  look: () => void;
  /** Whether there is something of ours. */
  isKeeping: () => boolean;
}

export class PutBack {
  readonly #o: PutBackOptions;
  #waitMs = BURST_MS;
  #lastMs = Number.NEGATIVE_INFINITY;
  #timer: unknown;
  #slow: unknown;

  constructor(o: PutBackOptions) {
    this.#o = o;
    this.#lookLater();
  }

  /** Something of ours has been removed. */
  removed(): void {
    if (this.#o.clock.now() - this.#lastMs > CALM_MS) this.#waitMs = BURST_MS;
    this.#timer ??= this.#o.clock.setTimer(this.#waitMs, () => {
      this.#timer = undefined;
      this.#o.look();
    });
  }

  /** Something had to be put back. */
  done(): void {
    this.#lastMs = this.#o.clock.now();
    this.#waitMs = Math.min(2 * this.#waitMs, WAIT_MAX_MS);
  }

  close(): void {
    this.#o.clock.clearTimer(this.#timer);
    this.#o.clock.clearTimer(this.#slow);
  }

  #lookLater(): void {
    this.#slow = this.#o.clock.setTimer(LOOK_MS, () => {
      this.#lookLater();
      if (this.#o.isKeeping()) this.#o.look();
    });
  }
}
