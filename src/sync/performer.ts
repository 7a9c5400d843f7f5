/*
 * Performs what the machines ask for, in order, until something cannot be done.
 *
 * Reports go to an outbox and leave when everything is done: who hears of an event may call
 * the agent again, and must find it between two steps.
 */
import type { Boundary, NewWire } from '../boundary/boundary.js';
import { SystemError } from '../libc/errno.js';
import { encodePacket, type Packet } from '../wire/packet.js';
import type { Tuple } from '../wire/tuple.js';
import type { Clock } from './clock.js';
import type { SyncEvent, SyncReport } from './event.js';
import type { Effect, EffectFailure } from './handshake.js';
import { TokenBucket } from './token-bucket.js';

/** The two ways out for the packets of a flow, whose kernel may be a VM's. */
export interface Outlet {
  toWire(packet: Uint8Array, kernel: Tuple): void;
  toKernel(packet: Uint8Array, kernel: Tuple): void;
}

/** What the agent needs of the boundary. */
export type SyncBoundary = Pick<
  Boundary,
  'flow' | 'tupleOfHalf' | 'wire' | 'setWire' | 'deleteWire' | 'command'
>;

export interface PerformerOptions {
  boundary: SyncBoundary;
  raw: Outlet;
  clock: Clock;
  onEvent: (e: SyncEvent) => void;
}

/** Effects on the one who asked; a responder asks for none of them. */
export interface Asker {
  arm(afterMs: number): void;
  disarm(): void;
  begin(): void;
}

/** Enough for a peer that has lost a thousand flows; too little to be worth forging for. */
const REFUSALS = { burst: 100, perSecond: 100 };

/** Those who have moved here wait for these: garbage must not use up what is there for them. */
const REPEATS = { burst: 1000, perSecond: 1000 };

export class Performer {
  /* Not an array: what is taken from the front of one moves all that is behind it. */
  readonly #outbox = new Set<SyncEvent>();
  readonly #refusals: TokenBucket;
  readonly #repeats: TokenBucket;
  #depth = 0;

  constructor(private readonly o: PerformerOptions) {
    this.#refusals = new TokenBucket(REFUSALS, o.clock.now());
    this.#repeats = new TokenBucket(REPEATS, o.clock.now());
  }

  /** Runs `body`; reports made in it leave at the end of the outermost one. */
  transact(body: () => void): void {
    this.#depth += 1;
    try {
      body();
    } finally {
      this.#depth -= 1;
    }
    if (this.#depth > 0) return;
    for (const event of this.#outbox) {
      this.#outbox.delete(event);
      this.o.onEvent(event);
    }
  }

  report(kernel: Tuple, report: SyncReport): void {
    this.#outbox.add({ ...report, kernel, at: this.o.clock.now() });
  }

  /** Comes back undefined if all was done, else why it ended before the end of the list. */
  perform(kernel: Tuple, effects: Effect[], asker?: Asker): EffectFailure | undefined {
    for (const effect of effects) {
      const failure = this.#performOne(kernel, effect, asker);
      if (failure !== undefined) return failure;
    }
    return undefined;
  }

  #performOne(kernel: Tuple, e: Effect, asker?: Asker): EffectFailure | undefined {
    const { boundary, raw } = this.o;
    switch (e.effect) {
      case 'hold':
      case 'release':
        return failureOf(boundary.command({ verb: e.effect, kernel }).result);
      case 'map': {
        const { mapping, epoch, unproven } = e;
        const map = { verb: 'map', kernel, mapping, epoch, unproven, held: true } as const;
        return failureOf(boundary.command(map).result);
      }
      case 'set-wire':
        return this.#setWire(e.wire, { ...e, kernel });
      case 'delete-wire':
        boundary.deleteWire(e.wire);
        return undefined;
      case 'send':
        this.send(kernel, e.packet);
        return undefined;
      case 'refuse':
        this.refuse(kernel, e.packet);
        return undefined;
      case 'inject':
        this.#trySending(kernel, () => raw.toKernel(e.packet, kernel));
        return undefined;
      case 'report':
        this.report(kernel, e.report);
        return undefined;
      case 'arm':
        asker?.arm(e.afterMs);
        return undefined;
      case 'disarm':
        asker?.disarm();
        return undefined;
      case 'begin':
        asker?.begin();
        return undefined;
    }
  }

  /** To the network. */
  send(kernel: Tuple, packet: Packet): void {
    this.#trySending(kernel, () => this.o.raw.toWire(encodePacket(packet), kernel));
  }

  /** To the network, unless there was too much of it: what it answers may be forged. */
  refuse(kernel: Tuple, packet: Packet): void {
    if (this.#refusals.take(this.o.clock.now())) this.send(kernel, packet);
  }

  /** The same for what has been answered before, and may not have arrived. */
  repeat(kernel: Tuple, packet: Packet): void {
    if (this.#repeats.take(this.o.clock.now())) this.send(kernel, packet);
  }

  /** No route yet, a full queue: as good as lost on the way, so the timers see to it. */
  #trySending(kernel: Tuple, send: () => void): void {
    try {
      send();
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      this.report(kernel, { type: 'failed', reason: 'send', final: false, detail: error.message });
    }
  }

  #setWire(wire: Tuple, entry: NewWire): EffectFailure | undefined {
    try {
      this.o.boundary.setWire(wire, entry);
      return undefined;
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      return 'full';
    }
  }
}

const failureOf = (result: 'ok' | EffectFailure): EffectFailure | undefined =>
  result === 'ok' ? undefined : result;
