/**
 * A lab of the topology `gateway` (topology.ts): its hosts, the daemons on some of them, and how
 * addresses change in it.
 */
import { DaemonHosts } from '../daemon-hosts.js';
import { ipBatch } from '../namespace.js';
import { type LabRecord, newRecord } from '../registry.js';
import * as services from '../services.js';
import type { Family } from '../topology.js';
import { now } from '../wait.js';
import type { WatchedDaemon } from '../watched-daemon.js';
import {
  addressOf,
  buildGateways,
  GATEWAY_HOSTS,
  type GatewayHost,
  guard,
  type Movable,
  type Place,
  renumber,
  translate,
} from './topology.js';

export interface GatewayLabOptions {
  /** hosts that run a tiflow daemon: the gateways as gateways, the others as hosts */
  daemons: readonly GatewayHost[];
  /** gw and gw2 are routers that run tiflow for themselves, on all of their links */
  asHosts?: boolean;
  /** of gw; default: one */
  uplinks?: 1 | 2;
  /** of the daemons' configuration files */
  settings?: Record<string, string | number>;
}

const forwards = (host: GatewayHost): boolean => host === 'gw' || host === 'gw2';

export class GatewayLab extends DaemonHosts<GatewayHost, GatewayHost> {
  readonly #o: GatewayLabOptions;
  readonly #places: Record<GatewayHost, Place> = {
    ...{ inner: 'first', gw: 'first', router: 'first' },
    ...{ peer: 'first', gw2: 'first', inner2: 'first' },
  };

  private constructor(record: LabRecord, o: GatewayLabOptions) {
    super(record, o.daemons);
    this.#o = o;
  }

  static prepare(name: string, owned: boolean, o: GatewayLabOptions): GatewayLab {
    return new GatewayLab(newRecord(name, 'gateway', GATEWAY_HOSTS, owned), o);
  }

  /** Builds a lab with its daemons running. Leaves nothing behind if that fails. */
  static async build(name: string, owned: boolean, o: GatewayLabOptions): Promise<GatewayLab> {
    const lab = GatewayLab.prepare(name, owned, o);
    try {
      await lab.build();
    } catch (error) {
      lab.teardown();
      throw error;
    }
    return lab;
  }

  /** Builds what `prepare` has put on record. */
  async build(): Promise<void> {
    const { daemons, uplinks = 1 } = this.#o;
    buildGateways(this.namespaces, { uplinks });
    guard(this.namespaces.gw);
    guard(this.namespaces.gw2);
    for (const host of daemons) this.startDaemon(host);
    await Promise.all(daemons.map((host) => this.watchDaemon(host)));
  }

  startDaemon(host: GatewayHost): void {
    const runDir = this.host(host).run_dir;
    const settings = {
      log: 'debug',
      ...(this.#isGateway(host) ? { gateways: this.#links(host) } : {}),
      ...this.#o.settings,
    };
    const interfaces = this.#isGateway(host) ? [] : this.#links(host);
    this.start(host, 'daemon', services.daemon(runDir, settings, { runDir, interfaces }));
  }

  /** Waits until the daemon answers and has its links attached, then collects its events. */
  watchDaemon(host: GatewayHost): Promise<WatchedDaemon> {
    return this.watch(host, ({ interfaces }) =>
      this.#links(host).every((link) => interfaces.some((i) => i.name === link && i.attached)),
    );
  }

  #isGateway(host: GatewayHost): boolean {
    return forwards(host) && this.#o.asHosts !== true;
  }

  #links(host: GatewayHost): string[] {
    if (!forwards(host)) return ['eth0'];
    const uplinks = host === 'gw' && this.#o.uplinks === 2 ? ['up0', 'up1'] : ['up0'];
    return this.#isGateway(host) ? uplinks : [...uplinks, 'in0'];
  }

  /** The address of a host now; of a gateway: outside. */
  address(host: GatewayHost, family: Family): string {
    return addressOf(host, this.#places[host], family);
  }

  /** Gives peer or a gateway its other address, on the same link. Returns the moment. */
  renumber(host: Movable): number {
    const place = this.#places[host] === 'first' ? 'second' : 'first';
    const at = now();
    renumber(this.namespaces[host], host, place);
    this.#places[host] = place;
    return at;
  }

  /** Has a gateway translate addresses: nft statements, in place of those before. */
  translate(gateway: 'gw' | 'gw2', family: Family, rules: readonly string[]): void {
    translate(this.namespaces[gateway], family, rules);
  }

  /** Switches off the far end of an uplink of gw: its carrier goes. Returns the moment. */
  unplug(uplink: 'up0' | 'up1'): number {
    const at = now();
    ipBatch(this.namespaces.router, [`link set ${uplink === 'up0' ? 'gw0' : 'gw1'} down`]);
    return at;
  }
}
