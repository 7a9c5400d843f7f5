/* Reacts to what the link-status monitor sees: keeps addresses alive that flows began on, holds
 * flows whose address is gone, starts their synchronization from the new one, and resets what
 * could not be moved in time.
 *
 *   address gone ──► retain, hold ──► new address usable ──► agent.move ──► proven
 *                                            `── give_up over, or refused for good ──► reset
 *
 * Everything here can be done again: a new daemon calls reconcile() and finds the pinned flows as
 * the old one left them.
 */

import { FLOW_FLAG, type Flow } from '../boundary/abi.gen.js';
import type { Boundary } from '../boundary/boundary.js';
import type { LinkChange, LinkMonitor } from '../link/monitor.js';
import type { Netlink } from '../link/netlink.js';
import { isLinkLocal } from '../link/route.js';
import { destroySocket } from '../link/sockets.js';
import type { Outlet, SyncAgent } from '../sync/agent.js';
import type { FailureReason, SyncEvent } from '../sync/event.js';
import { wireOf } from '../sync/handshake.js';
import { resetFromPeer } from '../sync/segments.js';
import { type Address, family } from '../wire/address.js';
import { encodePacket } from '../wire/packet.js';
import { type Tuple, tupleKey, tupleText } from '../wire/tuple.js';
import { monotonicMs } from './clock.js';
import type { Detours } from './detours.js';
import { flowIsOver, isForwarded } from './flow-views.js';
import type { Emit } from './monitor-events.js';
import type { Retention } from './retention.js';
import type { Routes } from './routes.js';
import type { Settling } from './settling.js';
import type { Uplinks, UplinksSeen } from './uplinks.js';
import { type Surroundings, whereabouts } from './whereabouts.js';

/* The kernel announces an address, its routes and the end of DAD in one burst. */
const BURST_MS = 2;

/* Reading a large flow table must not become all that the daemon does, when routes change all the
 * time; a thousand flows are read in 10 ms, and are no reason to wait.
 */
const READING_LONG_MS = 50;
const REST_FACTOR = 4;

/* RFC 8200: what every IPv6 link carries; only for a link that vanished meanwhile. */
const MTU_LEAST = 1280;

/** A flow on its way. */
interface Journey {
  kernel: Tuple;
  /** When the new address became usable: give_up counts from here. */
  since: number;
  reason: FailureReason | undefined;
}

export interface MobilityOptions {
  boundary: Boundary;
  agent: SyncAgent;
  monitor: LinkMonitor;
  netlink: Netlink;
  retention: Retention;
  routes: Routes;
  settling: Settling;
  detours: Detours;
  uplinks: Uplinks;
  outlet: Pick<Outlet, 'toKernel'>;
  /** Whether a flow that has not moved is synchronized from where it is (stalls.ts). */
  isTrying: (kernel: Tuple) => boolean;
  /** To be told of a flow that has no way out. */
  held: (kernel: Tuple) => void;
  giveUpMs: number;
  emit: Emit;
}

export class Mobility {
  /** Moves that this daemon has seen to their end. */
  readonly moves = { completed: 0, failed: 0 };
  #o: MobilityOptions;
  #journeys = new Map<string, Journey>();
  #timer: NodeJS.Timeout | undefined;
  #recent: Surroundings | undefined;
  #giveUp: NodeJS.Timeout | undefined;
  #restUntil = 0;

  constructor(o: MobilityOptions) {
    this.#o = o;
  }

  /** To be called with each change that the monitor sees. */
  linkChanged(change: LinkChange): void {
    this.#o.routes.changed();
    if (change.type === 'route-changed' && !this.#dependsOnRoutes()) return;
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
    const restMs = this.#restUntil - monotonicMs();
    this.#timer ??= setTimeout(() => this.reconcile(), Math.max(BURST_MS, restMs));
  }

  /** Looks at every flow and does what its whereabouts ask for. */
  reconcile(): void {
    // An address that we have just dropped ourselves is still there, as far as is known here.
    this.#o.monitor.catchUp();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#noteUplinks();
    const picture = this.#picture();
    const flows = this.#readFlows();
    this.#anyHeld = false;
    this.#o.retention.update(
      flows,
      (address) => picture.holders(address).length > 0,
      (flow, address) => this.#o.uplinks.routes(flow, address),
    );
    this.#o.detours.update(flows);
    for (const [kernel, flow] of flows) {
      if (!flowIsOver(flow)) this.#settle(kernel, flow, picture);
    }
    this.#armGiveUp();
  }

  #readFlows(): Array<[Tuple, Flow]> {
    const startedAt = monotonicMs();
    // Those of VMs move when their migration says so (vm-flows.ts).
    const flows = this.#o.boundary.flows().filter(([kernel]) => kernel.tap === undefined);
    const tookMs = monotonicMs() - startedAt;
    this.#restUntil = tookMs < READING_LONG_MS ? 0 : startedAt + REST_FACTOR * tookMs;
    return flows;
  }

  /** Why the last attempt to move this flow came to nothing; undefined: none has. */
  failureOf(kernel: Tuple): FailureReason | undefined {
    return this.#journeys.get(tupleKey(kernel))?.reason;
  }

  /** To be called with each event of the agent. */
  synchronized(event: SyncEvent): void {
    const key = tupleKey(event.kernel);
    const journey = this.#journeys.get(key);
    /* It may have been held again meanwhile: a link that flapped in the middle. */
    if (event.type === 'proven' && this.#anyHeld) this.reconcileSoon();
    if (event.type === 'proven' && journey !== undefined) {
      this.#journeys.delete(key);
      this.moves.completed += 1;
    } else if (event.type === 'failed' && journey !== undefined) {
      journey.reason = event.reason;
      if (event.final) this.#fail(event.kernel, event.reason);
    }
  }

  /** Whether a flow is on its way to another address. */
  isDeparting(kernel: Tuple): boolean {
    return this.#journeys.has(tupleKey(kernel));
  }

  /** Synchronizes a flow from where it is; false: it cannot be used, or is under way already. */
  again(kernel: Tuple, flow: Flow): boolean {
    const wire = wireOf(kernel, flow);
    const home = this.#recentPicture()
      .holders(wire.local)
      .find((holder) => holder.carrier);
    const isBusy = (flow.flags & FLOW_FLAG.HELD) !== 0 || this.#o.agent.state(kernel) !== 'steady';
    if (home === undefined || isBusy || this.isDeparting(kernel)) return false;
    this.#move(kernel, wire, { source: wire.local, interface: home.interface });
    return true;
  }

  /**
   * Ends a flow.  Our own program is told by its kernel, which also sends a reset to wherever it can;
   * that of a host behind us by a reset in its peer's name.
   */
  reset(kernel: Tuple, reason: string): void {
    this.#journeys.delete(tupleKey(kernel));
    this.#o.agent.cancel(kernel);
    const flow = this.#o.boundary.flow(kernel);
    if (flow !== undefined && isForwarded(flow)) {
      this.#o.outlet.toKernel(encodePacket(resetFromPeer(kernel, flow)), kernel);
    } else {
      destroySocket(this.#o.netlink, kernel);
    }
    this.#o.boundary.command({ verb: 'forget', kernel });
    this.#o.detours.ended(kernel);
    this.#o.emit({ event: 'flow-reset', kernel: tupleText(kernel), reason });
  }

  /** Forgets what is known of a flow that has ended. */
  ended(kernel: Tuple): void {
    this.#journeys.delete(tupleKey(kernel));
    this.#o.agent.cancel(kernel);
    this.#o.detours.ended(kernel);
  }

  close(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#giveUp);
  }

  /* Flows without a way to their peer wait for a route, so route changes matter. */
  #anyHeld = false;

  #dependsOnRoutes(): boolean {
    return this.#journeys.size > 0 || this.#anyHeld || this.#o.detours.dependOnRoutes;
  }

  #settle(kernel: Tuple, flow: Flow, picture: Surroundings & UplinksSeen): void {
    const wire = wireOf(kernel, flow);
    const s = this.#o.uplinks.around(flow, wire.local, picture);
    const where = whereabouts(wire.local, wire.remote, s);
    switch (where.at) {
      case 'home':
        this.#stay(kernel, flow, wire, s);
        break;
      case 'dark':
      case 'stranded':
        this.#anyHeld = true;
        if (!(flow.flags & FLOW_FLAG.HELD)) this.#o.boundary.command({ verb: 'hold', kernel });
        this.#o.held(kernel);
        break;
      case 'elsewhere':
        this.#depart(kernel, wire, where);
    }
  }

  #stay(kernel: Tuple, flow: Flow, wire: Tuple, s: Surroundings): void {
    const key = tupleKey(kernel);
    const unproven = (flow.flags & FLOW_FLAG.UNPROVEN) !== 0;
    const held = (flow.flags & FLOW_FLAG.HELD) !== 0;
    /* Released below, or looked at again when the agent has proven it. */
    if (held) this.#anyHeld = true;
    if (unproven) {
      /* A daemon before us died between CONFIRM and its answer. */
      const [home] = s.holders(wire.local);
      if (home === undefined || this.#o.agent.state(kernel) !== 'steady') return;
      this.#depart(kernel, wire, { source: wire.local, interface: home.interface });
      return;
    }
    if (this.#o.isTrying(kernel)) return;
    /* CONFIRM has been answered, and the event that says so is on its way to the agent. */
    if (this.#o.agent.state(kernel) === 'confirming') return;
    if (held || this.#journeys.has(key)) {
      this.#o.agent.cancel(kernel);
      this.#journeys.delete(key);
      this.#o.boundary.command({ verb: 'release', kernel });
    }
    if (held) this.#o.agent.kick(kernel);
  }

  #depart(kernel: Tuple, wire: Tuple, to: { source: Address; interface: string }): void {
    const key = tupleKey(kernel);
    if (!this.#journeys.has(key)) {
      this.#journeys.set(key, { kernel, since: monotonicMs(), reason: undefined });
    }
    this.#move(kernel, wire, to);
  }

  #move(kernel: Tuple, wire: Tuple, to: { source: Address; interface: string }): void {
    this.#o.agent.move(kernel, to.source, {
      mtu: this.#o.monitor.links().find((link) => link.name === to.interface)?.mtu ?? MTU_LEAST,
      redirect: this.#o.routes.differ(kernel.remote, wire.remote),
    });
  }

  #armGiveUp(): void {
    if (this.#giveUp !== undefined || this.#journeys.size === 0) return;
    const oldest = Math.min(...[...this.#journeys.values()].map((journey) => journey.since));
    const dueMs = Math.max(0, oldest + this.#o.giveUpMs - monotonicMs());
    this.#giveUp = setTimeout(() => this.#giveUpDue(), dueMs);
  }

  #giveUpDue(): void {
    this.#giveUp = undefined;
    const due = monotonicMs() - this.#o.giveUpMs;
    for (const journey of this.#journeys.values()) {
      if (journey.since > due) continue;
      this.#fail(journey.kernel, this.#o.agent.reasonNow(journey.kernel, journey.reason));
    }
    this.#armGiveUp();
  }

  #fail(kernel: Tuple, reason: FailureReason): void {
    this.moves.failed += 1;
    this.#o.emit({ event: 'move-failed', kernel: tupleText(kernel), reason });
    this.reset(kernel, reason);
  }

  /* For flows that stall: a thousand do so in one turn of the event loop when their peer is away. */
  #recentPicture(): Surroundings {
    if (this.#recent === undefined) {
      this.#recent = this.#picture();
      setImmediate(() => {
        this.#recent = undefined;
      });
    }
    return this.#recent;
  }

  /* One picture for one reconciliation: 1,000 flows to one peer ask the kernel once. */
  #picture(): Surroundings & UplinksSeen {
    const links = this.#o.monitor.links();
    const carrier = new Map(links.map((link) => [link.name, link.up && link.carrier]));
    const holders = new Map<Address, { interface: string; carrier: boolean }[]>();
    for (const a of this.#o.monitor.addresses()) {
      if (a.interface === 'lo' || a.tentative) continue;
      const settling = this.#o.settling.isSettling(a.interface, family(a.address));
      const holder = {
        interface: a.interface,
        carrier: !settling && (carrier.get(a.interface) ?? false),
      };
      holders.set(a.address, [...(holders.get(a.address) ?? []), holder]);
    }
    const attached = new Set(this.#o.boundary.attached());
    return {
      holders: (address) => holders.get(address) ?? [],
      attached: (name) => attached.has(name),
      routeTo: (peer) => this.#o.routes.to(peer),
      uplink: (index, of) => {
        const name = links.find((link) => link.index === index)?.name;
        if (name === undefined || !attached.has(name)) return undefined;
        const settling = this.#o.settling.isSettling(name, family(of));
        return { interface: name, carrier: !settling && (carrier.get(name) ?? false) };
      },
    };
  }
}
