/**
 * A lab of the topology `twins` (topology.ts): what runs on its hosts. What happens on the two
 * machines is said once, for either (machine.ts).
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { DaemonHosts } from '../daemon-hosts.js';
import { giveMounts } from '../own-mounts.js';
import { type LabRecord, newRecord } from '../registry.js';
import * as services from '../services.js';
import type { Family } from '../topology.js';
import { until } from '../wait.js';
import type { WatchedDaemon } from '../watched-daemon.js';
import { Machine } from './machine.js';
import { unpackedSoftware } from './software.js';
import {
  addressAt,
  buildTwins,
  FAR,
  macOf,
  NET,
  NETS,
  type Net,
  TWINS_HOSTS,
  type TwinsHost,
} from './topology.js';

export interface TwinsOptions {
  /** by hand, before anything else; or by the DHCP servers and routers, whom the machines ask */
  addresses: 'static' | 'dhcp';
  /** that the host's daemon attaches; default: eth0 */
  interfaces?: readonly string[];
  /** of the host's configuration file */
  settings?: Record<string, string | number>;
}

export type TwinsProtected = 'host' | 'peer';

/** Short, so that what is given up is given up while we watch. */
export const GIVE_UP_MS = 2_000;
const SETTINGS = { log: 'debug', give_up: `${GIVE_UP_MS}ms`, hold: '20s' };

export class TwinsLab extends DaemonHosts<TwinsHost, TwinsProtected> {
  readonly machines: readonly Machine[];
  readonly options: TwinsOptions;

  private constructor(record: LabRecord, options: TwinsOptions) {
    super(record, ['host', 'peer']);
    this.options = options;
    this.machines = [new Machine(this, 'host'), new Machine(this, 'twin')];
  }

  static prepare(name: string, owned: boolean, options: TwinsOptions): TwinsLab {
    return new TwinsLab(newRecord(name, 'twins', TWINS_HOSTS, owned), options);
  }

  /** Builds what `prepare` has put on record: all but the host's daemon, which the case starts. */
  async build(): Promise<void> {
    buildTwins(this.namespaces);
    const programs = unpackedSoftware();
    for (const name of ['host', 'twin', 'router']) {
      await giveMounts(this.record, this.host(name), { programs, sys: true });
    }
    const { addresses } = this.options;
    if (addresses === 'dhcp') for (const net of NETS) this.startAddressServer(net);
    for (const machine of this.machines) {
      machine.plug('A');
      if (addresses === 'static') machine.settle('A');
    }
    const { run_dir } = this.host('peer');
    this.start('peer', 'daemon', services.daemon(run_dir, SETTINGS));
    await this.watch('peer', ({ interfaces }) => interfaces.some((each) => each.attached));
  }

  /** On the host; does not wait. */
  startDaemon(): void {
    const { interfaces = ['eth0'], settings } = this.options;
    const { run_dir } = this.host('host');
    const seen = { runDir: '/run/tiflow', interfaces };
    this.start('host', 'daemon', services.daemon(run_dir, { ...SETTINGS, ...settings }, seen));
  }

  /** Waits until the host's daemon answers and has what it shall have, then collects its events. */
  watchDaemon(attached = this.options.interfaces ?? ['eth0']): Promise<WatchedDaemon> {
    return this.watch('host', ({ interfaces }) =>
      attached.every((name) => interfaces.some((each) => each.name === name && each.attached)),
    );
  }

  address(host: TwinsHost, family: Family): string {
    if (host === 'router') return NET.A.router[family];
    if (host === 'peer' || host === 'plain') return FAR[host][family];
    return addressAt({ machine: host, net: 'A', family });
  }

  /** DHCPv4 with a reservation for each machine, and router advertisements. */
  startAddressServer(net: Net): void {
    const { bridge, prefix4, prefix6, router } = NET[net];
    const file = (name: string) => `${this.directory}/router/${net}.${name}`;
    const reserved = this.machines.map(({ name }) => {
      const address = addressAt({ machine: name, net, family: 4 });
      return `--dhcp-host=${macOf(name, 'eth0')},${address}`;
    });
    this.start('router', `addresses-${net}`, [
      ...['dnsmasq', '--conf-file=/dev/null', '--keep-in-foreground', '--user=root', '--port=0'],
      ...[`--interface=${bridge}`, '--except-interface=lo', '--bind-interfaces', '--no-ping'],
      '--dhcp-authoritative',
      `--pid-file=${file('pid')}`,
      `--dhcp-leasefile=${file('leases')}`,
      `--log-facility=${file('log')}`,
      `--dhcp-range=${prefix4}.100,${prefix4}.199,255.255.255.0,1h`,
      ...reserved,
      `--dhcp-option=option:router,${router[4]}`,
      '--enable-ra',
      `--dhcp-range=${prefix6}:,ra-only,64,2h`,
      `--ra-param=${bridge},high,4,1800`,
    ]);
  }

  /** The DHCP server and router advertisements of a net are away from now on. */
  async stopAddressServer(net: Net): Promise<void> {
    const what = `addresses-${net}`;
    for (const { pid } of this.running('router', what)) process.kill(pid);
    await until(`end of ${what}`, () => this.running('router', what).length === 0);
  }

  /** A routing daemon of the router: BIRD with these settings. */
  startBirdOnRouter(settings: string): void {
    const file = (name: string) => `${this.directory}/router/${name}`;
    mkdirSync(file(''), { recursive: true });
    writeFileSync(file('bird.conf'), settings);
    const argv = ['-f', '-c', file('bird.conf'), '-s', file('bird.ctl')];
    this.start('router', 'bird', ['bird', ...argv]);
  }
}
