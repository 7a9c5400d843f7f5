/* Reacts to what the link-status monitor sees: keeps addresses alive that flows began on, holds
 * flows whose address is gone, starts their synchronization from the new one, and resets what
 * could not be moved in time.
 *
 *   address gone ──► retain, hold ──► new address usable ──► agent.move ──► proven
 *                                            `── give_up over, or refused for good ──► reset
 *
 * Each look begins anew from where the machine is now, where each flow is, and what the agent is doing
 * about it (whereabouts.ts): what was begun for an address that is gone again is ended, whatever
 * it had come to.  So a new daemon, too, only has to look.
 */

import { FLOW_FLAG, type Flow } from '../../boundary/abi.gen.js';
import type { Boundary } from '../../boundary/boundary.js';
import { attempt } from '../../libc/guard.js';
import type { LinkChange, LinkMonitor } from '../../link/monitor.js';
import type { Clock, Outlet, SyncAgent } from '../../sync/agent.js';
import type { FailureReason, SyncEvent } from '../../sync/event.js';
import { wireOf } from '../../sync/handshake.js';
import { resetFromPeer } from '../../sync/segments.js';
import { type Address, isLinkLocal } from '../../wire/address.js';
import { encodePacket } from '../../wire/packet.js';
import { type Tuple, tupleText } from '../../wire/tuple.js';
import type { Detours } from '../host/detours.js';
import type { OwnAddresses } from '../host/own-addresses.js';
import type { Retention } from '../host/retention.js';
import type { Routes } from '../host/routes.js';
import type { Settling } from '../host/settling.js';
import { flowIsAlive, isForwarded } from '../view/flow-views.js';
import type { Emit } from '../view/monitor-events.js';
import { Journeys } from './journeys.js';
import { lookAround } from './surroundings.js';
import type { Uplinks, UplinksSeen } from './uplinks.js';
import { type Course, course, type Surroundings, whereabouts } from './whereabouts.js';

/* The kernel announces an address, its routes and the end of DAD in one burst. */
const BURST_MS = 2;

/* Reading a large flow table must not become all that the daemon does, when routes change all the
 * time; a thousand flows are read in 10 ms, and are no reason to wait.
 */
const READING_LONG_MS = 50;
const REST_FACTOR = 4;

/* RFC 8200: what every IPv6 link carries; only for a link that vanished meanwhile. */
const MTU_LEAST = 1280;

export interface MobilityOptions {
  boundary: Pick<Boundary, 'flow' | 'flows' | 'command' | 'attached'>;
  agent: Pick<
    SyncAgent,
    'move' | 'suspend' | 'cancel' | 'kick' | 'underway' | 'together' | 'reasonNow'
  >;
  monitor: Pick<LinkMonitor, 'links' | 'addresses' | 'catchUp'>;
  retention: Pick<Retention, 'update'>;
  routes: Pick<Routes, 'to' | 'changed' | 'differ'>;
  settling: Pick<Settling, 'isSettling'>;
  detours: Pick<Detours, 'update' | 'ended' | 'dependOnRoutes'>;
  uplinks: Pick<Uplinks, 'update' | 'routes' | 'around'>;
  own: Pick<OwnAddresses, 'isLocal' | 'isForeign'>;
  outlet: Pick<Outlet, 'toKernel'>;
  /** Ends the socket of a flow of our own kernel; false: there is none, or this kernel cannot. */
  destroySocket: (kernel: Tuple) => boolean;
  /** Whether a flow that has not moved is synchronized from where it is (stalls.ts). */
  isTrying: (kernel: Tuple) => boolean;
  /** To be told of a flow that has no way out. */
  held: (kernel: Tuple) => void;
  clock: Clock;
  giveUpMs: number;
  holdMs: number;
  emit: Emit;
}

export class Mobility {
  /** Moves that this daemon has seen to their end. */
  readonly moves = { completed: 0, failed: 0 };
  readonly #o: MobilityOptions;
  readonly #journeys: Journeys;
  #timer: unknown;
  #recent: Surroundings | undefined;
  #restUntil = 0;

  constructor(o: MobilityOptions) {
    this.#o = o;
    this.#journeys = new Journeys({ ...o, over: (kernel, reason) => this.#fail(kernel, reason) });
  }

  /** To be called with each change that the monitor sees. */
  linkChanged(change: LinkChange): void {
    this.#o.routes.changed();
    if (change.type === 'route-changed' && !change.local && !this.#dependsOnRoutes()) return;
    if (change.type !== 'route-changed') this.#noteUplinks();
    this.reconcileSoon();
  }

  /* By which addresses the network reaches a gateway from now on. */
  #noteUplinks(): void {
    const { boundary, monitor, uplinks } = this.#o;
    const names = new Set(boundary.attached('gateway'));
    const indexes = new Map(monitor.links().map(({ name, index }) => [name, index]));
    const there = monitor
      .addresses()
      .filter((a) => names.has(a.interface) && !isLinkLocal(a.address));
    uplinks.update(
      there.map((a) => ({ address: a.address, index: indexes.get(a.interface) ?? 0 })),
    );
  }

  /** Once for a burst of changes. */
  reconcileSoon(): void {
    const restMs = this.#restUntil - this.#o.clock.now();
    const inMs = Math.max(BURST_MS, restMs);
    this.#timer ??= this.#o.clock.setTimer(inMs, () => this.reconcile());
  }

  /** Looks at every flow and does what its whereabouts ask for. */
  reconcile(): void {
    // An address that we have just dropped ourselves is still there, as far as is known here.
    this.#o.monitor.catchUp();
    this.#o.clock.clearTimer(this.#timer);
    this.#timer = undefined;
    this.#noteUplinks();
    const picture = this.#lookAround();
    const flows = this.#readFlows().filter(this.#concerns(picture));
    this.#anyHeld = false;
    this.#o.retention.update(
      flows,
      (address) => picture.holders(address).length > 0,
      (flow, address) => this.#o.uplinks.routes(flow, address),
    );
    attempt(() => this.#o.detours.update(flows));
    this.#o.agent.together(() => {
      for (const [kernel, flow] of flows) {
        if (flowIsAlive(flow)) attempt(() => this.#settle(kernel, flow, picture));
      }
    });
  }

  #lookAround(): Surroundings & UplinksSeen {
    return lookAround({ ...this.#o, isLocal: (a) => this.#o.own.isLocal(a) });
  }

  /* Not those of transparent sockets: their address is no place that they could lose. */
  #concerns(picture: Surroundings): (each: [Tuple, Flow]) => boolean {
    const foreign = new Map<Address, boolean>();
    return ([kernel, flow]) => {
      const { local } = wireOf(kernel, flow);
      if (isForwarded(flow) || picture.holders(local).length > 0) return true;
      const known = foreign.get(local) ?? this.#o.own.isForeign(local);
      foreign.set(local, known);
      return !known;
    };
  }

  #readFlows(): Array<[Tuple, Flow]> {
    const startedAt = this.#o.clock.now();
    // Those of VMs move when their migration says so (vm-flows.ts).
    const flows = this.#o.boundary.flows().filter(([kernel]) => kernel.tap === undefined);
    const tookMs = this.#o.clock.now() - startedAt;
    this.#restUntil = tookMs < READING_LONG_MS ? 0 : startedAt + REST_FACTOR * tookMs;
    return flows;
  }

  /** Why the last attempt to move this flow came to nothing; undefined: none has. */
  failureOf(kernel: Tuple): FailureReason | undefined {
    return this.#journeys.failureOf(kernel);
  }

  /** To be called with each event of the agent. */
  synchronized(event: SyncEvent): void {
    const { kernel } = event;
    if (event.type === 'proven') {
      /* It may have been held again meanwhile: a link that flapped in the middle. */
      if (this.#anyHeld) this.reconcileSoon();
      if (this.#journeys.end(kernel)) this.moves.completed += 1;
    } else if (event.type === 'failed') {
      const wasUnderway = this.#journeys.failed(kernel, event.reason);
      if (wasUnderway && event.final) this.#fail(kernel, event.reason);
    }
  }

  /** Whether a flow is on its way to another address. */
  isDeparting(kernel: Tuple): boolean {
    return this.#journeys.has(kernel);
  }

  /** Synchronizes a flow from where it is; false: it cannot be used, or is under way already. */
  again(kernel: Tuple, flow: Flow): boolean {
    const wire = wireOf(kernel, flow);
    const home = this.#recentPicture()
      .holders(wire.local)
      .find((holder) => holder.carrier);
    const isBusy =
      (flow.flags & FLOW_FLAG.HELD) !== 0 || this.#o.agent.underway(kernel) !== undefined;
    if (home === undefined || isBusy || this.isDeparting(kernel)) return false;
    this.#move(kernel, wire, { source: wire.local, interface: home.interface });
    return true;
  }

  /**
   * Ends a flow.  Our own program is told by its kernel, which also sends a reset to wherever it can;
   * that of a host behind us by a reset in its peer's name.
   */
  reset(kernel: Tuple, reason: string): void {
    this.#journeys.end(kernel);
    this.#o.agent.cancel(kernel);
    const flow = this.#o.boundary.flow(kernel);
    attempt(() => {
      const isForeign = flow !== undefined && isForwarded(flow);
      if ((!isForeign && this.#o.destroySocket(kernel)) || flow === undefined) return;
      this.#o.outlet.toKernel(encodePacket(resetFromPeer(kernel, flow)), kernel);
    });
    this.#o.boundary.command({ verb: 'forget', kernel });
    this.#o.detours.ended(kernel);
    this.#o.emit({ event: 'flow-reset', kernel: tupleText(kernel), reason });
  }

  /** Forgets what is known of a flow that has ended. */
  ended(kernel: Tuple): void {
    this.#journeys.end(kernel);
    this.#o.agent.cancel(kernel);
    this.#o.detours.ended(kernel);
  }

  close(): void {
    this.#o.clock.clearTimer(this.#timer);
    this.#journeys.close();
  }

  /* Flows without a way to their peer wait for a route, so route changes matter. */
  #anyHeld = false;

  #dependsOnRoutes(): boolean {
    return this.#journeys.size > 0 || this.#anyHeld || this.#o.detours.dependOnRoutes;
  }

  #settle(kernel: Tuple, flow: Flow, picture: Surroundings & UplinksSeen): void {
    const wire = wireOf(kernel, flow);
    const s = this.#o.uplinks.around(flow, wire.local, picture);
    const held = (flow.flags & FLOW_FLAG.HELD) !== 0;
    /* Released below, or looked at again when the agent has proven it. */
    if (held) this.#anyHeld = true;
    const next = course(whereabouts(wire.local, wire.remote, s), {
      local: wire.local,
      held,
      unproven: (flow.flags & FLOW_FLAG.UNPROVEN) !== 0,
      underway: this.#o.agent.underway(kernel),
      trying: this.#o.isTrying(kernel),
    });
    this.#take(next, { kernel, wire, held });
  }

  #take(next: Course, { kernel, wire, held }: { kernel: Tuple; wire: Tuple; held: boolean }): void {
    const { agent, boundary } = this.#o;
    switch (next.do) {
      case 'nothing':
        break;
      case 'synchronize':
        this.#journeys.begin(kernel);
        this.#move(kernel, wire, next);
        break;
      case 'wait':
        this.#anyHeld = true;
        if (!held) boundary.command({ verb: 'hold', kernel });
        this.#journeys.end(kernel);
        agent.suspend(kernel);
        this.#o.held(kernel);
        break;
      case 'go on':
        this.#journeys.end(kernel);
        agent.cancel(kernel);
        boundary.command({ verb: 'release', kernel });
        if (held) agent.kick(kernel);
    }
  }

  #move(kernel: Tuple, wire: Tuple, to: { source: Address; interface: string }): void {
    this.#o.agent.move(kernel, to.source, {
      mtu: this.#mtuOf(to.interface, wire.remote),
      redirect: this.#o.routes.differ(kernel, { ...wire, local: to.source }),
    });
  }

  /* What has its address on lo leaves by another interface. */
  #mtuOf(name: string, remote: Address): number {
    const by = name === 'lo' ? this.#o.routes.to(remote)?.interface : name;
    return this.#o.monitor.links().find((link) => link.name === by)?.mtu ?? MTU_LEAST;
  }

  #fail(kernel: Tuple, reason: FailureReason): void {
    this.moves.failed += 1;
    this.#o.emit({ event: 'move-failed', kernel: tupleText(kernel), reason });
    this.reset(kernel, reason);
  }

  /* For flows that stall: a thousand do so in one turn of the event loop when their peer is away. */
  #recentPicture(): Surroundings {
    if (this.#recent === undefined) {
      this.#recent = this.#lookAround();
      this.#o.clock.setTimer(0, () => {
        this.#recent = undefined;
      });
    }
    return this.#recent;
  }
}
