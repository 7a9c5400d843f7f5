/* Flows that get no answer: drives stall.ts for each, and ends what has been silent for `hold`.
 *
 *   data plane: stalled, revived, rst ──► stall.ts ──► agent: stand-in, synchronization
 *                                             `──────► end: a reset to the program
 *
 * Nothing is polled and nothing has to survive the daemon: the flow's own TCP probes again, 120 s
 * apart at most, and each probe of a stalled flow is told.
 */

import { FLOW_FLAG, type Flow } from '../../boundary/abi.gen.js';
import type { Boundary } from '../../boundary/boundary.js';
import { attempt } from '../../libc/guard.js';
import { msOfNs } from '../../libc/monotonic.js';
import type { Progress } from '../../link/sockets.js';
import type { Clock, SyncAgent } from '../../sync/agent.js';
import type { SyncEvent } from '../../sync/event.js';
import { decodePacket } from '../../wire/packet.js';
import { type Tuple, tupleKey, tupleText } from '../../wire/tuple.js';
import { flowIsOver } from '../view/flow-views.js';
import type { Emit } from '../view/monitor-events.js';
import {
  newStall,
  type Stall,
  type StallEffect,
  type StallEvent,
  stepStall,
  TRY_MS,
} from './stall.js';

/* The kernel of a flow without a way out sends nothing that could be seen: what it has waits for a
 * neighbour.  So it is spoken to every second, as few of these flows at a time as cost nothing.
 * Shortest of what has to be outlived: three retransmissions (tcp_retries2) take 3 s.
 */
const BEAT_MS = 1_000;
const BEAT_FLOWS = 256;

interface Entry {
  kernel: Tuple;
  stall: Stall;
  timer: unknown;
  /** Ends the flow when `hold` is over. */
  hold: unknown;
  /** Whether the attempt has a synchronization: another one may have been under way. */
  begun: boolean;
  /** Whether the monitor has been told. */
  told: boolean;
}

export interface StallsOptions {
  boundary: Pick<Boundary, 'flow' | 'command'>;
  agent: Pick<SyncAgent, 'underway' | 'acknowledge' | 'standIn' | 'kick' | 'cancel'>;
  clock: Clock;
  /** How long a flow may be without an answer. */
  holdMs: number;
  /** Synchronizes a flow from where it is; false: it is on its way elsewhere, or has no way. */
  again: (kernel: Tuple, flow: Flow) => boolean;
  /** Whether a flow is on its way to another address. */
  isDeparting: (kernel: Tuple) => boolean;
  /** How far its own kernel is; undefined: that is another machine's, and cannot be asked. */
  progress: (kernel: Tuple) => Progress | undefined;
  /** Ends a flow towards its program. */
  end: (kernel: Tuple, reason: string) => void;
  emit: Emit;
}

export class Stalls {
  #o: StallsOptions;
  #entries = new Map<string, Entry>();
  /** Flows without a way out, and since when; those that have waited longest come first. */
  #held = new Map<string, { kernel: Tuple; sinceMs: number }>();
  #beat: unknown;

  constructor(o: StallsOptions) {
    this.#o = o;
  }

  /** Whether a synchronization of this flow runs only because it stalls. */
  isTrying(kernel: Tuple): boolean {
    const entry = this.#entries.get(tupleKey(kernel));
    const runs = this.#o.agent.underway(kernel) !== undefined;
    return entry !== undefined && runs && this.#isTrying(entry);
  }

  /** To be called with EVENT_STALLED: its own TCP has sent again, or probed. */
  stalled(kernel: Tuple): void {
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined || flowIsOver(flow)) return;
    // It has been answered, or has moved, since the event was written.
    if ((flow.flags & FLOW_FLAG.STALLED) === 0) return;
    const unansweredMs = this.#unansweredMsOf(flow);
    const entry = this.#entry(kernel);
    if (entry.hold === undefined) this.#armHold(entry, unansweredMs);
    this.#step(entry, { event: 'probed', unansweredMs });
  }

  /** To be called when a flow has no way out; it ends with its release. */
  held(kernel: Tuple): void {
    const key = tupleKey(kernel);
    if (!this.#held.has(key)) this.#held.set(key, { kernel, sinceMs: this.#o.clock.now() });
    this.#armBeat();
  }

  /** To be called with EVENT_REVIVED: something has come in. */
  revived(kernel: Tuple): void {
    const entry = this.#entries.get(tupleKey(kernel));
    this.#wake(kernel, this.isTrying(kernel));
    if (entry === undefined) return;
    if (entry.told) this.#o.emit({ event: 'revived', kernel: tupleText(kernel) });
    this.#forget(entry);
  }

  /**
   * To be called with EVENT_RST, which is in quarantine.  Only one that its kernel would believe
   * is worth a synchronization (RFC 5961, section 3.2): anyone can send the others.
   */
  doubted(kernel: Tuple, bytes: Uint8Array): void {
    const flow = this.#o.boundary.flow(kernel);
    const packet = decodePacket(bytes, { truncated: true });
    if (flow === undefined || flowIsOver(flow) || 'error' in packet) return;
    if (packet.seq === flow.rcvNxt) this.#step(this.#entry(kernel), { event: 'doubted' });
  }

  /** To be called with each event of the agent. */
  synchronized(event: SyncEvent): void {
    const entry = this.#entries.get(tupleKey(event.kernel));
    if (entry === undefined) return;
    if (event.type === 'proven' || event.type === 'committed') this.#forget(entry);
    if (event.type !== 'failed' || !this.#isTrying(entry)) return;
    if (event.final) this.#end(entry, event.reason);
    else if (event.reason === 'refused') this.#step(entry, { event: 'refused' });
  }

  /** Forgets a flow that has ended. */
  ended(kernel: Tuple): void {
    const entry = this.#entries.get(tupleKey(kernel));
    if (entry !== undefined) this.#forget(entry);
    this.#held.delete(tupleKey(kernel));
  }

  close(): void {
    this.#o.clock.clearTimer(this.#beat);
    for (const entry of [...this.#entries.values()]) this.#forget(entry);
  }

  #entry(kernel: Tuple): Entry {
    const key = tupleKey(kernel);
    const known = this.#entries.get(key);
    if (known !== undefined) return known;
    const fresh: Entry = {
      ...{ kernel, stall: newStall(), timer: undefined, hold: undefined },
      ...{ begun: false, told: false },
    };
    this.#entries.set(key, fresh);
    return fresh;
  }

  #isTrying({ kernel, stall, begun }: Entry): boolean {
    return stall.state === 'trying' && begun && !this.#o.isDeparting(kernel);
  }

  #forget(entry: Entry): void {
    this.#o.clock.clearTimer(entry.timer);
    this.#o.clock.clearTimer(entry.hold);
    this.#entries.delete(tupleKey(entry.kernel));
  }

  #step(entry: Entry, event: StallEvent): void {
    const { next, effects } = stepStall(entry.stall, event);
    if (entry.stall.state === 'trying' && next.state === 'silent') {
      this.#giveWay(entry);
      // The kick has opened the window: its kernel would count from here on.
      this.#standIn(entry.kernel);
    }
    entry.stall = next;
    for (const effect of effects) this.#perform(entry, effect);
  }

  #perform(entry: Entry, e: StallEffect): void {
    switch (e.effect) {
      case 'stand-in':
        this.#standIn(entry.kernel);
        break;
      case 'try':
        this.#try(entry);
        break;
      case 'arm':
        this.#arm(entry, e.afterMs);
    }
  }

  #arm(entry: Entry, afterMs: number): void {
    this.#o.clock.clearTimer(entry.timer);
    entry.timer = this.#o.clock.setTimer(afterMs, () => this.#timeout(entry));
  }

  /* A kernel whose window is closed before its first timeout backs off all the same, but does not
   * count that as timeouts, and so cannot be kicked any more (test/kernel/stand-in.test.ts).  Nor is
   * it in danger yet.
   */
  #standIn(kernel: Tuple): void {
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined) return;
    const { unacked, retransmits } = this.#progressOf(kernel, flow);
    if (unacked === 0 || retransmits > 0) this.#o.agent.standIn(kernel, unacked > 0);
  }

  /* What a kernel has sent without a way out was never seen here, so it has to be asked.  But it may
   * not have heard of all that the peer has: then it is told first, or it would wait with a closed
   * window for an ACK that cannot come any more.
   */
  #progressOf(kernel: Tuple, flow: Flow): Progress {
    const { agent, progress } = this.#o;
    const known = progress(kernel);
    const isClosed = (flow.flags & FLOW_FLAG.CLOSED) !== 0;
    if (known === undefined) {
      const unacked = isClosed || flow.sndUna !== flow.sndNxt ? 1 : 0;
      // The first may have been a probe for the tail (RFC 8985, section 7), which is no timeout.
      return { unacked, retransmits: isClosed ? 1 : Math.max(0, flow.resent - 1) };
    }
    if (known.unacked === 0 || isClosed) return known;
    agent.acknowledge(kernel);
    return progress(kernel) ?? known;
  }

  #try(entry: Entry): void {
    const { kernel } = entry;
    const flow = this.#o.boundary.flow(kernel);
    entry.begun = flow !== undefined && this.#o.again(kernel, flow);
    if (!entry.begun) return;
    if (!entry.told) this.#o.emit({ event: 'stalled', kernel: tupleText(kernel) });
    entry.told = true;
  }

  #timeout(entry: Entry): void {
    const flow = this.#o.boundary.flow(entry.kernel);
    if (flow === undefined || flowIsOver(flow)) {
      this.#forget(entry);
      return;
    }
    const leftMs = this.#tryLeftMs(entry);
    if (leftMs > 0) {
      this.#arm(entry, leftMs);
      return;
    }
    // Only the quarantine of a reset is left, or nothing.
    const isStalled = (flow.flags & (FLOW_FLAG.STALLED | FLOW_FLAG.UNPROVEN)) !== 0;
    if (entry.stall.state === 'silent' && !isStalled) this.#forget(entry);
    else this.#step(entry, { event: 'timer' });
  }

  /* An attempt has its time from when its turn comes: that of a thousand flows takes a while. */
  #tryLeftMs(entry: Entry): number {
    const underway = this.#o.agent.underway(entry.kernel);
    if (underway === undefined || !this.#isTrying(entry)) return 0;
    if (underway.since === undefined) return TRY_MS;
    return underway.since + TRY_MS - this.#o.clock.now();
  }

  /* A mapping that waits for its proof is where the flow is now: its CONFIRM must go on. */
  #giveWay(entry: Entry): void {
    const { kernel } = entry;
    const underway = this.#o.agent.underway(kernel);
    if (!this.#isTrying(entry) || underway?.state !== 'syncing') return;
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined || (flow.flags & FLOW_FLAG.UNPROVEN) !== 0) return;
    // What its kernel has sent meanwhile was swallowed, and its next try may be far away.
    const swallowed = underway.since !== undefined && msOfNs(flow.seenOut) >= underway.since;
    if (swallowed) this.#o.agent.kick(kernel);
    else this.#o.agent.cancel(kernel);
  }

  /* The path works: an attempt is over, and what its kernel would send again at some time is sent now.
   * Not that of a flow which is on its way elsewhere, or which has no way out.
   */
  #wake(kernel: Tuple, trying: boolean): void {
    const { agent, boundary } = this.#o;
    const flow = boundary.flow(kernel);
    if (flow === undefined || (flow.flags & FLOW_FLAG.UNPROVEN) !== 0) return;
    const isBusy = agent.underway(kernel) !== undefined || (flow.flags & FLOW_FLAG.HELD) !== 0;
    if (isBusy && !trying) return;
    const unacked = this.#o.progress(kernel)?.unacked ?? 0;
    if (unacked > 0 || flow.sndUna !== flow.sndNxt) agent.kick(kernel);
    else agent.cancel(kernel);
  }

  #armBeat(): void {
    this.#beat ??= this.#o.clock.setTimer(BEAT_MS, () => {
      this.#beat = undefined;
      this.#standInForHeld();
      if (this.#held.size > 0) this.#armBeat();
    });
  }

  #standInForHeld(): void {
    const nowMs = this.#o.clock.now();
    for (const [key, held] of [...this.#held].slice(0, BEAT_FLOWS)) {
      const { kernel, sinceMs } = held;
      this.#held.delete(key);
      const flow = this.#o.boundary.flow(kernel);
      if (flow === undefined || flowIsOver(flow) || !(flow.flags & FLOW_FLAG.HELD)) continue;
      // It may have had a way, and an answer, since it was first held.
      const silentMs = nowMs - Math.max(sinceMs, msOfNs(flow.seenIn));
      if (silentMs >= this.#o.holdMs && !this.#o.isDeparting(kernel)) {
        attempt(() => this.#o.end(kernel, 'no-way'));
        continue;
      }
      this.#held.set(key, held);
      attempt(() => this.#standIn(kernel));
    }
  }

  #armHold(entry: Entry, unansweredMs: number): void {
    const leftMs = this.#o.holdMs - unansweredMs;
    entry.hold = this.#o.clock.setTimer(leftMs, () => this.#holdOver(entry));
  }

  #holdOver(entry: Entry): void {
    entry.hold = undefined;
    const flow = this.#o.boundary.flow(entry.kernel);
    if (flow === undefined || flowIsOver(flow)) {
      this.#forget(entry);
      return;
    }
    const unansweredMs = this.#unansweredMsOf(flow);
    if (unansweredMs >= this.#o.holdMs) this.#end(entry, 'peer-silent');
    // It has been answered meanwhile, and no event said so.
    else if (unansweredMs > 0) this.#armHold(entry, unansweredMs);
  }

  /** For how long its own TCP has been sending again without an answer. */
  #unansweredMsOf(flow: Flow): number {
    if (flow.resent === 0 || flow.resentSince <= flow.seenIn) return 0;
    return Math.max(0, this.#o.clock.now() - msOfNs(flow.resentSince));
  }

  #end(entry: Entry, reason: string): void {
    this.#forget(entry);
    this.#o.end(entry.kernel, reason);
  }
}
