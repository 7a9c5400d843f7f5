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
import type { Route } from '../../link/route.js';
import type { Clock, Outlet, SyncAgent } from '../../sync/agent.js';
import type { FailureReason, SyncEvent } from '../../sync/event.js';
import { wayOf, wireOf } from '../../sync/handshake.js';
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
import { Following } from './following.js';
import { Journeys } from './journeys.js';
import { costOf, type Preference } from './prefer.js';
import { keptOn, lookAround, type Picture } from './surroundings.js';
import type { Uplinks } from './uplinks.js';
import { type Course, course, type Surroundings, whereabouts } from './whereabouts.js';

/* The kernel announces an address, its routes and the end of DAD in one burst. */
const BURST_MS = 2;

const LATER_MS = 500;

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
  routes: Pick<Routes, 'to' | 'from' | 'changed' | 'differ'>;
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
  /** How long another link must have been the better one before flows follow; Infinity: never. */
  followMs: number;
  /** What the operator says of interfaces. */
  prefer: readonly Preference[];
  emit: Emit;
}

export class Mobility {
  /** Moves that this daemon has seen to their end. */
  readonly moves = { completed: 0, failed: 0 };
  readonly #o: MobilityOptions;
  readonly #journeys: Journeys;
  readonly #following: Following;
  #timer: unknown;
  #later: unknown;
  #recent: Picture | undefined;
  #restUntil = 0;

  constructor(o: MobilityOptions) {
    this.#o = o;
    this.#journeys = new Journeys({ ...o, over: (kernel, reason) => this.#fail(kernel, reason) });
    this.#following = new Following({ ...o, lookAgain: () => this.reconcileSoon() });
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
    const there = monitor
      .addresses()
      .filter((a) => names.has(a.interface) && !isLinkLocal(a.address));
    const indexOf = (name: string) => monitor.links().find((link) => link.name === name)?.index;
    uplinks.update(there.map((a) => ({ address: a.address, index: indexOf(a.interface) ?? 0 })));
  }

  /** Once for a burst of changes. */
  reconcileSoon(): void {
    const restMs = this.#restUntil - this.#o.clock.now();
    const inMs = Math.max(BURST_MS, restMs);
    this.#timer ??= this.#o.clock.setTimer(inMs, () => this.reconcile());
  }

  /* When those that move at once have arrived, more or less. */
  #reconcileLater(): void {
    this.#later ??= this.#o.clock.setTimer(LATER_MS, () => {
      this.#later = undefined;
      this.reconcile();
    });
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
    this.#anyBusy = false;
    this.#o.retention.update(
      flows,
      (address) => picture.holders(address).length > 0,
      (flow, address) => this.#o.uplinks.routes(flow, address),
    );
    attempt(() => this.#o.detours.update(flows));
    this.#anyChoice = this.#o.boundary.attached().length > 1;
    this.#following.look(() =>
      this.#o.agent.together(() => {
        for (const [kernel, flow] of flows) {
          if (flowIsAlive(flow)) attempt(() => this.#settle(kernel, flow, picture));
        }
      }),
    );
  }

  #lookAround(): Picture {
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
    // Also when it is the other end's attempt that has come to its end, and ours is over with it.
    if (event.type === 'proven' || event.type === 'committed') this.#lookAgain();
    if (event.type === 'proven') {
      const hasFollowed = this.#following.arrived(kernel);
      if (this.#journeys.end(kernel) || hasFollowed) this.moves.completed += 1;
    } else if (event.type === 'failed' && this.#following.has(kernel)) {
      // What it asked may have been of no use, but where it is it goes on.
      if (event.final) this.#stay(kernel);
    } else if (event.type === 'failed') {
      const wasUnderway = this.#journeys.failed(kernel, event.reason);
      if (wasUnderway && event.final) this.#fail(kernel, event.reason);
    }
  }

  /* It may have been held again meanwhile, by a link that flapped in the middle; or have had no time yet
   * for a better link.
   */
  #lookAgain(): void {
    if (this.#anyHeld) this.reconcileSoon();
    else if (this.#anyBusy) this.#reconcileLater();
  }

  #stay(kernel: Tuple): void {
    this.#following.failed(kernel);
    this.#o.boundary.command({ verb: 'release', kernel });
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
    this.#following.end(kernel);
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
    this.#following.end(kernel);
    this.#o.agent.cancel(kernel);
    this.#o.detours.ended(kernel);
  }

  close(): void {
    this.#o.clock.clearTimer(this.#timer);
    this.#o.clock.clearTimer(this.#later);
    this.#journeys.close();
    this.#following.close();
  }

  /* Flows without a way to their peer wait for a route, so route changes matter. */
  #anyHeld = false;

  /* Flows that are being synchronized where they are: then they may have to go on. */
  #anyBusy = false;

  /* There is more than one link to be on. */
  #anyChoice = true;

  #dependsOnRoutes(): boolean {
    if (this.#anyChoice) return true;
    return this.#journeys.size > 0 || this.#anyHeld || this.#o.detours.dependOnRoutes;
  }

  #settle(kernel: Tuple, flow: Flow, picture: Picture): void {
    const wire = wireOf(kernel, flow);
    const around = this.#o.uplinks.around(flow, wire.local, picture);
    const { prefer } = this.#o;
    const cost = (name: string) => costOf(name, prefer, kernel);
    const s = prefer.length === 0 ? around : { ...around, cost };
    const held = (flow.flags & FLOW_FLAG.HELD) !== 0;
    /* Released below, or looked at again when the agent has proven it. */
    if (held) this.#anyHeld = true;
    const { local, remote } = wire;
    const kept = keptOn(flow, picture);
    const where = whereabouts({ local, remote, kept }, s);
    const underway = this.#o.agent.underway(kernel);
    const next = course(where, {
      ...{ local, held, underway },
      unproven: (flow.flags & FLOW_FLAG.UNPROVEN) !== 0,
      moved: flow.active !== 0,
      stale: wayOf(flow) !== 0 && !s.holders(local).some((h) => h.carrier && h.interface === kept),
      trying: this.#isTrying(kernel, s),
    });
    if (underway !== undefined || next.do === 'synchronize') this.#anyBusy = true;
    const isDue = where.at === 'home' && this.#isDue(where);
    if (next.do !== 'follow') this.#take(next, { kernel, wire, held });
    else if (isDue) this.#follow(kernel, wire, next);
    if (next.do !== 'follow' && isDue) this.#reconcileLater();
  }

  #isDue({ interface: from, better }: { interface: string; better?: Route }): boolean {
    return better !== undefined && this.#following.isDue({ from, to: better.interface });
  }

  /* From an address that is there still. */
  #isTrying(kernel: Tuple, s: Surroundings): boolean {
    if (!this.#o.isTrying(kernel)) return false;
    const source = this.#o.agent.underway(kernel)?.source;
    return source !== undefined && s.holders(source).some((holder) => holder.carrier);
  }

  #take(next: Course, { kernel, wire, held }: { kernel: Tuple; wire: Tuple; held: boolean }): void {
    const { agent, boundary } = this.#o;
    if (next.do !== 'nothing') this.#following.end(kernel);
    switch (next.do) {
      case 'nothing':
      case 'follow':
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
      case 'let go':
        boundary.command({ verb: 'let-go', kernel });
        break;
      case 'go on':
        this.#journeys.end(kernel);
        agent.cancel(kernel);
        boundary.command({ verb: 'release', kernel });
        if (held) agent.kick(kernel);
    }
  }

  /* While its path works: make before break. */
  #follow(kernel: Tuple, wire: Tuple, to: Destination & { from: string }): void {
    this.#journeys.end(kernel);
    this.#following.begin(kernel, { from: to.from, to: to.interface });
    this.#move(kernel, wire, { ...to, gentle: true });
  }

  #move(kernel: Tuple, wire: Tuple, to: Destination): void {
    const { agent, boundary, monitor, routes } = this.#o;
    const link = monitor.links().find(({ name }) => name === to.interface);
    const isGateway = boundary.attached('gateway').includes(to.interface);
    agent.move(kernel, to.source, {
      mtu: this.#mtuOf(to.interface, wire.remote),
      redirect: routes.differ(kernel, { ...wire, local: to.source }),
      ...(link !== undefined && !isGateway && { way: link.index }),
      ...(to.gentle && { gentle: true }),
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
  #recentPicture(): Picture {
    if (this.#recent === undefined) {
      this.#recent = this.#lookAround();
      this.#o.clock.setTimer(0, () => {
        this.#recent = undefined;
      });
    }
    return this.#recent;
  }
}

interface Destination {
  source: Address;
  interface: string;
  gentle?: boolean;
}
