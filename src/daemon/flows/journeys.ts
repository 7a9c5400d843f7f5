/* The flows that are being synchronized because they have to be elsewhere, why the last attempt of
 * each came to nothing, and when one of them is given up.
 *
 *   begin ──► its turn comes, at an address that is usable ──── give_up ────► over
 *     `──────────────────────────── hold ───────────────────────────────────► over
 *
 * The time in which a flow waits for its turn does not count, nor does that without any network: its
 * synchronization does not run.  Each new address gives it all the time again, but no flow is
 * away for longer than `hold`.
 */

import { attempt } from '../../libc/guard.js';
import type { Clock, SyncAgent } from '../../sync/agent.js';
import type { FailureReason } from '../../sync/event.js';
import { type Tuple, tupleKey } from '../../wire/tuple.js';

/* Each look goes over all, so flows that begin one after the other are given up in one go. */
const GRAIN_MS = 100;
const GRAIN_PER_FLOW_MS = 0.01;

interface Journey {
  kernel: Tuple;
  since: number;
  reason: FailureReason | undefined;
}

export interface JourneysOptions {
  agent: Pick<SyncAgent, 'underway' | 'reasonNow'>;
  clock: Clock;
  giveUpMs: number;
  /** However many addresses it is tried from. */
  holdMs: number;
  /** Called when time is up for this flow, which has no journey any more. */
  over: (kernel: Tuple, reason: FailureReason) => void;
}

export class Journeys {
  readonly #o: JourneysOptions;
  readonly #journeys = new Map<string, Journey>();
  #timer: unknown;

  constructor(o: JourneysOptions) {
    this.#o = o;
  }

  get size(): number {
    return this.#journeys.size;
  }

  has(kernel: Tuple): boolean {
    return this.#journeys.has(tupleKey(kernel));
  }

  /** No-op if the flow is on its way already. */
  begin(kernel: Tuple): void {
    const key = tupleKey(kernel);
    if (this.#journeys.has(key)) return;
    this.#journeys.set(key, { kernel, since: this.#o.clock.now(), reason: undefined });
    this.#arm();
  }

  /** An attempt has come to nothing; false: the flow is not on its way. */
  failed(kernel: Tuple, reason: FailureReason): boolean {
    const journey = this.#journeys.get(tupleKey(kernel));
    if (journey !== undefined) journey.reason = reason;
    return journey !== undefined;
  }

  /** Why the last attempt came to nothing; undefined: none has. */
  failureOf(kernel: Tuple): FailureReason | undefined {
    return this.#journeys.get(tupleKey(kernel))?.reason;
  }

  /** The flow has arrived, or waits, or is no more; false: it was not on its way. */
  end(kernel: Tuple): boolean {
    return this.#journeys.delete(tupleKey(kernel));
  }

  close(): void {
    this.#o.clock.clearTimer(this.#timer);
  }

  #arm(): void {
    if (this.#timer !== undefined || this.#journeys.size === 0) return;
    let first = Number.POSITIVE_INFINITY;
    for (const journey of this.#journeys.values()) first = Math.min(first, this.#dueOf(journey));
    const grainMs = Math.max(GRAIN_MS, GRAIN_PER_FLOW_MS * this.size);
    const inMs = Math.max(grainMs, first - this.#o.clock.now());
    this.#timer = this.#o.clock.setTimer(inMs, () => this.#due());
  }

  #dueOf({ kernel, since }: Journey): number {
    const { agent, clock, giveUpMs, holdMs } = this.#o;
    const triedSince = agent.underway(kernel)?.since ?? clock.now();
    return Math.min(triedSince + giveUpMs, since + Math.max(holdMs, giveUpMs));
  }

  #due(): void {
    this.#timer = undefined;
    const now = this.#o.clock.now();
    for (const [key, journey] of this.#journeys) {
      if (this.#dueOf(journey) > now) continue;
      const { kernel, reason } = journey;
      this.#journeys.delete(key);
      attempt(() => this.#o.over(kernel, this.#o.agent.reasonNow(kernel, reason)));
    }
    this.#arm();
  }
}
