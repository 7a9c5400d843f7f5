/* The flows of VMs on their way: which are being synchronized, how each ended, and what becomes of
 * those that cannot be moved in time.  What mobility.ts is for our own kernel's flows; but here
 * it is the migration that says when, and the program to be told is the guest's.
 */

import { FLOW_FLAG, type Flow } from '../boundary/abi.gen.js';
import type { Boundary } from '../boundary/boundary.js';
import type { Outlet, SyncAgent } from '../sync/agent.js';
import type { SyncEvent } from '../sync/event.js';
import { encodePacket } from '../wire/packet.js';
import { seq } from '../wire/seq.js';
import { type Tuple, tupleKey, tupleText } from '../wire/tuple.js';
import { monotonicMs } from './clock.js';
import type { Emit } from './monitor-events.js';
import type { SynchronizeView } from './view.js';

interface Journey {
  kernel: Tuple;
  since: number;
  reason: string | undefined;
}

interface Tally {
  moved: number;
  failures: Array<{ kernel: string; reason: string }>;
  /** Called when the last journey of the tap has ended. */
  settled: Array<() => void>;
}

export interface VmFlowsOptions {
  boundary: Pick<Boundary, 'command' | 'flow'>;
  agent: Pick<SyncAgent, 'move' | 'cancel' | 'state'>;
  /** Of the tap with this index. */
  mtuOf: (tap: number) => number;
  outlet: Pick<Outlet, 'toKernel'>;
  giveUpMs: number;
  emit: Emit;
}

export class VmFlows {
  readonly #o: VmFlowsOptions;
  readonly #journeys = new Map<string, Journey>();
  readonly #tallies = new Map<number, Tally>();
  #giveUp: NodeJS.Timeout | undefined;

  constructor(o: VmFlowsOptions) {
    this.#o = o;
  }

  /**
   * Begins to synchronize these flows of the VM behind `tap` from where it is now.  `epochAbove`:
   * how many epochs another machine may have used meanwhile.
   */
  begin(tap: number, flows: Array<[Tuple, Flow]>, o: { mtu: number; epochAbove: number }): void {
    this.#tallies.set(tap, { moved: 0, failures: [], settled: this.#tallyOf(tap).settled });
    for (const [kernel, flow] of flows) {
      const key = tupleKey(kernel);
      if (this.#journeys.has(key)) continue;
      this.#journeys.set(key, { kernel, since: monotonicMs(), reason: undefined });
      const newest = (flow.epoch + o.epochAbove) & 0xffff;
      this.#o.agent.move(kernel, kernel.local, { mtu: o.mtu, redirect: true, newest });
    }
    this.#armGiveUp();
  }

  /** Resolves when all of the tap's have ended, or time is up; how it stands then. */
  async settled(tap: number, withinMs: number): Promise<SynchronizeView> {
    if (this.#pendingOf(tap) > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, withinMs);
        this.#tallyOf(tap).settled.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    const { moved, failures } = this.#tallyOf(tap);
    const pending = this.#pendingOf(tap);
    return { version: 1, moved, failed: failures.length, pending, failures };
  }

  /** To be called with each event of the agent. */
  synchronized(event: SyncEvent): void {
    const journey = this.#journeys.get(tupleKey(event.kernel));
    if (journey === undefined) return;
    if (event.type === 'proven') this.#end(journey, undefined);
    if (event.type !== 'failed') return;
    journey.reason = event.reason;
    if (event.final) this.#fail(journey);
  }

  /** A flow has ended, or does not live here any more. */
  ended(kernel: Tuple): void {
    this.#o.agent.cancel(kernel);
    const journey = this.#journeys.get(tupleKey(kernel));
    if (journey !== undefined) this.#end(journey, 'ended');
  }

  close(): void {
    clearTimeout(this.#giveUp);
    for (const { settled } of this.#tallies.values()) for (const resolve of settled) resolve();
  }

  #tallyOf(tap: number): Tally {
    const known = this.#tallies.get(tap);
    if (known !== undefined) return known;
    const fresh: Tally = { moved: 0, failures: [], settled: [] };
    this.#tallies.set(tap, fresh);
    return fresh;
  }

  #pendingOf(tap: number): number {
    return [...this.#journeys.values()].filter(({ kernel }) => kernel.tap === tap).length;
  }

  #end(journey: Journey, failure: string | undefined): void {
    const { kernel } = journey;
    this.#journeys.delete(tupleKey(kernel));
    const tally = this.#tallyOf(kernel.tap ?? 0);
    if (failure === undefined) tally.moved += 1;
    else tally.failures.push({ kernel: tupleText(kernel), reason: failure });
    if (this.#pendingOf(kernel.tap ?? 0) > 0) return;
    for (const resolve of tally.settled.splice(0)) resolve();
  }

  /* The guest's program is told by a reset as its peer would have sent it (RFC 5961: SEQ must be
   * exactly RCV.NXT, which is the highest ACK that the guest has sent).
   */
  reset(kernel: Tuple, reason: string): void {
    const flow = this.#o.boundary.flow(kernel);
    this.#o.agent.cancel(kernel);
    this.#o.boundary.command({ verb: 'forget', kernel });
    if (flow !== undefined) this.#o.outlet.toKernel(encodePacket(resetFor(kernel, flow)), kernel);
    this.#o.emit({ event: 'flow-reset', kernel: tupleText(kernel), reason });
  }

  #fail(journey: Journey): void {
    const { kernel, reason } = journey;
    const why = reason ?? 'no-answer';
    this.#o.emit({ event: 'move-failed', kernel: tupleText(kernel), reason: why });
    this.reset(kernel, why);
    this.#end(journey, why);
  }

  /** Synchronizes a flow from where it is; false: it cannot be, or is under way already. */
  again(kernel: Tuple, flow: Flow): boolean {
    const { agent, mtuOf } = this.#o;
    const isBusy = (flow.flags & FLOW_FLAG.HELD) !== 0 || agent.state(kernel) !== 'steady';
    if (isBusy || this.isDeparting(kernel)) return false;
    agent.move(kernel, kernel.local, { mtu: mtuOf(kernel.tap ?? 0), redirect: true });
    return true;
  }

  /** Whether the migration that brought this flow here is still about to synchronize it. */
  isDeparting(kernel: Tuple): boolean {
    return this.#journeys.has(tupleKey(kernel));
  }

  #armGiveUp(): void {
    if (this.#giveUp !== undefined || this.#journeys.size === 0) return;
    const oldest = Math.min(...[...this.#journeys.values()].map(({ since }) => since));
    const dueMs = Math.max(0, oldest + this.#o.giveUpMs - monotonicMs());
    this.#giveUp = setTimeout(() => this.#giveUpDue(), dueMs);
  }

  #giveUpDue(): void {
    this.#giveUp = undefined;
    const due = monotonicMs() - this.#o.giveUpMs;
    for (const journey of [...this.#journeys.values()]) {
      if (journey.since <= due) this.#fail(journey);
    }
    this.#armGiveUp();
  }
}

/** What ends the guest's socket, in its own view. */
const resetFor = (kernel: Tuple, flow: Flow) => ({
  source: kernel.remote,
  sourcePort: kernel.remotePort,
  destination: kernel.local,
  destinationPort: kernel.localPort,
  flags: 'R' as const,
  seq: flow.rcvNxt,
  ack: seq(0),
  window: 0,
  options: [],
  payload: new Uint8Array(0),
});
