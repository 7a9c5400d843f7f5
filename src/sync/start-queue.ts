/*
 * Paces the start of many synchronizations: a thousand flows of one address begin in batches,
 * between which the event loop reads the answers to the first.
 */
import type { Clock } from './clock.js';

/** SYNs, each with its MACs and map lookups, in one turn of the event loop: some 5 ms. */
const BATCH = 64;

export class StartQueue {
  readonly #waiting = new Set<string>();
  #budget = BATCH;
  #timer: unknown;

  constructor(
    private readonly clock: Clock,
    private readonly start: (flow: string) => void,
  ) {}

  /** Starts `flow` now if this turn has not begun too many, else in one of the next. */
  add(flow: string): void {
    this.#waiting.add(flow);
    this.#drain();
  }

  remove(flow: string): void {
    this.#waiting.delete(flow);
  }

  close(): void {
    this.#waiting.clear();
    if (this.#timer !== undefined) this.clock.clearTimer(this.#timer);
  }

  #drain(): void {
    for (const flow of this.#waiting) {
      if (this.#budget === 0) break;
      this.#budget -= 1;
      this.#waiting.delete(flow);
      this.start(flow);
    }
    this.#timer ??= this.clock.setTimer(0, () => this.#nextTurn());
  }

  #nextTurn(): void {
    this.#timer = undefined;
    this.#budget = BATCH;
    if (this.#waiting.size > 0) this.#drain();
  }
}
