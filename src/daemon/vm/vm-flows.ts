/* The flows of VMs on their way: which are being synchronized, how each ended, and what becomes of
 * those that cannot be moved in time.  What mobility.ts is for our own kernel's flows; but here
 * it is the migration that says when, and the program to be told is the guest's.
 */

import { FLOW_FLAG, type Flow } from '../../boundary/abi.gen.js';
import type { Boundary } from '../../boundary/boundary.js';
import type { Clock, Outlet, SyncAgent } from '../../sync/agent.js';
import type { FailureReason, SyncEvent } from '../../sync/event.js';
import { encodePacket } from '../../wire/packet.js';
import { seq } from '../../wire/seq.js';
import { type Tuple, tupleText } from '../../wire/tuple.js';
import { Journeys } from '../flows/journeys.js';
import type { Emit } from '../view/monitor-events.js';
import type { SynchronizeView } from '../view/view.js';

interface Tally {
  /** Its journeys; counted, for each that ends of a full table would else count all the rest. */
  pending: number;
  moved: number;
  failures: Array<{ kernel: string; reason: string }>;
  /** Called when the last journey of the tap has ended. */
  settled: Array<() => void>;
}

export interface VmFlowsOptions {
  boundary: Pick<Boundary, 'command' | 'flow'>;
  agent: Pick<SyncAgent, 'move' | 'cancel' | 'underway' | 'together' | 'reasonNow'>;
  /** Of the tap with this index. */
  mtuOf: (tap: number) => number;
  outlet: Pick<Outlet, 'toKernel'>;
  clock: Clock;
  giveUpMs: number;
  emit: Emit;
}

export class VmFlows {
  readonly #o: VmFlowsOptions;
  readonly #journeys: Journeys;
  readonly #tallies = new Map<number, Tally>();

  constructor(o: VmFlowsOptions) {
    this.#o = o;
    this.#journeys = new Journeys({
      ...o,
      // They are tried from one address only, so that give_up is the bound.
      holdMs: Number.POSITIVE_INFINITY,
      over: (kernel, reason) => this.#fail(kernel, reason),
    });
  }

  /**
   * Begins to synchronize these flows of the VM behind `tap` from where it is now.  `epochAbove`:
   * how many epochs another machine may have used meanwhile.
   */
  begin(tap: number, flows: Array<[Tuple, Flow]>, o: { mtu: number; epochAbove: number }): void {
    const tally = this.#tallyOf(tap);
    // Who asks again while some are on their way is told of all of them.
    if (tally.pending === 0) Object.assign(tally, { moved: 0, failures: [] });
    this.#o.agent.together(() => {
      for (const [kernel, flow] of flows) {
        if (this.#journeys.has(kernel)) continue;
        tally.pending += 1;
        this.#journeys.begin(kernel);
        const newest = (flow.epoch + o.epochAbove) & 0xffff;
        this.#o.agent.move(kernel, kernel.local, { mtu: o.mtu, redirect: true, newest });
      }
    });
  }

  /** Resolves when all of the tap's have ended, or time is up; how it stands then. */
  async settled(tap: number, withinMs: number): Promise<SynchronizeView> {
    const { clock } = this.#o;
    if (this.#tallyOf(tap).pending > 0) {
      await new Promise<void>((resolve) => {
        const timer = clock.setTimer(withinMs, resolve);
        this.#tallyOf(tap).settled.push(() => {
          clock.clearTimer(timer);
          resolve();
        });
      });
    }
    const { moved, failures, pending } = this.#tallyOf(tap);
    return { version: 1, moved, failed: failures.length, pending, failures };
  }

  /** To be called with each event of the agent. */
  synchronized(event: SyncEvent): void {
    const { kernel } = event;
    if (event.type === 'proven') this.#end(kernel, undefined);
    if (event.type !== 'failed') return;
    const wasUnderway = this.#journeys.failed(kernel, event.reason);
    if (wasUnderway && event.final) this.#fail(kernel, event.reason);
  }

  /** A flow has ended, or does not live here any more. */
  ended(kernel: Tuple): void {
    this.#o.agent.cancel(kernel);
    this.#end(kernel, 'ended');
  }

  /**
   * The guest's program is told that its connection has ended, by a reset as its peer would have
   * sent it (RFC 5961: SEQ must be exactly RCV.NXT, which is the highest ACK that the guest has sent).
   */
  tell(kernel: Tuple, flow: Flow): void {
    this.#o.outlet.toKernel(encodePacket(resetFor(kernel, flow)), kernel);
  }

  close(): void {
    this.#journeys.close();
    for (const { settled } of this.#tallies.values()) for (const resolve of settled) resolve();
  }

  #tallyOf(tap: number): Tally {
    const known = this.#tallies.get(tap);
    if (known !== undefined) return known;
    const fresh: Tally = { pending: 0, moved: 0, failures: [], settled: [] };
    this.#tallies.set(tap, fresh);
    return fresh;
  }

  /* No-op if it was not on its way. */
  #end(kernel: Tuple, failure: string | undefined): void {
    if (this.#journeys.end(kernel)) this.#count(kernel, failure);
  }

  #count(kernel: Tuple, failure: string | undefined): void {
    const tally = this.#tallyOf(kernel.tap ?? 0);
    tally.pending -= 1;
    if (failure === undefined) tally.moved += 1;
    else tally.failures.push({ kernel: tupleText(kernel), reason: failure });
    if (tally.pending > 0) return;
    for (const resolve of tally.settled.splice(0)) resolve();
  }

  /* The guest's program is told by a reset as its peer would have sent it (RFC 5961: SEQ must be
   * exactly RCV.NXT, which is the highest ACK that the guest has sent).
   */
  reset(kernel: Tuple, reason: string): void {
    const flow = this.#o.boundary.flow(kernel);
    this.#o.agent.cancel(kernel);
    this.#o.boundary.command({ verb: 'forget', kernel });
    if (flow !== undefined) this.tell(kernel, flow);
    this.#o.emit({ event: 'flow-reset', kernel: tupleText(kernel), reason });
  }

  #fail(kernel: Tuple, reason: FailureReason): void {
    this.#journeys.end(kernel);
    this.#o.emit({ event: 'move-failed', kernel: tupleText(kernel), reason });
    this.reset(kernel, reason);
    this.#count(kernel, reason);
  }

  /** Synchronizes a flow from where it is; false: it cannot be, or is under way already. */
  again(kernel: Tuple, flow: Flow): boolean {
    const { agent, mtuOf } = this.#o;
    const isBusy = (flow.flags & FLOW_FLAG.HELD) !== 0 || agent.underway(kernel) !== undefined;
    if (isBusy || this.isDeparting(kernel)) return false;
    agent.move(kernel, kernel.local, { mtu: mtuOf(kernel.tap ?? 0), redirect: true });
    return true;
  }

  /** Whether the migration that brought this flow here is still about to synchronize it. */
  isDeparting(kernel: Tuple): boolean {
    return this.#journeys.has(kernel);
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
