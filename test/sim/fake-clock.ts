/*
 * Time that passes only when something is due: the simulation's event loop.
 */
import type { Clock } from '../../src/sync/agent.js';

interface Due {
  at: number;
  /** Of two that are due at once, the one set first goes first. */
  order: number;
  run: (() => void) | undefined;
}

/** More than this at one moment: something calls itself. */
const STILL_MAX = 10_000;

export class FakeClock implements Clock {
  #now = 0;
  #order = 0;
  /** A binary heap, soonest first. */
  readonly #heap: Due[] = [];

  now(): number {
    return this.#now;
  }

  setTimer(ms: number, f: () => void): unknown {
    const due: Due = { at: this.#now + Math.max(0, ms), order: this.#order++, run: f };
    this.#heap.push(due);
    this.#rise(this.#heap.length - 1);
    return due;
  }

  clearTimer(timer: unknown): void {
    // Like clearTimeout: there may be none.
    if (timer !== undefined) (timer as Due).run = undefined;
  }

  /** Runs what is due until `until` says so or nothing is left or it is `atMost`. */
  run(o: { atMost: number; until: () => boolean }): void {
    let still = 0;
    while (!o.until()) {
      const due = this.#take();
      if (due === undefined || due.at > o.atMost) return;
      if (due.run === undefined) continue;
      still = due.at === this.#now ? still + 1 : 0;
      if (still > STILL_MAX) throw new Error(`time stands still at ${this.#now}`);
      this.#now = due.at;
      due.run();
    }
  }

  /** Lets so much time pass. */
  pass(ms: number): void {
    let isOver = false;
    this.setTimer(ms, () => {
      isOver = true;
    });
    this.run({ atMost: Number.POSITIVE_INFINITY, until: () => isOver });
  }

  #take(): Due | undefined {
    const first = this.#heap[0];
    const last = this.#heap.pop();
    if (first !== last && last !== undefined) {
      this.#heap[0] = last;
      this.#sink(0);
    }
    return first;
  }

  #rise(at: number): void {
    for (let i = at; i > 0; ) {
      const parent = (i - 1) >> 1;
      if (!this.#swapIfSooner(i, parent)) return;
      i = parent;
    }
  }

  #sink(at: number): void {
    for (let i = at; ; ) {
      const left = 2 * i + 1;
      const child = this.#isSooner(left + 1, left) ? left + 1 : left;
      if (!this.#swapIfSooner(child, i)) return;
      i = child;
    }
  }

  #swapIfSooner(a: number, b: number): boolean {
    const [first, second] = [this.#heap[a], this.#heap[b]];
    if (!this.#isSooner(a, b) || first === undefined || second === undefined) return false;
    this.#heap[a] = second;
    this.#heap[b] = first;
    return true;
  }

  #isSooner(a: number, b: number): boolean {
    const [first, second] = [this.#heap[a], this.#heap[b]];
    if (first === undefined || second === undefined) return false;
    return first.at < second.at || (first.at === second.at && first.order < second.order);
  }
}

/** A clock whose timers all stop at once: those of a process that dies. */
export class MortalClock implements Clock {
  #alive = true;

  constructor(private readonly clock: Clock) {}

  now(): number {
    return this.clock.now();
  }

  setTimer(ms: number, f: () => void): unknown {
    return this.clock.setTimer(ms, () => {
      if (this.#alive) f();
    });
  }

  clearTimer(timer: unknown): void {
    this.clock.clearTimer(timer);
  }

  kill(): void {
    this.#alive = false;
  }
}
