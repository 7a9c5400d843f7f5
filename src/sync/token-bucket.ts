/*
 * How many answers to garbage may be sent: a burst, then a steady rate.  Without a clock: the
 * caller says what time it is.
 */
export class TokenBucket {
  #tokens: number;
  #filledAtMs: number;

  constructor(
    private readonly o: { burst: number; perSecond: number },
    nowMs: number,
  ) {
    this.#tokens = o.burst;
    this.#filledAtMs = nowMs;
  }

  /** Whether one more may be sent now; if so, it counts as sent. */
  take(nowMs: number): boolean {
    const gained = ((nowMs - this.#filledAtMs) * this.o.perSecond) / 1000;
    this.#tokens = Math.min(this.o.burst, this.#tokens + gained);
    this.#filledAtMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
