/*
 * The synchronization agent: drives a mover for each flow whose address changes here, and a
 * responder for each address that someone claims for a flow of ours.
 *
 *   move() --------> moves.ts  (mover.ts) -----.                .--> Boundary
 *   packet() --+---> moves.ts                  +- performer.ts -+--> RawSender
 *              `---> claims.ts (responder.ts) -'                `--> onEvent: the timeline
 *
 * Not here: what the protocol says (the two machines), whether a flow has to move and when it is
 * given up (the daemon).  What is kept in memory is for speed and for handshakes under way: after
 * the agent's death the daemon begins flows that are held or unproven again, with move().
 */
import { type Flow, ROLE } from '../boundary/abi.gen.js';
import type { Address } from '../wire/address.js';
import { decodePacket, encodePacket, type Packet } from '../wire/packet.js';
import type { Tuple } from '../wire/tuple.js';
import { Claims, type Occupancy } from './claims.js';
import type { Clock } from './clock.js';
import type { FailureReason, SyncEvent } from './event.js';
import { KeyRing } from './key-ring.js';
import { kickEffects, silentMs } from './kick.js';
import { type MoveOptions, Moves, type Underway } from './moves.js';
import { type Outlet, Performer, type SyncBoundary } from './performer.js';
import { acknowledgement, closedWindow, keepalive } from './stand-in.js';
import type { PortRange } from './wire-port.js';

export type { Occupancy } from './claims.js';
export type { Clock } from './clock.js';
export type { SyncEvent } from './event.js';
export type { MoveOptions, Underway } from './moves.js';
export type { Outlet, SyncBoundary } from './performer.js';

export interface SyncAgentOptions {
  boundary: SyncBoundary;
  raw: Outlet;
  clock: Clock;
  /** n random bytes, fit for keys. */
  random: (n: number) => Uint8Array;
  psk: (keyId: number) => Uint8Array | undefined;
  config: {
    sourcePorts: PortRange;
    candidatesMax?: number;
    /** How many synchronizations may wait for their first answer at a time. */
    places?: number;
  };
  /** Whether packets of this wire need another next hop than the kernel's own for this flow. */
  redirects?: (kernel: Tuple, wire: Tuple) => boolean;
  /** What else there is on this machine; unless given, nothing that stands in the way of a claim. */
  occupancy?: Occupancy;
  onEvent: (e: SyncEvent) => void;
}

const ALONE: Occupancy = { isOurs: () => true, isAnothers: () => true, isUsed: () => false };

/** What runs for a flow; 'steady': nothing. */
export type SyncState = 'steady' | 'syncing' | 'confirming';

const CANDIDATES_MAX = 4096;

export class SyncAgent {
  readonly #boundary: SyncBoundary;
  readonly #clock: Clock;
  readonly #performer: Performer;
  readonly #moves: Moves;
  readonly #claims: Claims;

  constructor(o: SyncAgentOptions) {
    const { boundary, clock, random } = o;
    const performer = new Performer(o);
    const keys = new KeyRing(o.psk);
    this.#boundary = boundary;
    this.#clock = clock;
    this.#performer = performer;
    this.#moves = new Moves({
      ...{ boundary, performer, clock, random, keys },
      sourcePorts: o.config.sourcePorts,
      places: o.config.places,
      occupancy: o.occupancy ?? ALONE,
      pendingEpochs: (kernel) => this.#claims.epochsOf(kernel),
    });
    this.#claims = new Claims({
      ...{ boundary, performer, clock, random, keys },
      candidatesMax: o.config.candidatesMax ?? CANDIDATES_MAX,
      redirects: o.redirects ?? (() => false),
      occupancy: o.occupancy ?? ALONE,
      onCandidate: (kernel) => this.#candidate(kernel),
      onCommitted: (kernel, wire, epoch) => this.#committed(kernel, wire, epoch),
    });
  }

  /**
   * Starts the synchronization of a flow from `source`, or starts it anew if one runs from
   * another address.  No-op if one runs from there.  Goes on until it is proven, or cancelled.
   */
  move(kernel: Tuple, source: Address, o: MoveOptions): void {
    this.#performer.transact(() => this.#moves.move(kernel, source, o));
  }

  /** Runs `body`, which begins and ends synchronizations: none starts before it is through. */
  together(body: () => void): void {
    this.#performer.transact(() => this.#moves.together(body));
  }

  /** Ends the synchronization of a flow, which has no way out for now: its egress stays held. */
  suspend(kernel: Tuple): void {
    this.#performer.transact(() => this.#moves.end(kernel));
  }

  /** Ends the synchronization of a flow; its egress goes on as its mapping says. */
  cancel(kernel: Tuple): void {
    this.#performer.transact(() => this.#moves.cancel(kernel));
  }

  /** The path of a flow is back as it was: ends a synchronization of it, and wakes its kernel. */
  kick(kernel: Tuple): void {
    this.#performer.transact(() => {
      // A mapping that waits for its proof is where the flow is now: its CONFIRM must go on.
      if (this.#moves.stateOf(kernel) !== 'confirming') this.#moves.end(kernel);
      const flow = this.#boundary.flow(kernel);
      if (flow === undefined) return;
      const effects = kickEffects(kernel, flow, silentMs(flow, this.#clock.now()));
      this.#performer.perform(kernel, effects);
    });
  }

  /**
   * Keeps the kernel of a flow waiting that gets no answer, in the peer's stead.  `inFlight`:
   * something is, and the window stays closed until some of it is acknowledged.
   */
  standIn(kernel: Tuple, inFlight: boolean): void {
    if (inFlight) this.#boundary.command({ verb: 'close', kernel });
    this.#inject(kernel, closedWindow);
  }

  /** Tells the kernel of a flow what its peer has acknowledged: the ACK may have been lost. */
  acknowledge(kernel: Tuple): void {
    this.#inject(kernel, acknowledgement);
  }

  /** Has the kernel of a flow tell the peer where it is, and its window. */
  prompt(kernel: Tuple): void {
    this.#inject(kernel, keepalive);
  }

  /** A packet that the data plane has handed up; `tuple` as on the wire, ours first. */
  packet(e: { tuple: Tuple; packet: Uint8Array; at: bigint }): void {
    const packet = decodePacket(e.packet, { truncated: true });
    if ('error' in packet) return;
    this.#performer.transact(() => this.#dispatch(e.tuple, packet));
  }

  /** A packet has come over the wire that this flow was last mapped to. */
  proven(kernel: Tuple, _at: bigint): void {
    this.#performer.transact(() => this.#moves.tell(kernel, 'proven'));
  }

  /**
   * A bare reset that the data plane did not deliver, in kernel view.  False: nothing runs for
   * this flow, so that only the quarantine decides.  True: it must not be delivered; if it says
   * that the peer knows nothing of the new wire, the synchronization begins again.
   */
  reset(kernel: Tuple, bytes: Uint8Array): boolean {
    if (this.#moves.stateOf(kernel) === undefined) return false;
    const packet = decodePacket(bytes, { truncated: true });
    if ('error' in packet) return true;
    this.#performer.transact(() => this.#moves.reset(kernel, packet));
    return true;
  }

  state(kernel: Tuple): SyncState {
    return this.#moves.underway(kernel)?.state ?? 'steady';
  }

  /** What runs for a flow, and where to; undefined: nothing. */
  underway(kernel: Tuple): Underway | undefined {
    return this.#moves.underway(kernel);
  }

  /** Why a move comes to nothing that is given up now, after it has `failed` so before, if it has. */
  reasonNow(kernel: Tuple, failed: FailureReason | undefined): FailureReason {
    return this.state(kernel) === 'confirming' ? 'unconfirmed' : (failed ?? 'no-answer');
  }

  /** How much is under way; both are bounded. */
  load(): { moving: number; candidates: number } {
    return { moving: this.#moves.size, candidates: this.#claims.size };
  }

  /** Stops all timers.  What is on the wire and in the boundary stays for the next agent. */
  close(): void {
    this.#moves.close();
    this.#claims.close();
  }

  #inject(kernel: Tuple, packetOf: (kernel: Tuple, flow: Flow) => Packet): void {
    const flow = this.#boundary.flow(kernel);
    if (flow === undefined) return;
    const packet = encodePacket(packetOf(kernel, flow));
    this.#performer.transact(() => this.#performer.perform(kernel, [{ effect: 'inject', packet }]));
  }

  #dispatch(wire: Tuple, packet: Packet): void {
    for (const option of packet.options) {
      if (option.kind === 'ti-sync') {
        this.#claims.syn(wire, packet, option);
        return;
      }
      if (option.kind === 'ti-confirm') {
        this.#claims.confirm(wire, packet, option);
        return;
      }
    }
    if (this.#moves.packet(wire, packet) || this.#claims.packet(wire, packet)) return;
    this.#claims.stray(wire, packet);
  }

  /**
   * Both ends move, each from an address that the other can still reach.  If both SYNs were
   * answered and both CONFIRMs sent, each end would be mapped to its own wire.  So one gives
   * way: the responder of the original connection, when it answers.  It begins again later,
   * with a higher epoch, unless the other's move has brought the flow to where it wants it.
   */
  #candidate(kernel: Tuple): void {
    if (this.#moves.stateOf(kernel) !== 'syn-sent') return;
    const role = this.#boundary.flow(kernel)?.role;
    if (role === ROLE.RESPONDER) this.#moves.tell(kernel, 'yield');
  }

  #committed(kernel: Tuple, wire: Tuple, epoch: number): void {
    if (this.#moves.underway(kernel)?.source === wire.local) {
      this.#moves.end(kernel);
      this.#performer.report(kernel, { type: 'proven', wire, epoch });
    } else {
      this.#moves.tell(kernel, 'superseded');
    }
  }
}

/**
 * Delivers a reset that was kept in quarantine, in kernel view, to the own kernel.  Encoded anew:
 * on its way through the data plane its checksum may have been partial.
 */
export function deliverReset(to: Pick<Outlet, 'toKernel'>, kernel: Tuple, bytes: Uint8Array): void {
  const packet = decodePacket(bytes, { truncated: true });
  if (!('error' in packet)) to.toKernel(encodePacket(packet), kernel);
}
