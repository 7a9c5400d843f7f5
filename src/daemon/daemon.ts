/* The daemon's composition root: opens the parts, connects them, ends them.  It decides nothing.
 *
 *   link monitor ──► Mobility ──► SyncAgent ──► wire     boundary events ──► SyncAgent
 *        ├─────────► Orphans                                    └──────────► Upkeep
 *        └─────────► renewal of addresses
 *
 * It can die at any instant: what is pinned goes on, and the next one starts here again.
 */

import { randomBytes } from 'node:crypto';
import type { Logger } from 'pino';
import { FLOW_FLAG, WIRE_STATE } from '../boundary/abi.gen.js';
import { Boundary, type BoundaryEvent } from '../boundary/boundary.js';
import { LUGGAGE_FORMAT } from '../boundary/transfer.js';
import { after, attempt, guarded, guardRounds, soon } from '../libc/guard.js';
import { monotonicMs } from '../libc/monotonic.js';
import { Poller } from '../libc/poller.js';
import { RawSender } from '../libc/raw.js';
import { interfaceIndex } from '../libc/socket.js';
import { socketOfWire, wireOfSocket } from '../link/conntrack-look-up.js';
import { defaultLinks } from '../link/default-route.js';
import { DetourTable } from '../link/detour.js';
import { type LinkChange, LinkMonitor } from '../link/monitor.js';
import { RetainedAddresses } from '../link/retained-kernel.js';
import { routeTo } from '../link/route.js';
import { destroySocket, hasSocket, progressOf, tcpSockets } from '../link/sockets.js';
import { Netlink } from '../netlink/netlink.js';
import { type Clock, deliverReset, SyncAgent } from '../sync/agent.js';
import type { SyncEvent } from '../sync/event.js';
import { wireOf } from '../sync/handshake.js';
import { rehearse } from '../sync/rehearsal.js';
import { resetOf } from '../sync/segments.js';
import { type Address, address, family } from '../wire/address.js';
import { decodePacket, encodePacket } from '../wire/packet.js';
import { type Tuple, tupleText } from '../wire/tuple.js';
import { statusView } from './api/status.js';
import type { Config } from './config/config.js';
import { matchesName } from './config/interface-pattern.js';
import { Freezer } from './flows/freezer.js';
import { Knocks } from './flows/knocks.js';
import { Mobility } from './flows/mobility.js';
import { MovedHook } from './flows/moved-hook.js';
import { NarrowPaths } from './flows/narrow-paths.js';
import { KernelOccupancy } from './flows/occupancy.js';
import { Orphans } from './flows/orphans.js';
import { DaemonOutlet, TapSender } from './flows/outlet.js';
import { Stalls } from './flows/stalls.js';
import { StuckFlows } from './flows/stuck.js';
import { Upkeep } from './flows/upkeep.js';
import { Uplinks } from './flows/uplinks.js';
import { Attachments } from './host/attachments.js';
import { Detours, withDetours } from './host/detours.js';
import { FailedRounds } from './host/failed-rounds.js';
import { lacksOf } from './host/lacks.js';
import { LinkCare } from './host/link-care.js';
import { OwnAddresses } from './host/own-addresses.js';
import { PutBack } from './host/put-back.js';
import { Retention } from './host/retention.js';
import { Routes } from './host/routes.js';
import { configure, tapMarks } from './host/settings.js';
import { Settling } from './host/settling.js';
import { Translations } from './host/translations.js';
import { Wants } from './host/wants.js';
import { WaysOut } from './host/ways-out.js';
import {
  flowIsAlive,
  flowIsEmbryonic,
  flowView,
  type LegacyConnection,
  legacyConnections,
  legacyOfVms,
  legacyView,
} from './view/flow-views.js';
import {
  type Emit,
  type NewEvent,
  ofLinkChange,
  ofSyncEvent,
  stamp,
} from './view/monitor-events.js';
import {
  type DaemonControl,
  type FlowsView,
  type FreezeView,
  LACKS,
  type Lack,
  type MonitorEvent,
  type PlanView,
  type StatusView,
  type TapControl,
  type TapsView,
} from './view/view.js';
import { addressMove } from './vm/view.js';
import { VmFlows } from './vm/vm-flows.js';
import { Vms } from './vm/vms.js';

/* RFC 791: what every IPv4 link carries; only for a tap that vanished meanwhile. */
const MTU_LEAST = 576;

/* RFC 7535: anycast, and nobody's own network, so what leads there is the default route. */
const ELSEWHERE = address('192.31.196.1');

const CLOCK: Clock = {
  now: monotonicMs,
  setTimer: (ms, f) => after(ms, f),
  clearTimer: (timer) => clearTimeout(timer as NodeJS.Timeout),
};

/** Who is told of events. */
export type Subscribers = Set<(event: MonitorEvent) => void>;

export interface DaemonOptions {
  config: Config;
  log: Logger;
  subscribers: Subscribers;
  /** Ends the process soon. */
  shutdown: () => void;
  /** Begins anew with the configuration of now.  Throws ConfigError. */
  reload: () => void;
}

/** Throws SystemError where it cannot begin; after that, what the world refuses is tried again. */
export class Daemon implements DaemonControl {
  #config: Config;
  #log: Logger;
  #startedAt = monotonicMs();
  #subscribers: Subscribers;
  #poller = new Poller();
  #netlink = new Netlink();
  #routes = new Routes((peer, way) => routeTo(this.#netlink, peer, way), monotonicMs);
  #settling = new Settling(CLOCK, () => this.#mobility.reconcileSoon());
  #boundary: Boundary;
  #raw: RawSender;
  #taps: TapSender;
  #waysOut: WaysOut;
  #outlet: DaemonOutlet;
  #monitor: LinkMonitor;
  #care: LinkCare;
  #detours: Detours;
  #agent: SyncAgent;
  #retained: RetainedAddresses;
  #retention: Retention;
  #putBack: PutBack;
  #mobility: Mobility;
  #own: OwnAddresses;
  #orphans: Orphans;
  #upkeep: Upkeep;
  #narrowPaths: NarrowPaths;
  #stalls: Stalls;
  #stuck: StuckFlows;
  #knocks: Knocks;
  #freezer: Freezer;
  #translations: Translations;
  #vmFlows: VmFlows;
  #vms: Vms;
  #wants: Wants;
  #attachments: Attachments;
  #failedRounds: FailedRounds;
  #lacks: Lack[];
  #end: DaemonOptions['shutdown'];
  #reload: DaemonOptions['reload'];
  #endGuard: () => void;

  constructor({ config, log, subscribers, shutdown, reload }: DaemonOptions) {
    this.#config = config;
    this.#log = log;
    this.#subscribers = subscribers;
    this.#end = shutdown;
    this.#reload = reload;
    this.#failedRounds = new FailedRounds({
      clock: CLOCK,
      warn: (message, err) => log.warn({ err }, message),
      retry: () => this.#retry(),
    });
    this.#endGuard = guardRounds((error) => this.#failedRounds.failed(error));
    this.#lacks = lacksOf(this.#netlink);
    for (const lack of this.#lacks) log.warn({ lack }, LACKS[lack]);
    const emit = (event: NewEvent) => this.#emit(event);
    const boundary = Boundary.open({
      runDir: config.runDir,
      limits: { flows: config.flowsMax },
    });
    this.#boundary = boundary;
    configure(boundary, config);
    if (boundary.refused !== undefined) {
      log.warn(
        { err: boundary.refused, loaded: boundary.object },
        'the data plane of before goes on',
      );
    }
    this.#raw = new RawSender();
    this.#taps = new TapSender(tapMarks(config.mark));
    this.#waysOut = new WaysOut({
      ...{ routes: this.#routes, nowMs: monotonicMs, indexOf: interfaceIndex },
      attached: () => boundary.attached(),
    });
    this.#outlet = new DaemonOutlet({
      ...{ boundary, raw: this.#raw, taps: this.#taps },
      wayOf: (ends) => this.#waysOut.of(ends),
      isRetained: (local) => this.#retention.has(local),
      isLocal: (local) => this.#own.isLocal(local),
    });
    this.#monitor = new LinkMonitor(this.#poller, (change) => this.#linkChanged(change));
    this.#care = new LinkCare({
      ...{ boundary, emit, log, runDir: config.runDir, renew: config.renew },
      ...{ netlink: this.#netlink, poller: this.#poller, monitor: this.#monitor },
      settling: this.#settling,
      clock: CLOCK,
    });
    this.#detours = new Detours({
      table: new DetourTable(this.#netlink, { table: config.table + 1 }),
      routes: this.#routes,
      attached: (name) => boundary.attached().includes(name),
      emit,
    });
    this.#agent = this.#newAgent();
    this.#retained = new RetainedAddresses(this.#netlink, {
      table: config.table,
      interfaces: () => boundary.attached(),
      forwards: () => boundary.attached('gateway').length > 0,
    });
    this.#putBack = new PutBack({
      clock: CLOCK,
      look: () => this.#mobility.reconcile(),
      isKeeping: () => [...this.#retention.addresses(), ...this.#detours.addresses()].length > 0,
    });
    this.#retention = new Retention({
      ...{ retained: this.#retained, emit },
      putBack: () => this.#putBack.done(),
    });
    const canDestroy = !this.#lacks.includes('socket-destroy');
    const shared = { boundary, netlink: this.#netlink, giveUpMs: config.giveUpMs, emit };
    this.#own = this.#newOwnAddresses();
    this.#mobility = new Mobility({
      ...{ boundary, clock: CLOCK, emit },
      ...{
        giveUpMs: config.giveUpMs,
        holdMs: config.holdMs,
        followMs: config.followMs,
        prefer: config.prefer,
      },
      destroySocket: (kernel) => canDestroy && destroySocket(this.#netlink, kernel),
      agent: this.#agent,
      monitor: this.#monitor,
      retention: this.#retention,
      routes: this.#routes,
      settling: this.#settling,
      detours: this.#detours,
      uplinks: new Uplinks(config.runDir),
      outlet: this.#outlet,
      own: this.#own,
      isTrying: (kernel) => this.#stalls.isTrying(kernel),
      held: (kernel) => this.#stalls.held(kernel),
    });
    this.#orphans = new Orphans({
      ...{ ...shared, canDestroy, own: this.#own },
      sockets: (local) => tcpSockets(this.#netlink, local),
      wireOf: (socket) => wireOfSocket(this.#netlink, socket),
      destroySocket: (socket) => destroySocket(this.#netlink, socket),
      isElsewhere: (version) => this.#isReachable(version),
    });
    this.#upkeep = new Upkeep({
      boundary,
      idleMs: config.idleMs,
      quarantineMs: config.quarantineMs,
      sockets: () => tcpSockets(this.#netlink),
      hasSocket: (kernel) => this.#hasSocket(kernel),
      clock: CLOCK,
      isMoving: (kernel) => this.#agent.state(kernel) !== 'steady',
      deliver: (kernel, packet) => attempt(() => deliverReset(this.#outlet, kernel, packet)),
      readEvents: () => this.#readEvents(),
      forgotten: (kernel) => this.#forgotten(kernel),
    });
    this.#narrowPaths = new NarrowPaths({
      flow: (kernel) => boundary.flow(kernel),
      ask: (kernel, packet) => attempt(() => this.#outlet.toWire(encodePacket(packet), kernel)),
      deliver: (kernel, packet) => this.#outlet.toKernel(packet, kernel),
      ...{ clock: CLOCK, emit },
    });
    this.#vmFlows = new VmFlows({
      ...shared,
      agent: this.#agent,
      outlet: this.#outlet,
      clock: CLOCK,
      mtuOf: (tap) => this.#monitor.links().find(({ index }) => index === tap)?.mtu ?? MTU_LEAST,
    });
    this.#vms = this.#newVms();
    this.#wants = new Wants(config, boundary.everywhere());
    this.#attachments = this.#newAttachments();
    this.#freezer = new Freezer({ boundary, agent: this.#agent });
    this.#stalls = this.#newStalls(emit);
    this.#knocks = new Knocks({
      ...{ boundary, clock: CLOCK },
      send: (kernel, packet) => attempt(() => this.#outlet.toWire(encodePacket(packet), kernel)),
      end: (kernel, reason) => this.#placementOf(kernel).reset(kernel, reason),
    });
    this.#stuck = new StuckFlows({
      ...{ boundary, clock: CLOCK, holdMs: config.holdMs, emit },
      end: (kernel, reason) => this.#placementOf(kernel).reset(kernel, reason),
    });
    this.#translations = new Translations({
      ...{ boundary, netlink: this.#netlink, poller: this.#poller },
      isOurs: (a) => {
        this.#monitor.catchUp();
        return this.#monitor.addresses().some((each) => each.address === a);
      },
      warn: (message, error) => this.#log.warn({ err: error }, message),
    });
  }

  /** Takes over what is pinned.  Throws SystemError. */
  open(): void {
    this.#attachments.now();
    attempt(() => this.#wants.save());
    for (const [wire, { state }] of this.#boundary.wires()) {
      if (state !== WIRE_STATE.ACTIVE) this.#boundary.deleteWire(wire);
    }
    this.#poller.add(this.#boundary.eventsFd, () => this.#readEvents());
  }

  /** Begins with what can wait until it can be asked. */
  begin(): void {
    const attached = this.#boundary.attached();
    this.#log.info({ runDir: this.#config.runDir, attached }, 'ready');
    attempt(() => this.#translations.attached());
    // Before any flow is judged: behind a cable that was changed meanwhile there may be another network.
    attempt(() => this.#care.catchUp());
    attempt(() => this.#reconcile());
    attempt(() => this.#vms.resume());
    rehearse(randomBytes).catch((error: unknown) => this.#log.warn({ err: error }, 'rehearsal'));
  }

  /* Whatever one of them says, the others are closed: what outlives us is only what is pinned. */
  close(): void {
    const inOrder = [
      ...[
        this.#failedRounds,
        this.#putBack,
        this.#attachments,
        this.#settling,
        this.#stalls,
        this.#stuck,
        this.#knocks,
        this.#freezer,
        this.#translations,
      ],
      ...[this.#vms, this.#vmFlows, this.#narrowPaths, this.#upkeep, this.#orphans],
      ...[this.#mobility, this.#agent, this.#care, this.#monitor, this.#raw, this.#taps],
      ...[this.#poller, this.#netlink, this.#boundary],
    ];
    for (const part of inOrder) attempt(() => part.close());
    this.#endGuard();
  }

  status(): StatusView {
    return statusView({
      ...{ boundary: this.#boundary, monitor: this.#monitor, agent: this.#agent },
      ...{ startedAtMs: this.#startedAt, lacks: this.#lacks, missing: this.#attachments.missing() },
      ...{ taps: this.taps().taps, legacy: this.#legacy(), moves: this.#mobility.moves },
      retained: this.#retention.addresses(),
      failed_rounds: this.#failedRounds.view(),
    });
  }

  flows(): FlowsView {
    const open = this.#boundary.flows().filter(([, flow]) => !flowIsEmbryonic(flow));
    const ours = open.map(([kernel, flow]) =>
      flowView(kernel, flow, {
        agent: this.#agent,
        reason: this.#mobility.failureOf(kernel),
        vm: this.#vms.of(kernel),
      }),
    );
    const legacy = this.#legacy().map((each) => legacyView(each, this.#vms.of(each.kernel)?.name));
    return { version: 1, flows: [...ours, ...legacy] };
  }

  #legacy(): LegacyConnection[] {
    const wireOf = (socket: Tuple) => wireOfSocket(this.#netlink, socket);
    const ours = legacyConnections(this.#boundary, tcpSockets(this.#netlink), wireOf);
    return [...ours, ...legacyOfVms(this.#boundary)];
  }

  taps(): TapsView {
    const taps = this.#vms.all().map((vm) => vm.view());
    return { version: 1, taps, luggage: LUGGAGE_FORMAT };
  }

  freeze(forMs: number, tap?: string): Promise<FreezeView> {
    return this.#freezer.freeze(tap === undefined ? undefined : this.#vms.get(tap).tap, forMs);
  }

  tap(name: string): TapControl {
    return this.#vms.get(name);
  }

  plan(): PlanView {
    const { steps, ...view } = this.#attachments.view();
    this.#mobility.reconcileSoon();
    return { ...view, steps: [...steps, ...this.#retention.plan()] };
  }

  attachTap(name: string, mac?: string): void {
    this.#vms.attach(name, mac);
    this.#attachments.ask(name, 'tap');
  }

  async detachTap(name: string): Promise<void> {
    await this.#vms.detach(name);
    // A tap that is gone is wanted no more as it is.
    if (interfaceIndex(name) !== undefined) this.#attachments.refuse(name);
    this.#emit({ event: 'detached', interface: name });
  }

  subscribe(onEvent: (event: MonitorEvent) => void): () => void {
    this.#subscribers.add(onEvent);
    return () => this.#subscribers.delete(onEvent);
  }

  attach(pattern: string, gateway?: boolean): void {
    const isGateway = gateway ?? this.#boundary.attached('gateway').includes(pattern);
    const isTap = gateway !== true && this.#vms.has(pattern);
    this.#attachments.ask(pattern, isTap ? 'tap' : isGateway ? 'gateway' : 'host');
  }

  async detach(pattern: string): Promise<void> {
    const taps = this.#vms.all().filter(({ name }) => matchesName(pattern, name));
    for (const { name } of taps) await this.detachTap(name);
    if (!taps.some(({ name }) => name === pattern)) this.#attachments.refuse(pattern);
  }

  shutdown(): void {
    soon(this.#end);
  }

  reload(): void {
    this.#reload();
  }

  #newAgent(): SyncAgent {
    return new SyncAgent({
      boundary: withDetours(this.#boundary, this.#detours),
      raw: this.#outlet,
      clock: CLOCK,
      random: (n) => randomBytes(n),
      psk: (keyId) => this.#config.psk?.keys.get(keyId),
      config: { sourcePorts: this.#config.sourcePorts },
      redirects: (kernel, wire) =>
        kernel.tap === undefined
          ? this.#routes.differ(kernel, wire)
          : kernel.remote !== wire.remote,
      occupancy: new KernelOccupancy(this.#netlink, this.#boundary),
      onEvent: guarded((event) => this.#synchronized(event)),
    });
  }

  #newStalls(emit: Emit): Stalls {
    return new Stalls({
      ...{ boundary: this.#boundary, agent: this.#agent, clock: CLOCK, emit },
      holdMs: this.#config.holdMs,
      again: (kernel, flow) => this.#placementOf(kernel).again(kernel, flow),
      isDeparting: (kernel) => this.#placementOf(kernel).isDeparting(kernel),
      progress: (kernel) =>
        kernel.tap === undefined ? progressOf(this.#netlink, kernel) : undefined,
      end: (kernel, reason) => {
        if (this.#upkeep.believe(kernel)) return;
        this.#placementOf(kernel).reset(kernel, reason);
      },
    });
  }

  #newAttachments(): Attachments {
    const { runDir } = this.#config;
    const boundary = this.#boundary;
    return new Attachments({
      boundary: {
        attach: (name, placement) => boundary.attach(name, placement),
        detach: (name) => boundary.detach(name),
        look: (index) => boundary.look(index),
        everywhere: () => boundary.everywhere(),
        isPinned: () => boundary.isPinned(runDir),
        pinAgain: () => boundary.pinAgain(runDir),
      },
      ...{ monitor: this.#monitor, wants: this.#wants, clock: CLOCK },
      defaultLinks: () => defaultLinks(this.#netlink),
      attachTap: (name) => this.#vms.attach(name),
      detachTap: (name) => this.#vms.leave(name, () => this.#attached('detached', name)),
      flowsOn: (name) => this.#flowsOn(name),
      done: (event, name) => this.#attached(event, name),
      warn: (message, err) => this.#log.warn({ err }, message),
    });
  }

  /* Flows that would break without it.  Where the address of one is nowhere, it may come back there. */
  #flowsOn(name: string): number {
    const holders = new Map(this.#monitor.addresses().map((a) => [a.address, a.interface]));
    return this.#boundary.flows().filter(([kernel, flow]) => {
      const isMoved = flow.moves > 0 || (flow.flags & FLOW_FLAG.HELD) !== 0;
      if (kernel.tap !== undefined || !isMoved || !flowIsAlive(flow)) return false;
      return (holders.get(wireOf(kernel, flow).local) ?? name) === name;
    }).length;
  }

  /* Whatever depends on where boundaries are looks again. */
  #attached(event: 'attached' | 'detached', name: string): void {
    this.#waysOut.changed();
    this.#emit({ event, interface: name });
    if (event === 'detached') return;
    attempt(() => this.#translations.attached());
    attempt(() => this.#care.attached());
    this.#mobility.reconcileSoon();
  }

  #newVms(): Vms {
    const hook = new MovedHook({ command: this.#config.vm.moved, log: this.#log });
    return new Vms({
      ...{ runDir: this.#config.runDir, boundary: this.#boundary, sender: this.#taps },
      ...{ outlet: this.#outlet, agent: this.#agent, flows: this.#vmFlows, clock: CLOCK },
      random32: () => randomBytes(4).readUInt32BE(),
      mtuOf: (name) => this.#monitor.links().find((link) => link.name === name)?.mtu ?? MTU_LEAST,
      gateways4: () => this.#gateways4(),
      emit: (event) => this.#emit(event),
      moved: (vm, from, to) => hook.moved(addressMove(vm, from, to)),
    });
  }

  /* The router of this machine, or this machine, if it is one. */
  #gateways4(): Address[] {
    const way = this.#routes.to(ELSEWHERE);
    const own = this.#monitor
      .addresses()
      .flatMap((a) => (family(a.address) === 4 ? a.address : []));
    return [...(way?.gateway ? [way.gateway] : []), ...own];
  }

  #placementOf(kernel: Tuple): Mobility | VmFlows {
    return kernel.tap === undefined ? this.#mobility : this.#vmFlows;
  }

  #forgotten(kernel: Tuple): void {
    this.#stalls.ended(kernel);
    this.#stuck.ended(kernel);
    this.#knocks.ended(kernel);
    if (kernel.tap === undefined) this.#mobility.ended(kernel);
    else this.#vmFlows.ended(kernel);
  }

  /* Each of those who are told is a round of its own: one must not keep the news from the others. */
  #linkChanged(change: LinkChange): void {
    this.#waysOut.changed();
    attempt(() => this.#attachments.changed(change));
    switch (change.type) {
      case 'hook-changed':
      case 'link-added':
        return;
      case 'link-removed':
        attempt(() => this.#vms.linksChanged());
        return;
      case 'ours-removed':
        this.#putBack.removed();
        return;
    }
    if (change.type === 'route-changed') attempt(() => this.#retention.routesChanged());
    else this.#emit(ofLinkChange(change));
    attempt(() => this.#care.changed(change));
    attempt(() => this.#mobility.linkChanged(change));
    if (change.type !== 'route-changed') {
      attempt(() => this.#orphans.update());
    }
  }

  #reconcile(): void {
    this.#mobility.reconcile();
    this.#orphans.update();
  }

  /* All that a failed round may have left undone, and that can be done again. */
  #retry(): void {
    attempt(() => this.#retention.routesChanged());
    attempt(() => this.#mobility.reconcile());
    attempt(() => this.#orphans.update());
    attempt(() => this.#vms.save());
  }

  #newOwnAddresses(): OwnAddresses {
    const legacy = this.#boundary.plain().filter(([{ tap }]) => tap === undefined);
    return new OwnAddresses({
      isLocal: (a) => this.#retained.isLocal(a),
      isForeign: (a) => tcpSockets(this.#netlink, a).some(({ transparent }) => transparent),
      attached: () => {
        const names = new Set(this.#boundary.attached());
        const there = this.#monitor.addresses().filter((a) => names.has(a.interface));
        return there.map(({ address }) => address);
      },
      former: legacy.map(([{ local }]) => local),
    });
  }

  #isReachable(version: 4 | 6): boolean {
    const there = this.#monitor.addresses().filter((a) => a.interface !== 'lo');
    return there.some((a) => family(a.address) === version);
  }

  /* Behind this machine's own NAT a socket may have another name. */
  #hasSocket(kernel: Tuple): boolean {
    if (hasSocket(this.#netlink, kernel)) return true;
    const socket = socketOfWire(this.#netlink, kernel);
    return socket !== undefined && hasSocket(this.#netlink, socket);
  }

  #readEvents(): void {
    this.#boundary.consumeEvents(guarded((event) => this.#boundaryEvent(event)));
  }

  #boundaryEvent(event: BoundaryEvent): void {
    const kernel = tupleText(event.tuple);
    const at_ms = Number(event.at) / 1e6;
    switch (event.type) {
      case 'packet':
        this.#agent.packet(event);
        break;
      case 'proven':
        this.#agent.proven(event.tuple, event.at);
        break;
      case 'rst':
        this.#reset(event);
        break;
      case 'stalled':
        this.#stalls.stalled(event.tuple);
        break;
      case 'revived':
        this.#stalls.revived(event.tuple);
        this.#stuck.revived(event.tuple);
        break;
      case 'knock':
        this.#knocks.knock(event.tuple, event.packet);
        break;
      case 'in-use':
        this.#refuse(event);
        break;
      case 'stuck':
        this.#stuck.stuck(event.tuple);
        break;
      case 'guest':
      case 'stranded':
        this.#vms.event(event);
        break;
      case 'opened':
        // Another flow of this tuple may have ended unseen.
        this.#detours.ended(event.tuple);
        this.#emit({ event: 'flow-opened', kernel, at_ms });
        break;
      case 'ended':
        this.#upkeep.ended(event.tuple);
        this.#emit({ event: 'flow-ended', kernel, at_ms });
    }
  }

  /* A synchronization of a flow that has not moved says nothing about a reset. */
  #reset({ tuple, packet, ...event }: BoundaryEvent): void {
    const isKept = this.#agent.reset(tuple, packet) && !this.#stalls.isTrying(tuple);
    if (isKept) return;
    this.#upkeep.quarantine({ tuple, packet, ...event });
    this.#stalls.doubted(tuple, packet);
  }

  /* A program of ours, a guest or a host behind us connects on the wire of a flow. */
  #refuse({ tuple, packet: bytes }: BoundaryEvent): void {
    const packet = decodePacket(bytes, { truncated: true });
    if ('error' in packet) return;
    attempt(() => this.#outlet.toKernel(encodePacket(resetOf(packet)), tuple));
  }

  #synchronized(event: SyncEvent): void {
    this.#stalls.synchronized(event);
    this.#mobility.synchronized(event);
    this.#vmFlows.synchronized(event);
    if (event.type === 'proven' || event.type === 'committed')
      this.#narrowPaths.moved(event.kernel);
    this.#emit(ofSyncEvent(event));
  }

  #emit(event: NewEvent): void {
    const line = stamp(event);
    this.#log.debug(line, event.event);
    for (const subscriber of this.#subscribers) subscriber(line);
  }
}
