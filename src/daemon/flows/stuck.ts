/* Flows whose packets come in and are not taken by the kernel that they are for: something behind
 * the boundary drops them.  Shows them, and ends what has stayed so for `hold`.
 *
 *   data plane: stuck ──► monitor; `tiflow flows` ──► hold ──► end: a reset to the program
 *               revived ──► monitor
 *
 * Unlike other stalls they are not synchronized again: the peer is there and answers, and what came
 * on a new wire would be dropped at the same place.  Nor is anybody stood in for.
 */

import type { Boundary } from '../../boundary/boundary.js';
import { msOfNs } from '../../libc/monotonic.js';
import type { Clock } from '../../sync/clock.js';
import { type Tuple, tupleKey, tupleText } from '../../wire/tuple.js';
import { droppedBy, isStuck } from '../view/flow-views.js';
import type { Emit } from '../view/monitor-events.js';

/** TCP sends again every 120 s at the least: with neither end doing so, nobody waits any more. */
const ACTIVE_MS = 130_000;

export interface StuckOptions {
  boundary: Pick<Boundary, 'flow'>;
  clock: Clock;
  /** How long a flow may be stuck. */
  holdMs: number;
  /** Ends a flow towards its program. */
  end: (kernel: Tuple, reason: string) => void;
  emit: Emit;
}

export class StuckFlows {
  readonly #o: StuckOptions;
  /** Timers of `hold`; a move does not end one, for what it leads to is mostly the same. */
  readonly #holds = new Map<string, unknown>();

  constructor(o: StuckOptions) {
    this.#o = o;
  }

  /** To be called with EVENT_STUCK. */
  stuck(kernel: Tuple): void {
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined || !isStuck(flow)) return;
    const key = tupleKey(kernel);
    const reason = droppedBy(flow);
    this.#o.emit({ event: 'stuck', kernel: tupleText(kernel), ...(reason && { reason }) });
    if (this.#holds.has(key)) return;
    this.#holds.set(
      key,
      this.#o.clock.setTimer(this.#o.holdMs, () => this.#holdOver(kernel)),
    );
  }

  /** To be called with EVENT_REVIVED. */
  revived(kernel: Tuple): void {
    if (!this.#holds.has(tupleKey(kernel))) return;
    this.ended(kernel);
    this.#o.emit({ event: 'revived', kernel: tupleText(kernel) });
  }

  /** Forgets a flow that has ended. */
  ended(kernel: Tuple): void {
    const key = tupleKey(kernel);
    this.#o.clock.clearTimer(this.#holds.get(key));
    this.#holds.delete(key);
  }

  close(): void {
    for (const timer of this.#holds.values()) this.#o.clock.clearTimer(timer);
    this.#holds.clear();
  }

  #holdOver(kernel: Tuple): void {
    this.#holds.delete(tupleKey(kernel));
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined || !isStuck(flow)) return;
    const lastMs = Math.max(msOfNs(flow.seenIn), msOfNs(flow.seenOut));
    if (this.#o.clock.now() - lastMs < ACTIVE_MS) this.#o.end(kernel, 'stuck');
  }
}
