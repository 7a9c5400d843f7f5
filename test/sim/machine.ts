/*
 * A machine with the daemon's own parts: mobility, whereabouts, settling, stalls, the agent and its queue.
 * Two links, whose carriers and addresses come and go as the scenario says; the daemon hears of it
 * a little later, in the kernel's order.
 *
 * Not here: what keeps an old address alive in the kernel, and detours.  The kernels of the
 * simulation send what they want, and the network drops what comes from nowhere.
 */
import assert from 'node:assert/strict';
import { FLOW_FLAG, type Flow } from '../../src/boundary/abi.gen.js';
import { Mobility } from '../../src/daemon/flows/mobility.js';
import { Stalls } from '../../src/daemon/flows/stalls.js';
import { Routes } from '../../src/daemon/host/routes.js';
import { Settling } from '../../src/daemon/host/settling.js';
import type { LinkChange } from '../../src/link/link-state.js';
import type { Route, Way } from '../../src/link/route.js';
import type { SyncAgent, SyncEvent } from '../../src/sync/agent.js';
import { wireOf } from '../../src/sync/handshake.js';
import { type Address, family } from '../../src/wire/address.js';
import type { Packet } from '../../src/wire/packet.js';
import { type Tuple, tupleText } from '../../src/wire/tuple.js';
import type { ModelEvent } from './boundary-model.js';
import { Computer, type Surroundings } from './computer.js';

export const GIVE_UP_MS = 60_000;
export const HOLD_MS = 900_000;
const FOLLOW_MS = 2000;
const QUARANTINE_MS = 3000;
const MTU = 1500;
/** Of the first link. */
const INDEX = 2;
/** The kernel's notifications are read by then; then mobility waits for the rest of a burst. */
const NEWS_MAX_MS = 3;
/** A packet may leave from an address that has been gone for as long. */
const LATE_MAX_MS = 10;
/** An address server or a router has spoken by then, if one does: after that nobody is waited for. */
const JUDGED_MAX_MS = 1500;

export type LinkName = 'eth0' | 'wlan0';
const LINKS: readonly LinkName[] = ['eth0', 'wlan0'];

interface Link {
  carrier: boolean;
  addresses: Address[];
}

const copyOf = (links: ReadonlyMap<LinkName, Link>): Map<LinkName, Link> =>
  new Map([...links].map(([name, l]) => [name, { ...l, addresses: [...l.addresses] }]));

export interface MachineOptions {
  /** How many synchronizations may wait for their first answer at a time. */
  places: number;
  /** The kernel goes on preferring a link that has lost its carrier. */
  prefersDeadLinks: boolean;
}

export class Machine extends Computer {
  readonly #options: MachineOptions;
  readonly #links = new Map<LinkName, Link>();
  /** As the daemon has seen them. */
  #seen = new Map<LinkName, Link>();
  #news: LinkChange[] = [];
  /** When an address was last reachable. */
  readonly #reachable = new Map<Address, number>();
  /** The link whose routes have the lower metric. */
  #better: LinkName = 'eth0';
  #mobility: Mobility | undefined;
  #settling: Settling | undefined;
  #stalls: Stalls | undefined;

  constructor(name: string, surroundings: Surroundings, options: MachineOptions) {
    super(name, surroundings, options.places);
    this.#options = options;
    for (const link of LINKS) this.#links.set(link, { carrier: false, addresses: [] });
    this.startDaemon();
  }

  /* -- what the world does to it -- */

  carrier(name: LinkName, up: boolean): void {
    const link = this.#link(name);
    if (link.carrier === up) return;
    link.carrier = up;
    this.#changed({ type: 'carrier', interface: name, up });
  }

  add(name: LinkName, address: Address): void {
    const link = this.#link(name);
    if (link.addresses.includes(address)) return;
    link.addresses.push(address);
    this.#changed({ type: 'address-added', interface: name, address, prefixLength: 24 });
  }

  remove(name: LinkName, address: Address): void {
    const link = this.#link(name);
    if (!link.addresses.includes(address)) return;
    link.addresses = link.addresses.filter((each) => each !== address);
    this.#changed({ type: 'address-removed', interface: name, address });
  }

  /** Routes by this link are better than those by the other from now on. */
  prefer(name: LinkName): void {
    if (this.#better === name) return;
    this.#better = name;
    this.#tell({ type: 'route-changed' });
  }

  /** Which flow is left behind on a link that works while a better one does, too; undefined: none. */
  straggler(): string | undefined {
    const best = this.#byMetric().find(({ carrier, addresses }) => carrier && addresses.length > 0);
    for (const { flow, kernel } of this.boundary.flows.values()) {
      const { local } = wireOf(kernel, flow);
      if (best === undefined || best.addresses.includes(local)) continue;
      return `${this.name}: ${tupleText(kernel)} is at ${local} still`;
    }
    return undefined;
  }

  #byMetric(): Array<Link & { name: LinkName }> {
    const order = [this.#better, ...LINKS.filter((name) => name !== this.#better)];
    return order.map((name) => ({ name, ...this.#link(name) }));
  }

  addresses(name: LinkName): readonly Address[] {
    return this.#link(name).addresses;
  }

  /** Why this machine is not at rest; undefined: every flow is where it should be, and proven. */
  unrest(): string | undefined {
    if (!this.isAlive) return `${this.name}: no daemon`;
    if (this.load.moving > 0) return `${this.name}: ${this.load.moving} moving`;
    for (const { flow, kernel } of this.boundary.flows.values()) {
      const { local } = wireOf(kernel, flow);
      const about = `${this.name}: ${tupleText(kernel)}`;
      if ((flow.flags & FLOW_FLAG.HELD) !== 0) return `${about} is held`;
      if ((flow.flags & FLOW_FLAG.UNPROVEN) !== 0) return `${about} is not proven`;
      if (!this.link.owns(local)) return `${about} is at ${local}, which is gone`;
    }
    return undefined;
  }

  #link(name: LinkName): Link {
    const link = this.#links.get(name);
    assert.ok(link);
    return link;
  }

  #changed(change: LinkChange): void {
    const reachable = new Set<Address>();
    for (const { carrier, addresses } of this.#links.values()) {
      if (carrier) for (const address of addresses) reachable.add(address);
    }
    for (const address of this.everOwned) {
      if (!reachable.has(address) && this.link.owns(address)) {
        this.#reachable.set(address, this.clock.now());
        this.unplug(address);
      }
    }
    for (const address of reachable) if (!this.link.owns(address)) this.plug(address);
    this.#tell(change, { type: 'route-changed' });
  }

  #tell(...news: LinkChange[]): void {
    this.#news.push(...news);
    this.clock.setTimer(this.random.between(0, NEWS_MAX_MS), () => this.#hear());
  }

  /* -- what its daemon sees -- */

  #hear(): void {
    const news = this.#news;
    this.#news = [];
    this.#seen = copyOf(this.#links);
    for (const change of news) this.supervise(() => this.#linkChanged(change));
  }

  #linkChanged(change: LinkChange): void {
    if (change.type === 'carrier') this.#careFor(change.interface, change.up);
    if (change.type === 'address-added') {
      this.#settling?.end(change.interface, family(change.address));
    }
    this.#mobility?.linkChanged(change);
  }

  /** As link-care.ts: somebody speaks on a link that is new, mostly. */
  #careFor(name: string, up: boolean): void {
    this.#settling?.begin(name);
    if (!up || this.random.chance(0.2)) return;
    const settling = this.#settling;
    this.daemonClock.setTimer(this.random.between(0, JUDGED_MAX_MS), () => {
      settling?.end(name, 4);
      settling?.end(name, 6);
    });
  }

  /* No policy rules: by the metric, whatever the source. */
  #routeTo(peer: Address, way: Way): Route | undefined {
    for (const { name, carrier, addresses } of this.#byMetric()) {
      const source = way.from ?? addresses.find((a) => family(a) === family(peer));
      if (source === undefined || addresses.length === 0) continue;
      if (way.by !== undefined && way.by !== name) continue;
      if (carrier || this.#options.prefersDeadLinks) return { source, interface: name };
    }
    return undefined;
  }

  /* -- its daemon -- */

  protected override begin(agent: SyncAgent): void {
    const clock = this.daemonClock;
    const boundary = this.mortalBoundary();
    const settling = new Settling(clock, () => this.#mobility?.reconcileSoon());
    const emit = () => undefined;
    const routes = new Routes(
      (peer, way) => this.#routeTo(peer, way),
      () => clock.now(),
    );
    const mobility = new Mobility({
      ...{ agent, clock, settling, routes, emit, giveUpMs: GIVE_UP_MS, holdMs: HOLD_MS },
      followMs: FOLLOW_MS,
      prefer: [],
      boundary: {
        flow: (kernel) => boundary.flow(kernel),
        command: (c) => boundary.command(c),
        attached: (placement) => (placement === 'gateway' ? [] : [...LINKS]),
        flows: () => this.#flows(),
      },
      monitor: {
        catchUp: () => this.#hear(),
        links: () => this.#seenLinks(),
        addresses: () => this.#seenAddresses(),
      },
      retention: { update: () => undefined },
      own: { isLocal: () => false, isForeign: () => false },
      detours: { update: () => undefined, ended: () => undefined, dependOnRoutes: false },
      uplinks: { update: () => undefined, routes: () => false, around: (_, __, s) => s },
      outlet: { toKernel: () => assert.fail('nothing is forwarded here') },
      destroySocket: (kernel) => this.#destroy(kernel),
      isTrying: (kernel) => this.#stalls?.isTrying(kernel) ?? false,
      held: (kernel) => this.#stalls?.held(kernel),
    });
    this.#settling = settling;
    this.#mobility = mobility;
    this.#stalls = new Stalls({
      ...{ agent, boundary, clock, emit, holdMs: HOLD_MS },
      again: (kernel, flow) => mobility.again(kernel, flow),
      isDeparting: (kernel) => mobility.isDeparting(kernel),
      progress: (kernel) => this.kernels.get(tupleText(kernel))?.progress(),
      end: (kernel, reason) => mobility.reset(kernel, reason),
    });
    this.#catchUp();
    mobility.reconcile();
  }

  /** As daemon.ts does before anything else: a cable may have been changed while nobody looked. */
  #catchUp(): void {
    const before = this.#seen;
    this.#news = [];
    this.#seen = copyOf(this.#links);
    for (const [name, { carrier }] of this.#links) {
      const was = before.get(name)?.carrier;
      if (was !== undefined && carrier !== was) this.#careFor(name, carrier);
    }
  }

  protected override handle(agent: SyncAgent, event: ModelEvent): void {
    switch (event.type) {
      case 'packet':
        agent.packet(event);
        break;
      case 'proven':
        agent.proven(event.tuple, event.at);
        break;
      case 'rst':
        this.#reset(agent, event);
        break;
      case 'stalled':
        this.#stalls?.stalled(event.tuple);
        break;
      case 'revived':
        this.#stalls?.revived(event.tuple);
    }
  }

  protected override synchronized(event: SyncEvent): void {
    super.synchronized(event);
    this.#stalls?.synchronized(event);
    this.#mobility?.synchronized(event);
  }

  /** No flow is moved to where the machine is not any more. */
  protected override sending(p: Packet): void {
    const isMover = p.options.some(({ kind }) => kind === 'ti-sync' || kind === 'ti-confirm');
    if (this.link.owns(p.source) || !isMover) return;
    const goneForMs = this.clock.now() - (this.#reachable.get(p.source) ?? 0);
    assert.ok(
      goneForMs <= LATE_MAX_MS,
      `${this.name} sends from ${p.source}, ${goneForMs} ms late`,
    );
  }

  #reset(agent: SyncAgent, event: ModelEvent): void {
    const { tuple, packet } = event;
    if (agent.reset(tuple, packet) && this.#stalls?.isTrying(tuple) !== true) return;
    this.daemonClock.setTimer(QUARANTINE_MS, () => {
      const flow = this.boundary.flow(tuple);
      if (flow === undefined || flow.seenIn > event.at || flow.movedAt > event.at) return;
      const inDoubt = (flow.flags & (FLOW_FLAG.HELD | FLOW_FLAG.UNPROVEN)) !== 0;
      if (!inDoubt && agent.state(tuple) === 'steady') this.inject(packet);
    });
    this.#stalls?.doubted(tuple, packet);
  }

  #flows() {
    return [...this.boundary.flows.values()].flatMap(({ kernel }) => {
      const flow = this.boundary.flow(kernel);
      return flow === undefined ? [] : [[kernel, this.#placed(kernel, flow)] as [Tuple, Flow]];
    });
  }

  /* As the data plane would: what it sends leaves by the link of its address, and so do the answers. */
  #placed(kernel: Tuple, flow: Flow): Flow {
    const { local } = wireOf(kernel, flow);
    const link = LINKS.findIndex((name) => this.#link(name).addresses.includes(local));
    if (link < 0) return flow;
    return { ...flow, outside: INDEX + link, flags: flow.flags | FLOW_FLAG.BOTH_WAYS };
  }

  #seenLinks() {
    return [...this.#seen].map(([name, { carrier }], at) => ({
      ...{ name, index: INDEX + at, up: true, carrier, carrierChanges: 0, mtu: MTU },
      ...{ ethernet: true, mac: new Uint8Array(6), vmTap: false, master: undefined },
    }));
  }

  #seenAddresses() {
    return [...this.#seen].flatMap(([name, { addresses }]) =>
      addresses.map((address) => ({
        ...{ address, prefixLength: 24, interface: name },
        ...{ deprecated: false, tentative: false, dynamic: true },
      })),
    );
  }

  #destroy(kernel: Tuple): boolean {
    const socket = this.kernels.get(tupleText(kernel));
    if (socket !== undefined) socket.error ??= 'given up';
    return socket !== undefined;
  }
}
