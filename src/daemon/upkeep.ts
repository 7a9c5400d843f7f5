/* What keeps the tables small and the stock full, in the daemon's own time: the stock of random
 * halves, flows that have ended or gone idle, resets in quarantine.  None of it is needed for a
 * packet to pass; without a daemon the tables fill and new connections become legacy.
 */

import { FLOW_FLAG, type Flow, WIRE_STATE } from '../boundary/abi.gen.js';
import type { Boundary, BoundaryEvent, Wire } from '../boundary/boundary.js';
import { after, every } from '../libc/guard.js';
import type { SocketRecord } from '../link/inet-diag.js';
import { wireOf } from '../sync/handshake.js';
import { type Tuple, tupleEqual, tupleKey } from '../wire/tuple.js';
import { monotonicMs, msOfNs } from './clock.js';
import { flowIsOver, isForwarded } from './flow-views.js';

/* Linux keeps TIME-WAIT for 60 s (TCP_TIMEWAIT_LEN): as long a last FIN may be sent again. */
const LINGER_MS = 60_000;
const SWEEP_MS = 60_000;

/* A flow whose socket is gone and that has been silent for so long ended without our seeing it. */
const SOCKETLESS_MS = 120_000;

/* Half the stock at 32,000 new connections a second. */
const STOCK_MS = 250;

/* A peer sends one reset for a packet; who sends more than this has other aims. */
const QUARANTINE_MAX = 1024;

/* A wire of which nobody knows yet whether it is the peer's. */
const IN_DOUBT = FLOW_FLAG.HELD | FLOW_FLAG.UNPROVEN;

interface Quarantined {
  timer: NodeJS.Timeout;
  packet: Uint8Array;
}

export interface UpkeepOptions {
  boundary: Boundary;
  idleMs: number;
  quarantineMs: number;
  sockets: () => SocketRecord[];
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
  #ending: { kernel: Tuple; dueMs: number }[] = [];
  #quarantined = new Map<string, Quarantined>();
  #beats: NodeJS.Timeout[];

  constructor(o: UpkeepOptions) {
    this.#o = o;
    o.boundary.stockHalves();
    this.#beats = [every(STOCK_MS, () => this.#beat()), every(SWEEP_MS, () => this.sweep())];
  }

  /** Forgets, after a while, what has ended; at once what nobody uses any more. */
  sweep(): void {
    const nowMs = monotonicMs();
    const inUse = new Set(this.#o.sockets().map(({ tuple }) => tupleKey(tuple)));
    for (const [kernel, flow] of this.#o.boundary.flows()) {
      const idleMs = nowMs - Math.max(msOfNs(flow.seenIn), msOfNs(flow.seenOut));
      const ours = kernel.tap === undefined && !isForwarded(flow);
      const socketless = ours && idleMs > SOCKETLESS_MS && !inUse.has(tupleKey(kernel));
      const over = flowIsOver(flow) && idleMs > LINGER_MS;
      if (over || socketless || idleMs > this.#o.idleMs) this.#forget(kernel);
    }
    for (const [tuple, wire] of this.#o.boundary.wires()) {
      if (wire.state === WIRE_STATE.ACTIVE && this.#isFormer(tuple, wire, nowMs)) {
        this.#o.boundary.forgetWire(tuple);
      }
    }
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
    this.#ending.push({ kernel, dueMs: monotonicMs() + LINGER_MS });
  }

  /** To be called with EVENT_RST: a reset that may come from a stranger at an old address. */
  quarantine(event: BoundaryEvent): void {
    const key = tupleKey(event.tuple);
    if (this.#quarantined.has(key) || this.#quarantined.size >= QUARANTINE_MAX) return;
    const timer = after(this.#o.quarantineMs, () => this.#endQuarantine(event));
    this.#quarantined.set(key, { timer, packet: event.packet });
  }

  /** The reset in quarantine is the peer's own: delivers it; false: there is none. */
  believe(kernel: Tuple): boolean {
    const quarantined = this.#quarantined.get(tupleKey(kernel));
    if (quarantined === undefined) return false;
    clearTimeout(quarantined.timer);
    this.#quarantined.delete(tupleKey(kernel));
    this.#deliver(kernel, quarantined.packet);
    return true;
  }

  close(): void {
    for (const beat of this.#beats) clearInterval(beat);
    for (const { timer } of this.#quarantined.values()) clearTimeout(timer);
  }

  #beat(): void {
    this.#o.readEvents();
    this.#o.boundary.stockHalves();
    const nowMs = monotonicMs();
    let first = this.#ending[0];
    while (first !== undefined && first.dueMs <= nowMs) {
      this.#ending.shift();
      const flow = this.#o.boundary.flow(first.kernel);
      if (flow !== undefined && flowIsOver(flow)) this.#forget(first.kernel);
      first = this.#ending[0];
    }
  }

  /* The path has spoken since, or has moved: the reset was not from the peer. */
  #endQuarantine(event: BoundaryEvent): void {
    const kernel = event.tuple;
    this.#quarantined.delete(tupleKey(kernel));
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined || flowIsOver(flow) || !isSilentSince(flow, event.at)) return;
    if (flow.flags & IN_DOUBT || this.#o.isMoving(kernel)) return;
    this.#deliver(kernel, event.packet);
  }

  #deliver(kernel: Tuple, packet: Uint8Array): void {
    this.#o.deliver(kernel, packet);
    this.#forget(kernel);
  }

  #forget(kernel: Tuple): void {
    this.#o.boundary.command({ verb: 'forget', kernel });
    this.#o.forgotten(kernel);
  }
}

/* seenIn is coarse: it lags by up to one tick (4 ms at 250 Hz), which errs towards delivery. */
const isSilentSince = (flow: Flow, at: bigint): boolean => flow.seenIn <= at && flow.movedAt <= at;
