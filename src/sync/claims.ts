/*
 * Drives the responders: finds the flow that a SYN names, keeps the candidates within their
 * bounds, and answers what names nothing that is known here.
 */
import { FLOW_FLAG, type Flow, ROLE, WIRE_STATE } from '../boundary/abi.gen.js';
import { type Address, family, isUnicast } from '../wire/address.js';
import type { Packet } from '../wire/packet.js';
import { seq } from '../wire/seq.js';
import { type Tuple, tupleEqual } from '../wire/tuple.js';
import { CandidateTable } from './candidates.js';
import type { Clock } from './clock.js';
import type { RefusalReason } from './event.js';
import { wireOf } from './handshake.js';
import type { KeyRing } from './key-ring.js';
import type { Confirm, Sync } from './keys.js';
import { silentMs } from './kick.js';
import type { Performer, SyncBoundary } from './performer.js';
import {
  answerRepeatedConfirm,
  CANDIDATE_LIFETIME_MS,
  type Candidate,
  type Responder,
  type ResponderEvent,
  stepResponder,
} from './responder.js';
import { resetOf } from './segments.js';
import { word } from './wire-port.js';

export interface ClaimsOptions {
  boundary: SyncBoundary;
  performer: Performer;
  clock: Clock;
  random: (n: number) => Uint8Array;
  keys: KeyRing;
  candidatesMax: number;
  redirects: (kernel: Tuple, wire: Tuple) => boolean;
  occupancy: Occupancy;
  /** The other end of this flow moves, and has been answered. */
  onCandidate: (kernel: Tuple) => void;
  /** It has moved; the flow is on this wire now. */
  onCommitted: (kernel: Tuple, wire: Tuple, epoch: number) => void;
}

/** What the machine says of the wires that are claimed. */
export interface Occupancy {
  /** Whether what comes for this address is delivered here. */
  isOurs(a: Address): boolean;
  /** Whether it is one host's, and not this one. */
  isAnothers(a: Address): boolean;
  /** Whether a connection uses this tuple that is no TI flow. */
  isUsed(wire: Tuple): boolean;
}

const CANDIDATES_PER_FLOW = 4;

export class Claims {
  readonly #o: ClaimsOptions;
  readonly #candidates: CandidateTable;
  #timer: unknown;

  constructor(o: ClaimsOptions) {
    this.#o = o;
    this.#candidates = new CandidateTable({
      perFlow: CANDIDATES_PER_FLOW,
      total: o.candidatesMax,
      lifetimeMs: CANDIDATE_LIFETIME_MS,
    });
  }

  get size(): number {
    return this.#candidates.size;
  }

  epochsOf(kernel: Tuple): number[] {
    return this.#candidates.of(kernel).map((candidate) => candidate.sync.epoch);
  }

  /** A SYN with TI_SYNC, whoever sent it. */
  syn(wire: Tuple, packet: Packet, sync: Sync): void {
    if (!isUnicast(wire.remote)) {
      this.#ignore(wire, wire, 'foreign-wire');
      return;
    }
    const found = this.#flowOf(sync);
    if (found === undefined) {
      this.#refuse(wire, wire, packet, 'unknown-flow');
      return;
    }
    const { kernel, flow } = found;
    const keys = this.#o.keys.of(flow);
    if (keys === undefined) {
      this.#refuse(kernel, wire, packet, 'no-psk');
      return;
    }
    if (this.#isTaken(wire, kernel)) {
      this.#refuse(kernel, wire, packet, 'tuple-in-use');
      return;
    }
    if (!isOfOneKind(wire, kernel)) {
      this.#ignore(kernel, wire, 'foreign-wire');
      return;
    }
    const former = this.#candidates.get(wire);
    const responder: Responder =
      former === undefined ? { state: 'listening' } : { state: 'pending', candidate: former };
    this.#advance(kernel, responder, {
      event: 'syn',
      syn: {
        packet,
        sync,
        kernel,
        wire,
        flow,
        keys,
        isn: seq(word(this.#o.random(4))),
        nonce: word(this.#o.random(4)),
        objection: () => this.#objection(wire, kernel, flow),
      },
    });
  }

  /** A packet with TI_CONFIRM: of a candidate, of what is committed, or of what is forgotten. */
  confirm(wire: Tuple, packet: Packet, confirm: Confirm): void {
    const candidate = this.#candidates.get(wire);
    if (candidate === undefined) {
      this.#confirmAgain(wire, packet, confirm);
      return;
    }
    const { kernel } = candidate;
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined) {
      this.#drop([candidate]);
      return;
    }
    const redirect = this.#o.redirects(kernel, wire);
    this.#advance(
      kernel,
      { state: 'pending', candidate },
      {
        ...{ event: 'confirm', packet, confirm, flow, redirect },
        silentMs: silentMs(flow, this.#o.clock.now()),
        objection: () =>
          this.#isTaken(wire, kernel) ? 'tuple-in-use' : this.#objection(wire, kernel, flow),
      },
    );
  }

  /** Another packet on the wire of a candidate; false: there is none. */
  packet(wire: Tuple, packet: Packet): boolean {
    const candidate = this.#candidates.get(wire);
    if (candidate === undefined) return false;
    this.#advance(candidate.kernel, { state: 'pending', candidate }, { event: 'reset', packet });
    return true;
  }

  /**
   * What belongs to nothing here: a daemon before us may have begun it.  Its wire goes, and its
   * sender is told, so that it begins again now and not after its timers.
   */
  stray(wire: Tuple, packet: Packet): void {
    const entry = this.#o.boundary.wire(wire);
    if (entry?.state === WIRE_STATE.ACTIVE) return;
    if (entry !== undefined) this.#o.boundary.deleteWire(wire);
    if (packet.flags.includes('R')) return;
    this.#refuse(entry?.kernel ?? wire, wire, packet, 'unknown-candidate');
  }

  close(): void {
    if (this.#timer !== undefined) this.#o.clock.clearTimer(this.#timer);
  }

  /** One half of the TIFID is ours; both must be the flow's. */
  #flowOf(sync: Sync): { kernel: Tuple; flow: Flow } | undefined {
    const { boundary } = this.#o;
    const halves = [
      { half: sync.responderHalf, role: ROLE.RESPONDER },
      { half: sync.initiatorHalf, role: ROLE.INITIATOR },
    ];
    for (const { half, role } of halves) {
      const kernel = boundary.tupleOfHalf(half);
      const flow = kernel && boundary.flow(kernel);
      if (kernel === undefined || flow?.role !== role) continue;
      const { initiator, responder } = flow;
      const isComplete =
        initiator.tifidHalf === sync.initiatorHalf && responder.tifidHalf === sync.responderHalf;
      if (isComplete) return { kernel, flow };
    }
    return undefined;
  }

  /** A wire that carries a flow, or that another flow is setting up. */
  #isTaken(wire: Tuple, kernel: Tuple): boolean {
    const { boundary } = this.#o;
    const entry = boundary.wire(wire);
    if (entry?.state === WIRE_STATE.PENDING) return !tupleEqual(entry.kernel, kernel);
    return entry !== undefined || boundary.flow(wire) !== undefined;
  }

  /**
   * What comes for a VM is called there as its guest is; a gateway's hosts are called as they were,
   * or by an address of the gateway; and we ourselves by our own, which may be others by now.
   */
  #objection(wire: Tuple, kernel: Tuple, flow: Flow): RefusalReason | undefined {
    const { occupancy } = this.#o;
    const before = [kernel.local, wireOf(kernel, flow).local];
    const isAGuests = kernel.tap !== undefined;
    const mayBe = isAGuests || (flow.flags & FLOW_FLAG.FORWARDED) !== 0 ? before : [];
    const isOurs = mayBe.includes(wire.local) || (!isAGuests && occupancy.isOurs(wire.local));
    if (!isOurs || !(isAGuests || occupancy.isAnothers(wire.remote))) return 'foreign-wire';
    return occupancy.isUsed(wire) ? 'tuple-in-use' : undefined;
  }

  #confirmAgain(wire: Tuple, packet: Packet, confirm: Confirm): void {
    const entry = this.#o.boundary.wire(wire);
    if (entry?.state !== WIRE_STATE.ACTIVE) {
      this.stray(wire, packet);
      return;
    }
    const { kernel } = entry;
    const flow = this.#o.boundary.flow(kernel);
    const answer = flow && answerRepeatedConfirm(flow, wire, { packet, confirm });
    if (answer !== undefined) this.#o.performer.repeat(kernel, answer);
  }

  #advance(kernel: Tuple, responder: Responder, event: ResponderEvent): void {
    const { next, effects } = stepResponder(responder, event);
    const failure = this.#o.performer.perform(kernel, effects);
    const before = responder.state === 'pending' ? responder.candidate : undefined;
    if (failure === 'no-flow') {
      this.#drop(before === undefined ? [] : [before]);
      return;
    }
    if (failure !== undefined) {
      this.#advance(kernel, next, { event: 'effect-failed', why: failure });
      return;
    }
    if (next.state === 'pending') {
      if (next.candidate !== before) this.#admit(next.candidate);
    } else if (before !== undefined) {
      this.#candidates.remove(before.wire);
    }
    if (next.state === 'committed') this.#committed(next.candidate);
  }

  #admit(candidate: Candidate): void {
    const { kernel } = candidate;
    this.#drop(this.#candidates.add(candidate, this.#o.clock.now()));
    this.#armExpiry();
    this.#o.onCandidate(kernel);
  }

  #committed({ kernel, wire, sync }: Candidate): void {
    this.#drop(this.#candidates.of(kernel));
    this.#o.onCommitted(kernel, wire, sync.epoch);
  }

  #drop(candidates: Candidate[]): void {
    for (const candidate of candidates) {
      this.#candidates.remove(candidate.wire);
      const { effects } = stepResponder({ state: 'pending', candidate }, { event: 'expired' });
      this.#o.performer.perform(candidate.kernel, effects);
    }
  }

  #armExpiry(): void {
    const next = this.#candidates.nextExpiry();
    if (this.#timer !== undefined || next === undefined) return;
    this.#timer = this.#o.clock.setTimer(next - this.#o.clock.now(), () => {
      this.#timer = undefined;
      this.#drop(this.#candidates.expired(this.#o.clock.now()));
      this.#armExpiry();
    });
  }

  #ignore(kernel: Tuple, wire: Tuple, reason: RefusalReason): void {
    this.#o.performer.report(kernel, { type: 'refused', reason, wire });
  }

  /** A bare reset. */
  #refuse(kernel: Tuple, wire: Tuple, packet: Packet, reason: RefusalReason): void {
    this.#o.performer.report(kernel, { type: 'refused', reason, wire });
    this.#o.performer.refuse(kernel, resetOf(packet));
  }
}

/** One flow has one address family, and comes by one way: that of our kernel, or of one VM. */
const isOfOneKind = (wire: Tuple, kernel: Tuple): boolean =>
  wire.tap === kernel.tap && family(wire.local) === family(kernel.local);
