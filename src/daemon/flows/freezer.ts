/* Before a planned move: closes the window of both ends of each flow, so that neither sends what
 * would be lost on the way, backs off, and forgets how fast the path was.
 *
 *   freeze ──► windows closed in both directions (data plane), own kernel told at once
 *     └──► its kernel sends an ACK: the peer is told ──► what is in flight is acknowledged ──► quiet
 *
 * To the peer it is plain TCP: a receiver without room for more (RFC 9293, section 3.8.6).  After
 * the move the CONFIRM opens the window.  Without a move the data plane opens it when time is up.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { FLOW_FLAG, type Flow } from '../../boundary/abi.gen.js';
import type { Boundary } from '../../boundary/boundary.js';
import { after, attempt } from '../../libc/guard.js';
import { monotonicMs, monotonicNs, msOfNs } from '../../libc/monotonic.js';
import type { SyncAgent } from '../../sync/agent.js';
import type { Tuple } from '../../wire/tuple.js';
import { flowIsOver } from '../view/flow-views.js';
import type { FreezeView } from '../view/view.js';

/* So long nothing must have come in: more than a round trip of most paths, for a sender that is
 * told to stop goes on for one.
 */
const QUIET_MS = 50;
/* Who does not fall silent by then will lose something. */
const QUIET_BOUND_MS = 1_000;
const PROBE_MS = 10;

export interface FreezerOptions {
  boundary: Pick<Boundary, 'flow' | 'flows' | 'command'>;
  agent: Pick<SyncAgent, 'state' | 'prompt' | 'standIn' | 'kick'>;
}

export class Freezer {
  #o: FreezerOptions;
  #thaws = new Set<NodeJS.Timeout>();

  constructor(o: FreezerOptions) {
    this.#o = o;
  }

  /** Freezes the flows of our own kernel, or of the VM behind `tap`, for at most `forMs`. */
  async freeze(tap: number | undefined, forMs: number): Promise<FreezeView> {
    const until = monotonicNs() + BigInt(Math.round(forMs)) * 1_000_000n;
    const frozen = this.#o.boundary
      .flows()
      .filter(([kernel, flow]) => kernel.tap === tap && this.#isAtWork(kernel, flow))
      .map(([kernel]) => kernel);
    for (const kernel of frozen) {
      this.#o.boundary.command({ verb: 'freeze', kernel, until });
      this.#o.agent.standIn(kernel, false);
      this.#o.agent.prompt(kernel);
    }
    this.#armThaw(frozen, until, forMs);
    return { version: 1, frozen: frozen.length, quiet: await this.#quiet(frozen) };
  }

  close(): void {
    for (const timer of this.#thaws) clearTimeout(timer);
  }

  #isAtWork(kernel: Tuple, flow: Flow): boolean {
    const isHeld = (flow.flags & FLOW_FLAG.HELD) !== 0;
    return !flowIsOver(flow) && !isHeld && this.#o.agent.state(kernel) === 'steady';
  }

  async #quiet(frozen: readonly Tuple[]): Promise<boolean> {
    const deadline = monotonicMs() + QUIET_BOUND_MS;
    let restless = frozen;
    while (restless.length > 0 && monotonicMs() < deadline) {
      await delay(PROBE_MS);
      restless = restless.filter((kernel) => !this.#isQuiet(kernel));
    }
    return restless.length === 0;
  }

  /** Nothing of either end is on the way. */
  #isQuiet(kernel: Tuple): boolean {
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined) return true;
    return flow.sndUna === flow.sndNxt && monotonicMs() - msOfNs(flow.seenIn) >= QUIET_MS;
  }

  #armThaw(frozen: readonly Tuple[], until: bigint, forMs: number): void {
    const timer = after(forMs, () => {
      this.#thaws.delete(timer);
      for (const kernel of frozen) attempt(() => this.#thaw(kernel, until));
    });
    this.#thaws.add(timer);
  }

  /* Both ends would find out by their probes, but those are seconds apart by now. */
  #thaw(kernel: Tuple, until: bigint): void {
    const flow = this.#o.boundary.flow(kernel);
    if (flow?.frozenUntil !== until || !this.#isAtWork(kernel, flow)) return;
    this.#o.boundary.command({ verb: 'release', kernel });
    this.#o.agent.kick(kernel);
  }
}
