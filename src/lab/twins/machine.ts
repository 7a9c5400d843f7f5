/**
 * One of the two machines of topology `twins`, as a scenario sees it: what is done to it is said
 * once and happens to both, each with its own addresses.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { ipBatch, writeSysctls } from '../namespace.js';
import { seenFromOutside } from '../own-mounts.js';
import type { Family } from '../topology.js';
import { until } from '../wait.js';
import type { TwinsLab } from './lab.js';
import {
  addressAt,
  FAMILIES,
  LENGTH,
  type MachineName,
  makeCable,
  NET,
  type Net,
  portOf,
  type Uplink,
} from './topology.js';

export interface Settling {
  uplink?: Uplink;
  metric?: number;
  /** default: both */
  families?: readonly Family[];
}

export class Machine {
  readonly lab: TwinsLab;
  readonly name: MachineName;

  constructor(lab: TwinsLab, name: MachineName) {
    this.lab = lab;
    this.name = name;
  }

  /** Its twin runs no tiflow. */
  get hasTiflow(): boolean {
    return this.name === 'host';
  }

  /** Of what each machine has one of its own: 5 or 6. */
  get number(): number {
    return this.hasTiflow ? 5 : 6;
  }

  /** Runs a command to its end; returns its output. Throws LabError if it fails. */
  run(...argv: string[]): string {
    return this.lab.run(this.name, argv);
  }

  /** Whether a command succeeds. */
  try(...argv: string[]): boolean {
    try {
      this.run(...argv);
      return true;
    } catch {
      return false;
    }
  }

  start(what: string, ...argv: string[]): void {
    this.lab.start(this.name, what, argv);
  }

  /** Sends a signal to what was started under that name. */
  signal(what: string, signal: NodeJS.Signals): void {
    for (const { pid } of this.lab.running(this.name, what)) process.kill(pid, signal);
  }

  ip(...lines: string[]): void {
    ipBatch(this.#namespace, lines);
  }

  nft(rules: string): void {
    this.lab.run(this.name, ['nft', '-f', '-'], rules);
  }

  sysctl(settings: Record<string, string>): void {
    writeSysctls(this.#namespace, settings);
  }

  /** Writes a file that only this machine has: below /etc, /run or /var/lib. */
  write(path: string, text: string, mode = 0o644): void {
    const outside = seenFromOutside(this.lab.host(this.name), path);
    mkdirSync(dirname(outside), { recursive: true });
    writeFileSync(outside, text, { mode });
  }

  get #namespace(): string {
    return this.lab.namespaces[this.name];
  }

  address(family: Family, net: Net = 'A', uplink: Uplink = 'eth0'): string {
    return addressAt({ machine: this.name, net, family, uplink });
  }

  /** Puts the far end of an uplink's cable into a switch: the carrier comes up. */
  plug(net: Net, uplink: Uplink = 'eth0'): void {
    const port = portOf(this.name, uplink);
    ipBatch(this.lab.namespaces.router, [
      `link set ${port} master ${NET[net].bridge}`,
      `link set ${port} up`,
    ]);
  }

  /** Pulls it out: the carrier goes down. */
  unplug(uplink: Uplink = 'eth0'): void {
    const port = portOf(this.name, uplink);
    ipBatch(this.lab.namespaces.router, [`link set ${port} down`, `link set ${port} nomaster`]);
  }

  /** A new interface with a cable that is not plugged in. */
  addUplink(uplink: Uplink): void {
    makeCable(this.lab.namespaces, this.name, uplink);
  }

  /** Gives the uplink its addresses at a net and routes by it, by hand. */
  settle(net: Net, { uplink = 'eth0', metric = 100, families = FAMILIES }: Settling = {}): void {
    if (families.includes(6)) this.sysctl({ [`ipv6/conf/${uplink}/accept_ra`]: '0' });
    const { router } = NET[net];
    this.ip(
      ...families.map(
        (f) => `addr replace ${this.address(f, net, uplink)}/${LENGTH[f]} dev ${uplink}`,
      ),
      ...families.map(
        (f) => `route replace default via ${router[f]} dev ${uplink} metric ${metric}`,
      ),
    );
  }

  /** The cable goes to another net, and the addresses with it, by hand. */
  renumber(net: Net, uplink: Uplink = 'eth0'): void {
    this.unplug(uplink);
    this.ip(`addr flush dev ${uplink} scope global`);
    this.plug(net, uplink);
    this.settle(net, { uplink });
  }

  /** Whether one of its links has the address; what tiflow retains may stand on lo. */
  has(address: string): boolean {
    const lines = this.run('ip', '-o', 'addr', 'show', '-tentative').split('\n');
    return lines.some((line) => !/^\d+: lo /.test(line) && line.includes(` ${address}/`));
  }

  /** Waits until it has its addresses of a net, of these families. */
  async settled(net: Net, families: readonly Family[] = FAMILIES): Promise<void> {
    for (const family of families) {
      const address = this.address(family, net);
      await until(`${address} on ${this.name}`, () => this.has(address), SETTLED_BOUND_MS);
      const route = () =>
        this.try('ip', `-${family}`, 'route', 'get', NET[net].router[family]) &&
        this.run('ip', `-${family}`, 'route', 'show', 'default') !== '';
      await until(`a default route on ${this.name}`, route, SETTLED_BOUND_MS);
    }
  }
}

const SETTLED_BOUND_MS = 15_000;
