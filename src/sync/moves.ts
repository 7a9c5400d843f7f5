/*
 * Drives the mover of each flow that moves from here: draws what an attempt needs, keeps its
 * timer, and finds it by its wire.
 */
import { FLOW_FLAG, type Flow } from '../boundary/abi.gen.js';
import type { Address } from '../wire/address.js';
import type { Packet } from '../wire/packet.js';
import { seq } from '../wire/seq.js';
import { type Tuple, tupleKey } from '../wire/tuple.js';
import { judgeAnswer } from './attempt.js';
import type { Occupancy } from './claims.js';
import type { Clock } from './clock.js';
import { activeMapping, wireOf } from './handshake.js';
import type { KeyRing } from './key-ring.js';
import { silentMs } from './kick.js';
import {
  abandon,
  duesOf,
  type Mover,
  type MoverEvent,
  newestEpoch,
  newMover,
  stepMover,
} from './mover.js';
import type { Performer, SyncBoundary } from './performer.js';
import { StartQueue } from './start-queue.js';
import { drawWire, type PortRange, word } from './wire-port.js';

export interface MoveOptions {
  /** Of the path from the new address: bytes of an IP packet. */
  mtu: number;
  redirect: boolean;
  /** Index of the interface that has the new address; undefined: the kernel decides. */
  way?: number;
  /** The path that the flow is on works: it goes on until the new one is there. */
  gentle?: boolean;
  /** An epoch that another machine may have used for this flow: the attempts begin above it. */
  newest?: number;
}

export interface MovesOptions {
  boundary: SyncBoundary;
  performer: Performer;
  clock: Clock;
  random: (n: number) => Uint8Array;
  keys: KeyRing;
  occupancy: Pick<Occupancy, 'isUsed'>;
  sourcePorts: PortRange;
  /** How many may wait for their first answer at a time. */
  places: number | undefined;
  /** Epochs of the candidates that the other end of a flow has open with us. */
  pendingEpochs: (kernel: Tuple) => number[];
}

/* How far an attempt may be above what is committed, for the next to begin above it.  One end is ahead of
 * the other by a few; but who tries for days must not come to where an epoch counts as old.
 */
const AHEAD_MAX = 64;

/** Of flows that have ended nothing is heard here. */
const TRIED_MAX = 4096;

interface Session {
  /** tupleKey(kernel): what it is found by. */
  key: string;
  kernel: Tuple;
  source: Address;
  o: MoveOptions;
  mover: Mover;
  /** When its turn came. */
  since: number | undefined;
  timer: unknown;
}

/** A synchronization that runs. */
export interface Underway {
  /** Where to: the address that its flow is to leave from. */
  source: Address;
  state: 'syncing' | 'confirming';
  /** When it began, by the agent's clock; undefined: it waits for its turn. */
  since: number | undefined;
  /** While the path works that the flow is on. */
  gentle?: boolean;
}

export class Moves {
  readonly #o: MovesOptions;
  readonly #sessions = new Map<string, Session>();
  readonly #sessionOfWire = new Map<string, Session>();
  readonly #queue: StartQueue;
  /** The newest epoch of flows whose synchronization was given up: the peer may have used it. */
  readonly #tried = new Map<string, number>();

  constructor(o: MovesOptions) {
    this.#o = o;
    this.#queue = new StartQueue(o.clock, (flow) => this.#start(flow), o.places);
  }

  get size(): number {
    return this.#sessions.size;
  }

  stateOf(kernel: Tuple): Mover['state'] | undefined {
    return this.#session(kernel)?.mover.state;
  }

  /** undefined: none runs for this flow. */
  underway(kernel: Tuple): Underway | undefined {
    const session = this.#session(kernel);
    if (session === undefined) return undefined;
    const { source, since, mover, o } = session;
    const state = mover.state === 'confirming' ? 'confirming' : 'syncing';
    return { source, since, state, ...(o.gentle && { gentle: true }) };
  }

  /** Replaces a synchronization of this flow from another address. */
  move(kernel: Tuple, source: Address, o: MoveOptions): void {
    const former = this.#session(kernel);
    if (former?.source === source) {
      // The same address by another way: its next attempt goes by that.
      if (former.o.gentle && !o.gentle) this.#hold(kernel);
      former.o = o;
      return;
    }
    if (former !== undefined) this.#end(former);
    if (former !== undefined && o.gentle) this.#o.boundary.command({ verb: 'release', kernel });
    const key = tupleKey(kernel);
    const mover = newMover(this.#tried.get(key) ?? o.newest);
    this.#sessions.set(key, { key, kernel, source, o, mover, since: undefined, timer: undefined });
    this.#queue.add(key);
  }

  /** Runs `body`, which begins and ends synchronizations: none starts before it is through. */
  together(body: () => void): void {
    this.#queue.together(body);
  }

  /** Ends the synchronization of a flow, if there is one.  Egress stays as it is. */
  end(kernel: Tuple): void {
    const session = this.#session(kernel);
    if (session !== undefined) this.#end(session);
  }

  /** Ends it, and lets the flow go on as its mapping says. */
  cancel(kernel: Tuple): void {
    const session = this.#session(kernel);
    if (session === undefined) return;
    const dues = duesOf(session.mover);
    this.#end(session);
    this.#o.performer.perform(kernel, dues);
  }

  /** A packet on a wire of ours that is being set up, or just was; false: not one. */
  packet(wire: Tuple, packet: Packet): boolean {
    const session = this.#sessionOfWire.get(tupleKey(wire));
    if (session === undefined) return false;
    const flow = this.#flowFor(session, packet);
    if (flow === undefined) {
      this.#end(session);
      return true;
    }
    this.#advance(session, {
      ...{ event: 'packet', packet, flow },
      silentMs: silentMs(flow, this.#o.clock.now()),
      waiting: this.#queue.others(session.key),
    });
    return true;
  }

  /** Tells the mover of a flow, if there is one, what has happened on the other side of us. */
  tell(kernel: Tuple, event: 'proven' | 'yield' | 'superseded'): void {
    const session = this.#session(kernel);
    if (session === undefined || (event === 'proven' && !this.#isProven(session))) return;
    this.#advance(session, { event });
  }

  /**
   * A reset in kernel view, on a flow whose wire is in doubt.  If it answers the CONFIRM, or data
   * behind it, the peer has forgotten the handshake, and the next is begun.
   */
  reset(kernel: Tuple, packet: Packet): void {
    const session = this.#session(kernel);
    if (session === undefined) return;
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined) {
      this.#end(session);
      return;
    }
    if (packet.seq === activeMapping(flow)?.rcvBase) this.#advance(session, { event: 'refused' });
  }

  close(): void {
    this.#queue.close();
    for (const session of this.#sessions.values()) this.#disarm(session);
    this.#sessions.clear();
    this.#sessionOfWire.clear();
  }

  #session(kernel: Tuple): Session | undefined {
    return this.#sessions.get(tupleKey(kernel));
  }

  #start(flow: string): void {
    const session = this.#sessions.get(flow);
    if (session !== undefined) this.#o.performer.transact(() => this.#begin(session));
  }

  #begin(session: Session): void {
    if (session.mover.state !== 'waiting') return;
    session.since ??= this.#o.clock.now();
    const { kernel, source, o } = session;
    const held = !o.gentle || session.mover.answered;
    const flow = held ? this.#hold(kernel) : this.#o.boundary.flow(kernel);
    if (flow === undefined) {
      this.#end(session);
      return;
    }
    const keys = this.#o.keys.of(flow);
    if (keys === undefined) {
      this.#advance(session, { event: 'obstacle', reason: 'no-psk' });
      return;
    }
    const wire = drawWire(
      { ...wireOf(kernel, flow), local: source },
      {
        ports: this.#o.sourcePorts,
        random: this.#o.random,
        isTaken: (t) => this.#isTaken(t),
      },
    );
    if (wire === undefined) {
      this.#advance(session, { event: 'obstacle', reason: 'no-port' });
      return;
    }
    const isn = seq(word(this.#o.random(4)));
    const nonce = word(this.#o.random(4));
    const pending = this.#o.pendingEpochs(kernel);
    const way = o.way ?? 0;
    const draw = { kernel, flow, held, keys, wire, isn, nonce, pending, ...o, way };
    this.#advance(session, { event: 'begin', draw });
  }

  /**
   * The flow, held: the TIAck read after that is the highest ACK that will have left.  A command
   * brings the flow as it was before: just as good if it was held already, as most are.
   */
  #hold(kernel: Tuple): Flow | undefined {
    const { boundary } = this.#o;
    const { flow } = boundary.command({ verb: 'hold', kernel });
    const wasHeld = flow !== undefined && (flow.flags & FLOW_FLAG.HELD) !== 0;
    return wasHeld ? flow : boundary.flow(kernel);
  }

  /* What is decided by an answer must still be so when it is done. */
  #flowFor({ kernel, mover }: Session, packet: Packet): Flow | undefined {
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined || mover.state !== 'syn-sent' || mover.attempt.held) return flow;
    const { answer } = judgeAnswer(mover.attempt, packet, flow);
    return answer === 'accepted' || answer === 'overtaken' ? this.#hold(kernel) : flow;
  }

  #isTaken(wire: Tuple): boolean {
    const { boundary, occupancy } = this.#o;
    if (boundary.wire(wire) !== undefined || boundary.flow(wire) !== undefined) return true;
    return occupancy.isUsed(wire);
  }

  #advance(session: Session, event: MoverEvent): void {
    const { next, effects } = stepMover(session.mover, event);
    this.#find(session, next);
    if (next.state !== 'syn-sent') this.#queue.answered(session.key);
    const failure = this.#o.performer.perform(session.kernel, effects, {
      arm: (afterMs) => this.#arm(session, afterMs),
      disarm: () => this.#disarm(session),
      begin: () => this.#begin(session),
    });
    if (failure === 'no-flow') {
      this.#end(session);
      return;
    }
    if (failure !== undefined) this.#advance(session, { event: 'effect-failed', why: failure });
    else if (next.state === 'proven' || next.state === 'failed') this.#end(session);
  }

  /** The session's next state, found by its wire from now on. */
  #find(session: Session, next: Mover): void {
    const [before, after] = [wireOfMover(session.mover), wireOfMover(next)];
    session.mover = next;
    if (before === after) return;
    if (before !== undefined) this.#sessionOfWire.delete(tupleKey(before));
    if (after !== undefined) this.#sessionOfWire.set(tupleKey(after), session);
  }

  #end(session: Session): void {
    const { key, kernel } = session;
    this.#disarm(session);
    this.#queue.leave(key);
    if (this.#sessions.get(key) === session) this.#sessions.delete(key);
    this.#remember(session);
    const effects = abandon(session.mover);
    this.#find(session, newMover());
    this.#o.performer.perform(kernel, effects);
  }

  #remember({ key, kernel, mover }: Session): void {
    this.#tried.delete(key);
    const newest = newestEpoch(mover);
    const flow = this.#o.boundary.flow(kernel);
    if (newest === undefined || flow === undefined) return;
    if (((newest - flow.epoch) & 0xffff) <= AHEAD_MAX) this.#tried.set(key, newest);
    const [oldest] = this.#tried.keys();
    if (this.#tried.size > TRIED_MAX && oldest !== undefined) this.#tried.delete(oldest);
  }

  #arm(session: Session, afterMs: number): void {
    this.#disarm(session);
    session.timer = this.#o.clock.setTimer(afterMs, () => this.#timeout(session));
  }

  #disarm(session: Session): void {
    if (session.timer !== undefined) this.#o.clock.clearTimer(session.timer);
    session.timer = undefined;
  }

  #timeout(session: Session): void {
    session.timer = undefined;
    // The event that would have said so may have been lost: the ring buffer is bounded.
    const event = this.#isProven(session) ? 'proven' : 'timer';
    this.#o.performer.transact(() => this.#advance(session, { event }));
  }

  /** Whether a packet has come over the wire that is being confirmed, not over one before it. */
  #isProven({ kernel, mover }: Session): boolean {
    if (mover.state !== 'confirming') return false;
    const flags = this.#o.boundary.flow(kernel)?.flags ?? 0;
    return (flags & FLOW_FLAG.UNPROVEN) === 0;
  }
}

const wireOfMover = (mover: Mover): Tuple | undefined =>
  'attempt' in mover ? mover.attempt.wire : undefined;
