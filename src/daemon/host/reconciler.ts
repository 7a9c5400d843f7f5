/* Carries out plans: looks, plans, applies, and looks again when something may have changed, at the
 * latest after half a minute.
 *
 *   event ──► 2 ms, for a burst ──► plan ──► each step ──► done
 *   timer, 30 s: look at all of it ──┘  ▲        `──► refused: said once, counted,
 *                                       `── after 1 s, 2 s, ... 60 s, or when its subject has changed
 *
 * A step that is refused keeps no other from being taken.  One that somebody undoes again and again is
 * taken later and later: who fights with us must not find us at it all the time.
 */

import { SystemError } from '../../libc/errno.js';
import type { Clock } from '../../sync/clock.js';
import type { PlanView } from '../view/view.js';

/* The kernel tells of a link, its addresses and its qdiscs in one burst. */
const BURST_MS = 2;
const LOOK_MS = 30_000;
const RETRY_MS = { least: 1_000, most: 60_000 };
const REDO_MS = { least: 2, most: 30_000 };

/** A step as data: what it is called, what it is about, why. */
export interface Step {
  do: string;
  interface?: string;
  because: string;
}

export interface ReconcilerOptions<S extends Step> {
  /** Looks at all of it, whatever was told. */
  look: () => void;
  /** What is to be done now.  Pure, of what was seen last. */
  plan: () => S[];
  /** Idempotent.  Throws SystemError. */
  apply: (step: S) => void;
  /** To be told, once for each reason, that a step was refused. */
  refused: (step: S, error: SystemError) => void;
  clock: Clock;
}

interface Tried {
  /** What refused it; undefined: nothing, it was done. */
  error: SystemError | undefined;
  times: number;
  at: number;
  againAt: number;
}

/* What was done and has stood for so long is done at once if it is undone. */
const CALM_MS = 60_000;

/* These concern the process, not the machine: it cannot go on. */
const FATAL = ['EPERM', 'EACCES'];

export class Reconciler<S extends Step> {
  readonly #o: ReconcilerOptions<S>;
  readonly #tried = new Map<string, Tried>();
  #soon: unknown;
  #again: unknown;
  #timer: unknown;

  constructor(o: ReconcilerOptions<S>) {
    this.#o = o;
    this.#lookLater();
  }

  /** To be called when something may have changed; `subject`: what it is about. */
  soon(subject?: string): void {
    this.#forgive(subject);
    this.#soon ??= this.#o.clock.setTimer(BURST_MS, () => this.now());
  }

  /** Does what there is to do, but for what was refused a moment ago. */
  now(subject?: string): void {
    this.#forgive(subject);
    this.#o.clock.clearTimer(this.#soon);
    this.#soon = undefined;
    const steps = this.#o.plan();
    const keys = new Set(steps.map(keyOf));
    for (const [key, { error, at }] of this.#tried) {
      const isOver = error !== undefined || at + CALM_MS < this.#o.clock.now();
      if (isOver && !keys.has(key)) this.#tried.delete(key);
    }
    this.#tryAgain(steps.filter((step) => !this.#take(step)));
  }

  /** The same, and all that was refused is tried at once. */
  anew(): void {
    for (const tried of this.#tried.values()) tried.againAt = 0;
    this.now();
  }

  /** The plan of what was seen last, and what was refused of it. */
  view(): PlanView {
    const nowMs = this.#o.clock.now();
    return {
      version: 1,
      steps: this.#o.plan().map((step) => {
        const tried = this.#tried.get(keyOf(step));
        return {
          do: [step.do, step.interface].filter((word) => word !== undefined).join(' '),
          because: step.because,
          refused: tried?.error?.message ?? null,
          times_refused: tried?.error === undefined ? 0 : tried.times,
          again_in_ms: Math.max(0, Math.round((tried?.againAt ?? nowMs) - nowMs)),
        };
      }),
    };
  }

  /** What refused a step; undefined: nothing, or it was not tried. */
  refusalOf(step: S): SystemError | undefined {
    return this.#tried.get(keyOf(step))?.error;
  }

  close(): void {
    for (const timer of [this.#soon, this.#again, this.#timer]) this.#o.clock.clearTimer(timer);
  }

  /* Whether it is done. */
  #take(step: S): boolean {
    const before = this.#tried.get(keyOf(step));
    if (before !== undefined && before.againAt > this.#o.clock.now()) return false;
    const error = this.#try(step);
    const sameTimes = (before?.error === undefined) === (error === undefined);
    const times = sameTimes ? (before?.times ?? 0) + 1 : 1;
    const { least, most } = error === undefined ? REDO_MS : RETRY_MS;
    const at = this.#o.clock.now();
    const againAt = at + Math.min(least * 2 ** (times - 1), most);
    this.#tried.set(keyOf(step), { error, times, at, againAt });
    if (error !== undefined && before?.error?.message !== error.message) {
      this.#o.refused(step, error);
    }
    return error === undefined;
  }

  #try(step: S): SystemError | undefined {
    try {
      this.#o.apply(step);
      return undefined;
    } catch (error) {
      if (!(error instanceof SystemError) || FATAL.includes(error.code)) throw error;
      return error;
    }
  }

  /* What it is about has changed: what was refused may be possible now. */
  #forgive(subject: string | undefined): void {
    if (subject === undefined) return;
    for (const [key, tried] of this.#tried) {
      if (tried.error !== undefined && subjectOf(key) === subject) tried.againAt = 0;
    }
  }

  #tryAgain(left: readonly S[]): void {
    this.#o.clock.clearTimer(this.#again);
    this.#again = undefined;
    let first = Number.POSITIVE_INFINITY;
    for (const step of left) {
      first = Math.min(first, this.#tried.get(keyOf(step))?.againAt ?? first);
    }
    if (first === Number.POSITIVE_INFINITY) return;
    const inMs = Math.max(0, first - this.#o.clock.now());
    this.#again = this.#o.clock.setTimer(inMs, () => this.now());
  }

  #lookLater(): void {
    this.#timer = this.#o.clock.setTimer(LOOK_MS, () => {
      this.#lookLater();
      this.#o.look();
      this.now();
    });
  }
}

/* Steps are the same if they do the same, whatever for. */
const keyOf = ({ because: _, interface: subject, ...rest }: Step): string =>
  `${subject ?? ''} ${JSON.stringify(rest)}`;

const subjectOf = (key: string): string => key.slice(0, key.indexOf(' '));
