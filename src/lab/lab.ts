/**
 * A lab: a network of hosts that are network namespaces, what runs on them, and the VM that
 * moves. Built and torn down as a whole; whatever is started is recorded first (registry.ts).
 *
 * Not here: what the network looks like (topology.ts), what is tried in it (cases/).
 */
import type { ChildProcess } from 'node:child_process';
import { DaemonHosts } from './daemon-hosts.js';
import { DARTAGNAN, plugDartagnan } from './dartagnan.js';
import { LabError, writeSysctls } from './namespace.js';
import { buildNats, type NatKind } from './nat.js';
import { type LabRecord, loadRecord, newRecord, saveRecord } from './registry.js';
import * as services from './services.js';
import {
  ARAMIS,
  buildPaper,
  type Family,
  HOSTS,
  type HostName,
  NETWORKS,
  plugIn,
  plugStranger,
  pullOut,
  SITES,
  type Site,
} from './topology.js';
import { now, until } from './wait.js';
import type { WatchedDaemon } from './watched-daemon.js';
import { startWire, type WireSettings } from './wire.js';

export type Protected = 'aramis' | 'vm' | 'dartagnan';

export interface LabOptions {
  name: string;
  /** the lab is swept once this process is gone */
  owned: boolean;
  /** hosts that run a tiflow daemon */
  daemons: readonly Protected[];
  /** settings of the daemons' configuration file */
  settings?: Record<string, string | number>;
  wire?: WireSettings;
  /** both sites are behind NATs */
  nat?: NatKind;
}

export class Lab extends DaemonHosts<HostName, Protected> {
  readonly #options: LabOptions;

  private constructor(record: LabRecord, options: LabOptions) {
    super(record, options.daemons);
    this.#options = options;
  }

  /** Builds a lab with the VM plugged in at athos. Leaves nothing behind if that fails. */
  static async build(options: LabOptions): Promise<Lab> {
    const lab = Lab.prepare(options);
    try {
      await lab.build();
    } catch (error) {
      lab.teardown();
      throw error;
    }
    return lab;
  }

  /** A lab that stands already, for a command of the CLI. Throws LabError if it does not. */
  static load(name: string): Lab {
    return new Lab(loadRecord(name), { name, owned: false, daemons: [] });
  }

  /** A lab on record, so that it can be torn down from now on, but not built yet. */
  static prepare(options: LabOptions): Lab {
    const { name, owned } = options;
    const record = newRecord(name, 'paper', HOSTS, owned);
    return new Lab(record, options);
  }

  /** Builds what `prepare` has put on record. */
  async build(): Promise<void> {
    const { daemons, wire, nat } = this.#options;
    buildPaper(this.namespaces, { wire: wire !== undefined });
    if (daemons.includes('dartagnan')) plugDartagnan(this.namespaces);
    if (nat !== undefined) buildNats(this, nat);
    if (wire) await startWire(this, wire);
    for (const site of SITES) this.start(site, 'dnsmasq', services.dnsmasq(this.directory, site));
    for (const host of daemons) this.startDaemon(host);
    this.start('vm', 'udhcpc', services.udhcpc(this.directory));
    this.start('vm', 'sshd', services.sshd(this.directory));
    this.plug('athos');
    await Promise.all([
      this.waitForAddresses('athos'),
      this.#waitForSshd(),
      ...daemons.map((host) => this.watchDaemon(host)),
    ]);
  }

  /** Whether aramis knows the VM by another address than the VM itself. */
  get isTranslated(): boolean {
    return this.#options.nat !== undefined;
  }

  /** Pulls the VM's cable: its carrier goes down. Returns the moment. */
  unplug(): number {
    const { plugged } = this.record;
    const at = now();
    if (plugged) pullOut(this.namespaces[plugged as Site]);
    return at;
  }

  /**
   * Plugs the VM's cable in at a site: its carrier comes up. Returns the moment. Where no tiflow
   * runs on the VM, the lab does what a network manager does on a new link.
   */
  plug(site: Site): number {
    const from = (this.record.plugged ?? 'athos') as Site;
    const moved = this.record.plugged !== null && from !== site;
    const at = now();
    plugIn(this.namespaces[from], this.namespaces[site]);
    this.record.plugged = site;
    saveRecord(this.record);
    if (moved && this.daemonPid('vm') === undefined) this.#renewByHand();
    return at;
  }

  /** The move: unplug, plug in elsewhere. Returns the moment the cable was pulled. */
  move(site: Site): number {
    const at = this.unplug();
    this.plug(site);
    return at;
  }

  #renewByHand(): void {
    const { vm } = this.namespaces;
    // Forgets the old link's addresses and routes and solicits the new one's router.
    writeSysctls(vm, { 'ipv6/conf/eth0/disable_ipv6': '1' });
    writeSysctls(vm, { 'ipv6/conf/eth0/disable_ipv6': '0' });
    for (const p of this.running('vm', 'udhcpc')) {
      process.kill(p.pid, 'SIGUSR2');
      process.kill(p.pid, 'SIGUSR1');
    }
  }

  /** The stock ssh client on aramis, logging in to the VM. */
  logIn(family: Family, command: string): ChildProcess {
    const argv = services.ssh(this.directory, this.vmAddress(family), command);
    return this.spawn('aramis', 'ssh', argv, ['pipe', 'pipe', 'pipe']);
  }

  /** The VM's address where it is plugged in now. */
  vmAddress(family: Family, site = this.record.plugged as Site): string {
    return family === 4 ? NETWORKS[site].vm4 : NETWORKS[site].vm6;
  }

  /** The address of an end host. Throws LabError if the host is none. */
  address(host: HostName, family: Family): string {
    if (host === 'aramis') return ARAMIS[family];
    if (host === 'dartagnan') return DARTAGNAN[family];
    if (host === 'vm') return this.vmAddress(family);
    throw new LabError(`lab ${this.record.name}: ${host} has no address of its own`);
  }

  /** Waits until the VM has the site's addresses of both families. Returns the moment. */
  async waitForAddresses(site: Site, families: readonly Family[] = [4, 6]): Promise<number> {
    const wanted = families.map((family) => this.vmAddress(family, site));
    await until(`addresses ${wanted.join(' and ')} on vm`, () => {
      const shown = this.run('vm', ['ip', '-o', 'addr', 'show', 'dev', 'eth0', '-tentative']);
      return wanted.every((a) => shown.includes(` ${a}/`));
    });
    return now();
  }

  async #waitForSshd(): Promise<void> {
    const listening = () => this.run('vm', ['ss', '-Hltn', 'sport = :22']).includes(':22');
    await until('sshd on vm', listening);
  }

  /** A stranger's host at a site, with an address of its choice. */
  plugStranger(site: Site, address: string): void {
    plugStranger(this.namespaces, site, address);
  }

  startDaemon(host: Protected): void {
    const { run_dir } = this.host(host);
    const settings = { log: 'debug', ...this.#options.settings };
    this.start(host, 'daemon', services.daemon(run_dir, settings));
  }

  /** Waits until the daemon answers and has eth0 attached, then collects its events. */
  watchDaemon(host: Protected): Promise<WatchedDaemon> {
    return this.watch(host, (status) =>
      status.interfaces.some((i) => i.name === 'eth0' && i.attached),
    );
  }
}
