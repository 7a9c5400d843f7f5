/* What keeps the tables small and the stock full, in the daemon's own time: the stock of random
 * halves, flows that have ended or gone idle, resets in quarantine.  None of it is needed for a
 * packet to pass; without a daemon the tables fill and new connections become legacy.
 *
 * Of our own connections the kernel knows whether they live, and is asked: nothing is forgotten that
 * it still has.  Of those of hosts behind us, and of guests, only their packets tell.
 */

import { FLOW_FLAG, type Flow, WIRE_STATE } from '../../boundary/abi.gen.js';
import type { Boundary, BoundaryEvent, Wire } from '../../boundary/boundary.js';
import { attempt } from '../../libc/guard.js';
import { msOfNs } from '../../libc/monotonic.js';
import type { SocketRecord } from '../../link/inet-diag.js';
import type { Clock } from '../../sync/clock.js';
import { wireOf } from '../../sync/handshake.js';
import { type Tuple, tupleEqual, tupleKey } from '../../wire/tuple.js';
import { flowIsEmbryonic, flowIsOver, isForwarded } from '../view/flow-views.js';

/* Linux keeps TIME-WAIT for 60 s (TCP_TIMEWAIT_LEN): as long a last FIN may be sent again, and has to
 * be translated if the flow has moved.
 */
const LINGER_MS = 60_000;

/* Whoever has refused a reset has said so by now: a challenge ACK goes out at once, or, if there
 * were others, 500 ms after those (tcp_invalid_ratelimit).
 */
const OBJECTION_MS = 5_000;
const SWEEP_MS = 60_000;

/* The data plane's times are coarse: they lag by so much at 100 Hz. */
const TICK_MS = 10;

/* A flow whose socket is gone and that has been silent for so long ended without our seeing it; and
 * the SYN/ACK of an embryonic one is not sent any more: Linux gives up after 63 s (tcp_synack_retries).
 */
const SOCKETLESS_MS = 120_000;

/* Half the stock at 32,000 new connections a second. */
const STOCK_MS = 250;

/* A peer sends one reset for a packet; who sends more than this has other aims. */
const QUARANTINE_MAX = 1024;

/* A wire of which nobody knows yet whether it is the peer's. */
const IN_DOUBT = FLOW_FLAG.HELD | FLOW_FLAG.UNPROVEN;

interface Quarantined {
  timer: unknown;
  /** The first reset of this silence; the last one's packet. */
  event: BoundaryEvent;
}

/** What is looked at again when it is due, and since when it is thought to have ended. */
interface Ended {
  kernel: Tuple;
  since: bigint;
  dueMs: number;
}

export interface UpkeepOptions {
  boundary: Pick<Boundary, 'flow' | 'flows' | 'wires' | 'forgetWire' | 'command' | 'stockHalves'>;
  clock: Clock;
  idleMs: number;
  quarantineMs: number;
  sockets: () => SocketRecord[];
  /** Whether our kernel has a socket for it, by whatever name. */
  hasSocket: (kernel: Tuple) => boolean;
  isMoving: (kernel: Tuple) => boolean;
  /** Delivers a packet to the own kernel. */
  deliver: (kernel: Tuple, packet: Uint8Array) => void;
  /** Events that came without a wake-up. */
  readEvents: () => void;
  /** A flow was removed from the tables. */
  forgotten: (kernel: Tuple) => void;
}

export class Upkeep {
  #o: UpkeepOptions;
  /* Each in the order of `dueMs`: a map gives up its first entry without moving the others. */
  #lingering = new Map<string, Ended>();
  #objectable = new Map<string, Ended>();
  #quarantined = new Map<string, Quarantined>();
  #beats: unknown[] = [];

  constructor(o: UpkeepOptions) {
    this.#o = o;
    o.boundary.stockHalves();
    this.#every(STOCK_MS, 0, () => this.#beat());
    this.#every(SWEEP_MS, 1, () => this.sweep());
  }

  /** Forgets what nobody uses any more, whether its end was seen or not. */
  sweep(): void {
    const inUse = new Set(this.#o.sockets().map(({ tuple }) => tupleKey(tuple)));
    const nowMs = this.#o.clock.now();
    for (const [kernel, flow] of this.#o.boundary.flows()) {
      if (isOurs(kernel, flow) && inUse.has(tupleKey(kernel))) continue;
      const idleMs = nowMs - Math.max(msOfNs(flow.seenIn), msOfNs(flow.seenOut));
      if (idleMs <= this.#graceMs(kernel, flow)) continue;
      // Behind this machine's own NAT a socket has another name.
      if (!isOurs(kernel, flow) || !this.#o.hasSocket(kernel)) this.#forget(kernel);
    }
    for (const [tuple, wire] of this.#o.boundary.wires()) {
      if (wire.state === WIRE_STATE.ACTIVE && this.#isFormer(tuple, wire, nowMs)) {
        this.#o.boundary.forgetWire(tuple);
      }
    }
  }

  /* For how long a flow that no socket of ours is known to use may be silent. */
  #graceMs(kernel: Tuple, flow: Flow): number {
    if (flowIsOver(flow)) return LINGER_MS;
    if (flowIsEmbryonic(flow) || isOurs(kernel, flow)) return SOCKETLESS_MS;
    return this.#o.idleMs;
  }

  /* The data plane drops what is late on a former wire; after a while nothing is. */
  #isFormer(tuple: Tuple, wire: Wire, nowMs: number): boolean {
    const flow = this.#o.boundary.flow(wire.kernel);
    if (flow === undefined) return true;
    if (tupleEqual(wireOf(wire.kernel, flow), tuple)) return false;
    const unproven = (flow.flags & FLOW_FLAG.UNPROVEN) !== 0;
    return !unproven && nowMs - msOfNs(flow.movedAt) > LINGER_MS;
  }

  /** To be called with EVENT_ENDED. */
  ended(kernel: Tuple): void {
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined) this.#o.forgotten(kernel);
    else if (flow.flags & FLOW_FLAG.RESET) this.#later(this.#objectable, kernel, OBJECTION_MS);
    else if (flowIsOver(flow)) this.#later(this.#lingering, kernel, LINGER_MS);
  }

  /**
   * To be called with EVENT_RST: a reset that may come from a stranger at an old address.  The last
   * one of a silence counts, so that nobody takes the place of the peer's own; its time begins with
   * the first.
   */
  quarantine(event: BoundaryEvent): void {
    const key = tupleKey(event.tuple);
    const known = this.#quarantined.get(key);
    const flow = this.#o.boundary.flow(event.tuple);
    if (known !== undefined && flow !== undefined && isSilentSince(flow, known.event.at)) {
      known.event = { ...known.event, packet: event.packet };
      return;
    }
    this.#o.clock.clearTimer(known?.timer);
    this.#quarantined.delete(key);
    if (this.#quarantined.size >= QUARANTINE_MAX) return;
    const timer = this.#o.clock.setTimer(this.#o.quarantineMs, () => this.#endQuarantine(key));
    this.#quarantined.set(key, { timer, event });
  }

  /** The reset in quarantine is the peer's own: delivers it; false: there is none. */
  believe(kernel: Tuple): boolean {
    const quarantined = this.#quarantined.get(tupleKey(kernel));
    if (quarantined === undefined) return false;
    this.#o.clock.clearTimer(quarantined.timer);
    this.#quarantined.delete(tupleKey(kernel));
    this.#deliver(kernel, quarantined.event.packet);
    return true;
  }

  close(): void {
    const { clock } = this.#o;
    for (const beat of this.#beats) clock.clearTimer(beat);
    for (const { timer } of this.#quarantined.values()) clock.clearTimer(timer);
  }

  #every(ms: number, beat: number, f: () => void): void {
    this.#beats[beat] = this.#o.clock.setTimer(ms, () => {
      this.#every(ms, beat, f);
      f();
    });
  }

  #beat(): void {
    this.#o.readEvents();
    this.#o.boundary.stockHalves();
    for (const waiting of [this.#lingering, this.#objectable]) this.#settleDue(waiting);
  }

  #settleDue(waiting: Map<string, Ended>): void {
    const nowMs = this.#o.clock.now();
    for (const [key, ended] of waiting) {
      if (ended.dueMs > nowMs) return;
      waiting.delete(key);
      attempt(() => this.#settle(ended));
    }
  }

  #later(waiting: Map<string, Ended>, kernel: Tuple, ms: number): void {
    const nowMs = this.#o.clock.now();
    const since = BigInt(Math.round((nowMs - TICK_MS) * 1e6));
    waiting.delete(tupleKey(kernel));
    waiting.set(tupleKey(kernel), { kernel, since, dueMs: nowMs + ms });
  }

  #settle({ kernel, since }: Ended): void {
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined) return;
    const lives = isOurs(kernel, flow)
      ? this.#o.hasSocket(kernel)
      : !flowIsOver(flow) && flow.seenOut > since;
    if (!lives) this.#forget(kernel);
    else if (flow.flags & FLOW_FLAG.RESET) this.#o.boundary.command({ verb: 'go-on', kernel });
  }

  /* The path has spoken since, or has moved: the reset was not from the peer. */
  #endQuarantine(key: string): void {
    const event = this.#quarantined.get(key)?.event;
    this.#quarantined.delete(key);
    if (event === undefined) return;
    const kernel = event.tuple;
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined || flowIsOver(flow) || !isSilentSince(flow, event.at)) return;
    if (flow.flags & IN_DOUBT || this.#o.isMoving(kernel)) return;
    this.#deliver(kernel, event.packet);
  }

  /* Whether it is believed is for the kernel to say (RFC 5961, section 3.2). */
  #deliver(kernel: Tuple, packet: Uint8Array): void {
    this.#o.deliver(kernel, packet);
    this.#later(this.#objectable, kernel, OBJECTION_MS);
  }

  #forget(kernel: Tuple): void {
    this.#o.boundary.command({ verb: 'forget', kernel });
    this.#o.forgotten(kernel);
  }
}

const isOurs = (kernel: Tuple, flow: Flow): boolean =>
  kernel.tap === undefined && !isForwarded(flow);

/* seenIn is coarse: it lags by up to one tick (4 ms at 250 Hz), which errs towards delivery. */
const isSilentSince = (flow: Flow, at: bigint): boolean => flow.seenIn <= at && flow.movedAt <= at;
