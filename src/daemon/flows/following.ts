/* Flows follow the machine to a better link, once it has been the better one for a while: routes change
 * twice and three times while a network comes up.
 *
 *   better way seen ──── still so after `follow` ────► agent.move, gentle ──► proven
 *       `── not so any more: forgotten                    `── no answer: stay, and try later
 *
 * The flow works where it is.  So nothing is given up here, and a network that leads nowhere is
 * asked less and less often.
 */

import type { Clock, SyncAgent } from '../../sync/agent.js';
import { type Tuple, tupleKey } from '../../wire/tuple.js';

/** Three SYNs have left by then. */
const TRY_MS = 2_000;

/** After so many attempts in vain by one interface so long until the next. */
export const PAUSES_MS = [4_000, 15_000, 60_000] as const;

/** From an interface to one. */
export interface Step {
  from: string;
  to: string;
}

interface Candidate {
  since: number;
  failures: number;
  /** Nothing is tried before. */
  notBefore: number;
  seen: boolean;
}

export interface FollowingOptions {
  agent: Pick<SyncAgent, 'underway' | 'cancel'>;
  clock: Clock;
  /** How long a way must have been the better one; Infinity: nothing is followed. */
  followMs: number;
  /** Has all flows looked at again. */
  lookAgain: () => void;
}

export class Following {
  readonly #o: FollowingOptions;
  readonly #candidates = new Map<string, Candidate>();
  readonly #flows = new Map<string, { kernel: Tuple; step: Step; since: number }>();
  #timer: unknown;

  constructor(o: FollowingOptions) {
    this.#o = o;
  }

  /** A look at all flows; what it does not find to be better is not. */
  look(body: () => void): void {
    for (const candidate of this.#candidates.values()) candidate.seen = false;
    body();
    for (const [key, { seen }] of this.#candidates) if (!seen) this.#candidates.delete(key);
    this.#arm();
  }

  /** Whether it is time for this step.  To be called while looking. */
  isDue(step: Step): boolean {
    const { followMs, clock } = this.#o;
    if (followMs === Number.POSITIVE_INFINITY) return false;
    const key = keyOf(step);
    const now = clock.now();
    const known = this.#candidates.get(key);
    const candidate = known ?? { since: now, failures: 0, notBefore: now + followMs, seen: true };
    candidate.seen = true;
    this.#candidates.set(key, candidate);
    return now >= candidate.notBefore;
  }

  has(kernel: Tuple): boolean {
    return this.#flows.has(tupleKey(kernel));
  }

  /** The flow is on its way.  To be called while looking. */
  begin(kernel: Tuple, step: Step): void {
    const key = tupleKey(kernel);
    if (this.#flows.has(key)) return;
    this.#flows.set(key, { kernel, step, since: this.#o.clock.now() });
  }

  /** It has arrived, is no more, or goes elsewhere; false: it was not on its way. */
  end(kernel: Tuple): boolean {
    return this.#flows.delete(tupleKey(kernel));
  }

  /** It has arrived: the way is a good one. */
  arrived(kernel: Tuple): boolean {
    const flow = this.#flows.get(tupleKey(kernel));
    const candidate = flow && this.#candidates.get(keyOf(flow.step));
    if (candidate !== undefined) candidate.failures = 0;
    return this.end(kernel);
  }

  /** Its attempt has come to nothing: it stays where it is. */
  failed(kernel: Tuple): void {
    const flow = this.#flows.get(tupleKey(kernel));
    if (flow === undefined) return;
    this.end(kernel);
    this.#o.agent.cancel(kernel);
    const candidate = this.#candidates.get(keyOf(flow.step));
    const now = this.#o.clock.now();
    // Those that began together fail together, and count as one.
    if (candidate === undefined || now < candidate.notBefore) return;
    const pause = PAUSES_MS[Math.min(candidate.failures, PAUSES_MS.length - 1)] ?? TRY_MS;
    candidate.failures += 1;
    candidate.notBefore = now + pause;
    this.#arm();
  }

  close(): void {
    this.#o.clock.clearTimer(this.#timer);
  }

  #arm(): void {
    const { clock } = this.#o;
    clock.clearTimer(this.#timer);
    this.#timer = undefined;
    const now = clock.now();
    const due = [...this.#candidates.values()].map((c) => c.notBefore).filter((at) => at > now);
    const over = [...this.#flows.values()].map((flow) => this.#overAt(flow));
    const next = [...due, ...over].reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
    if (next === Number.POSITIVE_INFINITY) return;
    this.#timer = clock.setTimer(Math.max(1, next - now), () => this.#timeout());
  }

  #overAt({ kernel, since }: { kernel: Tuple; since: number }): number {
    const underway = this.#o.agent.underway(kernel);
    // Waits for its turn, or is mapped already.
    if (underway?.state === 'confirming') return this.#o.clock.now() + TRY_MS;
    return (underway === undefined ? since : (underway.since ?? this.#o.clock.now())) + TRY_MS;
  }

  #timeout(): void {
    this.#timer = undefined;
    const now = this.#o.clock.now();
    for (const flow of [...this.#flows.values()]) {
      if (this.#overAt(flow) <= now) this.failed(flow.kernel);
    }
    if (this.#candidates.size > 0) this.#o.lookAgain();
    this.#arm();
  }
}

const keyOf = ({ from, to }: Step): string => `${from} ${to}`;
