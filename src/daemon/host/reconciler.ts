/* Carries out plans: looks, plans, applies, and looks again when something may have changed, at the
 * latest after half a minute.
 *
 *   event ──► 2 ms, for a burst ──► plan ──► each step ──► done
 *   timer, 30 s: look at all of it ──┘  ▲        `──► refused: said once, counted,
 *                                       `── after 1 s, 2 s, ... 60 s, or when its subject has changed
 *
 * A step that is refused keeps no other from being taken.
 */

import { SystemError } from '../../libc/errno.js';
import type { Clock } from '../../sync/clock.js';
import type { PlanView } from '../view/view.js';

/* The kernel tells of a link, its addresses and its qdiscs in one burst. */
const BURST_MS = 2;
const LOOK_MS = 30_000;
const RETRY_MS = { least: 1_000, most: 60_000 };

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

interface Refusal {
  error: SystemError;
  tries: number;
  againAt: number;
}

/* These concern the process, not the machine: it cannot go on. */
const FATAL = ['EPERM', 'EACCES'];

export class Reconciler<S extends Step> {
  readonly #o: ReconcilerOptions<S>;
  readonly #refusals = new Map<string, Refusal>();
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
    for (const key of this.#refusals.keys()) if (!keys.has(key)) this.#refusals.delete(key);
    for (const step of steps) this.#take(step);
    this.#tryAgain();
  }

  /** The plan of what was seen last, and what was refused of it. */
  view(): PlanView {
    const nowMs = this.#o.clock.now();
    return {
      version: 1,
      steps: this.#o.plan().map((step) => {
        const refusal = this.#refusals.get(keyOf(step));
        return {
          do: [step.do, step.interface].filter((word) => word !== undefined).join(' '),
          because: step.because,
          refused: refusal?.error.message ?? null,
          again_in_ms: refusal === undefined ? 0 : Math.max(0, Math.round(refusal.againAt - nowMs)),
        };
      }),
    };
  }

  /** What refused a step; undefined: nothing, or it was not tried. */
  refusalOf(step: S): SystemError | undefined {
    return this.#refusals.get(keyOf(step))?.error;
  }

  close(): void {
    for (const timer of [this.#soon, this.#again, this.#timer]) this.#o.clock.clearTimer(timer);
  }

  #take(step: S): void {
    const before = this.#refusals.get(keyOf(step));
    if (before !== undefined && before.againAt > this.#o.clock.now()) return;
    try {
      this.#o.apply(step);
      this.#refusals.delete(keyOf(step));
    } catch (error) {
      if (!(error instanceof SystemError) || FATAL.includes(error.code)) throw error;
      this.#note(step, error, before);
    }
  }

  #note(step: S, error: SystemError, before: Refusal | undefined): void {
    const tries = (before?.tries ?? 0) + 1;
    const waitMs = Math.min(RETRY_MS.least * 2 ** (tries - 1), RETRY_MS.most);
    this.#refusals.set(keyOf(step), { error, tries, againAt: this.#o.clock.now() + waitMs });
    if (before?.error.message !== error.message) this.#o.refused(step, error);
  }

  /* What it is about has changed: what was refused may be possible now. */
  #forgive(subject: string | undefined): void {
    if (subject === undefined) return;
    for (const [key, refusal] of this.#refusals) {
      if (subjectOf(key) === subject) refusal.againAt = 0;
    }
  }

  #tryAgain(): void {
    this.#o.clock.clearTimer(this.#again);
    this.#again = undefined;
    let first = Number.POSITIVE_INFINITY;
    for (const { againAt } of this.#refusals.values()) first = Math.min(first, againAt);
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
