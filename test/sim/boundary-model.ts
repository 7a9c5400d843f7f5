/*
 * The isolation boundary, written from docs and notes, not from the BPF code: what is sent and
 * received is translated, held, dropped or handed to the daemon.  Survives the daemon.
 *
 * All of it in one place and in the plainest way; speed does not matter here.
 */
import {
  FLOW_FLAG,
  type Flow,
  type Mapping,
  ROLE,
  WIRE_STATE,
  type Wire,
} from '../../src/boundary/abi.gen.js';
import type { Command, CommandResult, NewWire } from '../../src/boundary/boundary.js';
import type { SyncBoundary } from '../../src/sync/agent.js';
import { encodePacket, type Packet, segmentEnd } from '../../src/wire/packet.js';
import { seq, seqAdd, seqAfter, seqBefore, seqMax } from '../../src/wire/seq.js';
import { type Tuple, tupleEqual, tupleText } from '../../src/wire/tuple.js';

export interface ModelEvent {
  type: 'packet' | 'proven' | 'rst' | 'stalled' | 'revived';
  tuple: Tuple;
  packet: Uint8Array;
  at: bigint;
}

/** A bare reset after so much silence is doubtful. */
const SILENT_NS = 1_000_000_000n;
const PAUSE_NS = 100_000_000n;
/** Twice by a timer, a second apart or more, and nothing comes in. */
const STALL = { resent: 2, ns: 1_000_000_000n };

export class BoundaryModel implements SyncBoundary {
  readonly flows = new Map<string, { kernel: Tuple; flow: Flow }>();
  readonly wires = new Map<string, { wire: Tuple; entry: Wire }>();
  readonly drops = new Map<string, number>();
  /** What the daemon has not read yet; the ring buffer outlives it. */
  readonly events: ModelEvent[] = [];
  /** Called with each mapping before it is committed. */
  onMap: (c: Command & { verb: 'map' }, flow: Flow) => void = () => undefined;

  constructor(private readonly nowNs: () => bigint) {}

  /* -- what the daemon sees -- */

  flow(kernel: Tuple): Flow | undefined {
    const found = this.flows.get(tupleText(kernel))?.flow;
    return found && copyOf(found);
  }

  tupleOfHalf(half: number): Tuple | undefined {
    for (const { kernel, flow } of this.flows.values()) {
      const own = flow.role === ROLE.INITIATOR ? flow.initiator : flow.responder;
      if (own.tifidHalf === half) return kernel;
    }
    return undefined;
  }

  wire(t: Tuple): Wire | undefined {
    return this.wires.get(tupleText(t))?.entry;
  }

  setWire(t: Tuple, w: NewWire): void {
    this.#refuseActive(t);
    const { kernel } = w;
    const entry: Wire =
      w.state === 'syncing'
        ? { kernel, ack: seq(0), state: WIRE_STATE.SYNCING }
        : { kernel, ack: w.ack, state: WIRE_STATE.PENDING };
    this.wires.set(tupleText(t), { wire: t, entry });
  }

  deleteWire(t: Tuple): void {
    this.#refuseActive(t);
    this.wires.delete(tupleText(t));
  }

  command(c: Command): CommandResult {
    const flow = this.flows.get(tupleText(c.kernel))?.flow;
    if (flow === undefined) return { result: 'no-flow' };
    const before = copyOf(flow);
    switch (c.verb) {
      case 'hold':
        flow.flags |= FLOW_FLAG.HELD;
        break;
      case 'release':
        flow.flags &= ~FLOW_FLAG.HELD;
        break;
      case 'close':
        flow.flags |= FLOW_FLAG.CLOSED;
        break;
      case 'forget':
        this.flows.delete(tupleText(c.kernel));
        break;
      case 'map': {
        const ahead = (c.epoch - flow.epoch) & 0xffff;
        if (ahead === 0 || ahead >= 0x8000) return { result: 'stale-epoch', flow: before };
        this.onMap(c, before);
        this.#map(c, flow);
      }
    }
    return { result: 'ok', flow: before };
  }

  /** Forgets former wires of flows that have been on another one for so long, and proven. */
  sweepWires(olderThanNs: bigint): void {
    for (const { wire, entry } of [...this.wires.values()]) {
      if (entry.state !== WIRE_STATE.ACTIVE) continue;
      const flow = this.flows.get(tupleText(entry.kernel))?.flow;
      const mapping = flow && mappingOf(flow);
      const isCurrent = mapping !== undefined && tupleEqual(mapping.wire, wire);
      const isInDoubt = flow !== undefined && (flow.flags & FLOW_FLAG.UNPROVEN) !== 0;
      const isRecent = flow !== undefined && this.nowNs() - flow.movedAt < olderThanNs;
      if (!isCurrent && !isInDoubt && !isRecent) this.wires.delete(tupleText(wire));
    }
  }

  /* -- what packets meet -- */

  /** From the kernel to the wire; undefined: dropped. */
  egress(p: Packet): Packet | undefined {
    const flow = this.flows.get(tupleText(outgoing(p)))?.flow;
    if (flow === undefined) return p;
    const paused = this.nowNs() - flow.seenOut > PAUSE_NS;
    if (p.payload.length > 0 && paused && flow.sndUna === flow.sndNxt)
      flow.resumedAt = this.nowNs();
    this.#trackResent(p, flow);
    flow.seenOut = this.nowNs();
    takeBack(flow, p);
    flow.flags &= ~FLOW_FLAG.RESET;
    if (seqAfter(segmentEnd(p), flow.sndNxt)) flow.sndNxt = segmentEnd(p);
    if (seqAfter(p.ack, flow.rcvNxt)) flow.rcvNxt = p.ack;
    if (flow.active !== 0) flow.rcvBefore = seqMax(flow.rcvBefore, p.ack);
    if (flow.flags & FLOW_FLAG.FIN_SEEN && !seqBefore(p.ack, flow.rcvFin)) {
      if (p.ack === flow.rcvFin) flow.flags |= FLOW_FLAG.FIN_RECEIVED;
      flow.flags &= ~FLOW_FLAG.FIN_SEEN;
    }
    flow.windowOut = p.window;
    if (p.flags.includes('F')) flow.flags |= FLOW_FLAG.FIN_SENT;
    if ((flow.flags & FLOW_FLAG.HELD) !== 0) return this.#drop('held');
    const m = mappingOf(flow);
    if (m === undefined) return p;
    if (seqBefore(p.seq, m.sndBase)) return this.#drop('below-base');
    const isUnproven = (flow.flags & FLOW_FLAG.UNPROVEN) !== 0;
    if (isUnproven && seqAfter(segmentEnd(p), seqAdd(m.sndBase, 65535))) {
      return this.#drop('above-window');
    }
    const ack = seqAfter(p.ack, flow.rcvMax) ? flow.rcvMax : p.ack;
    return {
      ...p,
      source: m.wire.local,
      sourcePort: m.wire.localPort,
      destination: m.wire.remote,
      destinationPort: m.wire.remotePort,
      seq: seqAdd(p.seq, m.sndDelta),
      ack: seqAdd(ack, m.rcvDelta),
    };
  }

  /** From the wire to the kernel; undefined: dropped, or for the daemon. */
  ingress(p: Packet): Packet | undefined {
    const wire = incoming(p);
    const entry = this.wire(wire);
    const isSynchronization = p.options.some((o) => o.kind.startsWith('ti-'));
    if (isSynchronization || entry?.state === WIRE_STATE.SYNCING) return this.#forDaemon(wire, p);
    if (entry?.state === WIRE_STATE.PENDING && p.ack === entry.ack) return this.#drop('pending');
    if (entry !== undefined && entry.state !== WIRE_STATE.PENDING)
      return this.#mappedIn(p, wire, entry.kernel);
    const flow = this.flows.get(tupleText(wire))?.flow;
    if (flow === undefined) return p;
    if (flow.active !== 0) return this.#drop('old-path');
    if (p.flags.includes('R')) return this.#reset(p, wire, flow);
    this.#track(p, wire, flow);
    return p;
  }

  #mappedIn(p: Packet, wire: Tuple, kernel: Tuple): Packet | undefined {
    const flow = this.flows.get(tupleText(kernel))?.flow;
    const m = flow && mappingOf(flow);
    if (flow === undefined || m === undefined || p.flags.includes('S')) {
      return this.#drop('tuple-in-use');
    }
    if (!tupleEqual(m.wire, wire)) return this.#drop('old-path');
    const inside: Packet = {
      ...p,
      source: kernel.remote,
      sourcePort: kernel.remotePort,
      destination: kernel.local,
      destinationPort: kernel.localPort,
      seq: seq(p.seq - m.rcvDelta),
      ack: seq(p.ack - m.sndDelta),
    };
    if (p.flags.includes('R')) return this.#reset(inside, kernel, flow);
    if (seqAfter(inside.ack, flow.sndNxt)) return this.#drop('above-sent');
    this.#track(inside, kernel, flow);
    return inside;
  }

  #track(p: Packet, kernel: Tuple, flow: Flow): void {
    if (!p.flags.includes('A') || !isExpected(flow, p)) return;
    // What acknowledges less than is known was sent before what has come: it says nothing of now.
    const isNews = !seqBefore(p.ack, flow.sndUna);
    const revives = isNews && this.#isToRevive(flow);
    if (isNews) flow.seenIn = this.nowNs();
    flow.rcvMax = seqMax(flow.rcvMax, segmentEnd(p));
    if (!seqBefore(segmentEnd(p), flow.rcvNxt)) take(flow, p);
    if (flow.gapSince !== 0n) {
      flow.gapSince = 0n;
      flow.flags &= ~FLOW_FLAG.UNPROVEN;
      this.#tell('proven', kernel);
    }
    if (!revives) return;
    flow.flags &= ~FLOW_FLAG.STALLED;
    this.#tell('revived', kernel);
  }

  /** Stalled, or sent again after a silence: the next time may be far away. */
  #isToRevive(flow: Flow): boolean {
    if ((flow.flags & FLOW_FLAG.STALLED) !== 0) return true;
    const isUnanswered = flow.resent > 0 && flow.resentSince > flow.seenIn;
    const isLongAgo = (at: bigint) => this.nowNs() - at >= STALL.ns;
    const isSilent = isLongAgo(flow.resumedAt) && isLongAgo(flow.seenIn);
    return flow.sndUna !== flow.sndNxt && isUnanswered && isSilent;
  }

  /** What begins below SND.NXT after a pause was sent by a timer; what is held is never answered. */
  #trackResent(p: Packet, flow: Flow): void {
    const now = this.nowNs();
    if (!seqBefore(p.seq, flow.sndNxt) || now - flow.seenOut <= PAUSE_NS) return;
    if (flow.resent === 0 || flow.resentSince <= flow.seenIn) {
      flow.resentSince = now;
      flow.resent = 0;
    }
    flow.resent += 1;
    const isHeld = (flow.flags & FLOW_FLAG.HELD) !== 0;
    if (!isHeld && flow.resent < STALL.resent) return;
    if (now - (isHeld ? flow.seenIn : flow.resentSince) < STALL.ns) return;
    flow.flags |= FLOW_FLAG.STALLED;
    this.#tell('stalled', outgoing(p));
  }

  /** In kernel view. */
  #reset(p: Packet, kernel: Tuple, flow: Flow): Packet | undefined {
    const last = seqMax(flow.rcvNxt, flow.rcvMax);
    if (seqBefore(p.seq, flow.rcvNxt) || seqAfter(p.seq, last)) return p;
    const inDoubt = (flow.flags & (FLOW_FLAG.HELD | FLOW_FLAG.UNPROVEN)) !== 0;
    const isLongAgo = (at: bigint) => this.nowNs() - at > SILENT_NS;
    const unanswered = flow.sndUna !== flow.sndNxt;
    const silent = unanswered && isLongAgo(flow.resumedAt) && isLongAgo(flow.seenIn);
    if (!inDoubt && !silent) {
      flow.flags |= FLOW_FLAG.RESET;
      return p;
    }
    this.#tell('rst', kernel, encodePacket(p));
    return this.#drop('rst-quarantine');
  }

  #forDaemon(wire: Tuple, p: Packet): undefined {
    this.#tell('packet', wire, encodePacket(p));
    return undefined;
  }

  #tell(type: ModelEvent['type'], tuple: Tuple, packet: Uint8Array = new Uint8Array(0)): void {
    this.events.push({ type, tuple, packet, at: this.nowNs() });
  }

  #drop(why: string): undefined {
    this.drops.set(why, (this.drops.get(why) ?? 0) + 1);
    return undefined;
  }

  #map(c: Command & { verb: 'map' }, flow: Flow): void {
    const active = flow.active === 1 ? 2 : 1;
    flow.rcvBefore = flow.active === 0 ? flow.rcvMax : seqMax(flow.rcvBefore, flow.rcvMax);
    // Former wires stay known, so that what still comes on them is dropped: our kernel would
    // answer with a reset, which the other end, if it has not committed yet, takes for ours.
    flow.mapping[active - 1] = structuredClone(c.mapping);
    flow.active = active;
    flow.epoch = c.epoch;
    flow.moves += 1;
    flow.movedAt = this.nowNs();
    flow.resent = 0;
    flow.gapSince = flow.seenIn;
    flow.rcvMax = c.mapping.rcvBase;
    // The ACK that the agent injects does not come by here.
    flow.sndUna = seqMax(flow.sndUna, c.mapping.sndBase);
    if (flow.sndUna === c.mapping.sndBase) flow.flags &= ~FLOW_FLAG.CLOSED;
    flow.flags &= ~FLOW_FLAG.STALLED;
    flow.flags = (flow.flags & ~FLOW_FLAG.UNPROVEN) | (c.unproven ? FLOW_FLAG.UNPROVEN : 0);
    flow.flags = (flow.flags & ~FLOW_FLAG.HELD) | (c.held ? FLOW_FLAG.HELD : 0);
    const entry = { kernel: c.kernel, ack: seq(0), state: WIRE_STATE.ACTIVE };
    this.wires.set(tupleText(c.mapping.wire), { wire: c.mapping.wire, entry });
  }

  #refuseActive(t: Tuple): void {
    if (this.wire(t)?.state === WIRE_STATE.ACTIVE) throw new Error('the wire carries a flow');
  }
}

/** What changes in a flow are its own fields; each mapping is written whole. */
const copyOf = (flow: Flow): Flow => ({ ...flow, mapping: [...flow.mapping] });

/** Sent again although it was acknowledged: its kernel has not taken that ACK. */
function takeBack(flow: Flow, p: Packet): void {
  const isProbe = p.payload.length <= 1 && seqAdd(p.seq, 1) === flow.sndUna;
  const hasContent = p.payload.length > 0 || p.flags.includes('F');
  if (!hasContent || isProbe || !seqBefore(p.seq, flow.sndUna)) return;
  const base = mappingOf(flow)?.sndBase;
  const isBelowBase = base !== undefined && seqBefore(p.seq, base) && !seqAfter(base, flow.sndUna);
  flow.sndUna = isBelowBase ? base : p.seq;
}

/** As a kernel would: SEQ in the window, or on a wire from its base on; ACK not too old. */
function isExpected(flow: Flow, p: Packet): boolean {
  const windowOut = Math.max(65_535, flow.windowOut << flow.wscaleOut);
  const windowIn = Math.max(65_535, flow.windowInMax << flow.wscaleIn);
  const base = seqBefore(flow.rcvMax, flow.rcvNxt) ? mappingOf(flow)?.rcvBase : undefined;
  const low = seqAdd(flow.rcvNxt, -windowOut);
  return (
    !seqBefore(p.seq, base !== undefined && seqBefore(base, low) ? base : low) &&
    !seqAfter(p.seq, seqAdd(flow.rcvNxt, windowOut)) &&
    !seqBefore(p.ack, seqAdd(flow.sndUna, -windowIn)) &&
    !seqAfter(p.ack, flow.sndNxt)
  );
}

function take(flow: Flow, p: Packet): void {
  if (!seqBefore(p.ack, flow.sndUna)) {
    flow.windowIn = p.window;
    flow.windowInMax = Math.max(flow.windowInMax, p.window);
  }
  if (seqAfter(p.ack, flow.sndUna)) {
    flow.sndUna = p.ack;
    flow.flags &= ~FLOW_FLAG.CLOSED;
  }
  if (!p.flags.includes('F') || flow.flags & FLOW_FLAG.FIN_RECEIVED) return;
  flow.rcvFin = segmentEnd(p);
  flow.flags |= FLOW_FLAG.FIN_SEEN;
}

export const mappingOf = (flow: Flow): Mapping | undefined =>
  flow.active === 0 ? undefined : flow.mapping[flow.active - 1];

export const outgoing = (p: Packet): Tuple => ({
  local: p.source,
  localPort: p.sourcePort,
  remote: p.destination,
  remotePort: p.destinationPort,
});

export const incoming = (p: Packet): Tuple => ({
  local: p.destination,
  localPort: p.destinationPort,
  remote: p.source,
  remotePort: p.sourcePort,
});
