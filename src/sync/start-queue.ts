/*
 * Paces the start of many synchronizations by the answers to the first: of a thousand flows that
 * move at once only so many wait for an answer at a time.  SYNs that were sent faster than both
 * ends can work them off would be repeated before their turn comes, each with its answer.
 *
 * A flow whose answer is long in coming, or never comes, must not hold up the others: after a
 * while its place is given away.
 */
import type { Clock } from './clock.js';

/** Some 10 ms of work in one turn of the event loop. */
const PLACES = 64;

/** A thousand flows whose peers are all far away, or gone, have begun after 400 ms. */
const PLACE_MS = 25;

export class StartQueue {
  readonly #waiting = new Set<string>();
  /** The flows that have begun and wait for an answer, each with its timer. */
  readonly #begun = new Map<string, unknown>();
  #isStarting = false;

  constructor(
    private readonly clock: Clock,
    private readonly start: (flow: string) => void,
    private readonly places = PLACES,
  ) {}

  /** How many flows other than this one have begun and wait for an answer. */
  others(flow: string): number {
    return this.#begun.size - (this.#begun.has(flow) ? 1 : 0);
  }

  /** Starts `flow` as soon as there is a place for it: now, mostly. */
  add(flow: string): void {
    this.#waiting.add(flow);
    this.#startWaiting();
  }

  /** A flow shall not begin any more. */
  leave(flow: string): void {
    this.#waiting.delete(flow);
    this.answered(flow);
  }

  /** A flow that has begun does not wait for an answer any more: others may begin. */
  answered(flow: string): void {
    if (!this.#begun.has(flow)) return;
    this.clock.clearTimer(this.#begun.get(flow));
    this.#begun.delete(flow);
    this.#startWaiting();
  }

  /** Runs `body`, which adds and takes away: nothing starts before it is through. */
  together(body: () => void): void {
    if (this.#isStarting) {
      body();
      return;
    }
    this.#isStarting = true;
    try {
      body();
    } finally {
      this.#isStarting = false;
    }
    this.#startWaiting();
  }

  close(): void {
    this.#waiting.clear();
    for (const timer of this.#begun.values()) this.clock.clearTimer(timer);
    this.#begun.clear();
  }

  #startWaiting(): void {
    // What starts may leave at once: a loop here, not a recursion.
    if (this.#isStarting) return;
    this.#isStarting = true;
    try {
      for (const flow of this.#waiting) {
        if (this.#begun.size >= this.places) break;
        this.#waiting.delete(flow);
        this.#begun.set(
          flow,
          this.clock.setTimer(PLACE_MS, () => this.answered(flow)),
        );
        this.start(flow);
      }
    } finally {
      this.#isStarting = false;
    }
  }
}
