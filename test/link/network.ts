/*
 * The lab's network for tests of what the kernel and the link layer do: the test itself *is* the
 * VM, its own sockets and netlink are those of the vm's namespace.
 *
 *     aramis ──────── router ──┬── athos    br0 192.0.2.1/24     2001:db8:1::1/64
 *     203.0.113.10             │    └─ vm   (this process)    stranger
 *     2001:db8:a::10           └── porthos  br0 198.51.100.1/24  2001:db8:2::1/64
 *
 * One network per test file: node:test runs each in a process of its own.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import koffi from 'koffi';
import {
  deleteNamespace,
  insideNamespace,
  namespacePath,
  runCommand,
  runInside,
} from '../../src/lab/namespace.js';
import { ownName } from '../../src/lab/own-name.js';
import { dnsmasq } from '../../src/lab/services.js';
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
  type Site,
} from '../../src/lab/topology.js';
import { until } from '../../src/lab/wait.js';
import { checked } from '../../src/libc/errno.js';
import { type Address, address } from '../../src/wire/address.js';

const CLONE_NEWNET = 0x40000000;
const setns = koffi.load('libc.so.6').func('int setns(int fd, int kind)');

const ECHO = fileURLToPath(new URL('./echo.js', import.meta.url));

export const FAR: Record<Family, Address> = { 4: address(ARAMIS[4]), 6: address(ARAMIS[6]) };

/** The static address that the vm has at a site. */
export function vmAddress(site: Site, family: Family): Address {
  return address(family === 4 ? NETWORKS[site].vm4 : NETWORKS[site].vm6);
}

export class Network {
  readonly names: Record<HostName, string>;
  /** A directory for whatever a test's programs write. */
  readonly directory = mkdtempSync(join(tmpdir(), 'tiflow-link-'));
  #home = openSync('/proc/self/ns/net', 'r');
  #children: ChildProcess[] = [];
  #plugged: Site | undefined;
  #closed = false;

  /** Builds the network and enters the vm, which is plugged in nowhere. */
  constructor() {
    this.names = Object.fromEntries(HOSTS.map((host) => [host, ownName(host)])) as Record<
      HostName,
      string
    >;
    process.on('exit', () => this.close());
    buildPaper(this.names, { wire: false });
    this.#enter(openSync(namespacePath(this.names.vm), 'r'));
  }

  /** Plugs the vm's cable in at a site. */
  plug(site: Site): void {
    plugIn(this.names[this.#plugged ?? 'athos'], this.names[site]);
    this.#plugged = site;
  }

  unplug(): void {
    pullOut(this.names[this.#plugged ?? 'athos']);
  }

  /** The vm's static address and default route of a site, both families. */
  configure(site: Site): void {
    const { gateway4, gateway6 } = NETWORKS[site];
    this.ip('vm', [
      `addr add ${vmAddress(site, 4)}/24 dev eth0`,
      `addr add ${vmAddress(site, 6)}/64 dev eth0 nodad`,
      `route replace default via ${gateway4} dev eth0`,
      `route replace default via ${gateway6} dev eth0`,
    ]);
  }

  /** Takes away what `configure` gave; eth0 keeps its link-local address. */
  deconfigure(site: Site): void {
    this.ip('vm', [
      `addr del ${vmAddress(site, 4)}/24 dev eth0`,
      `addr del ${vmAddress(site, 6)}/64 dev eth0`,
      `route del default via ${NETWORKS[site].gateway6} dev eth0`,
    ]);
  }

  /** Everything to the vm's address of one site goes to where the vm is now. */
  redirect(from: Site, to: Site): void {
    const [old4, old6] = [vmAddress(from, 4), vmAddress(from, 6)];
    const link = to === 'athos' ? 1 : 2;
    this.ip('router', [
      `route replace ${old4}/32 via 10.0.${link}.2`,
      `route replace ${old6}/128 via 2001:db8:f${link}::2 dev ${to}0`,
    ]);
    this.ip(to, [
      `route replace ${old4}/32 via ${vmAddress(to, 4)} dev br0`,
      `route replace ${old6}/128 via ${vmAddress(to, 6)} dev br0`,
    ]);
  }

  /** Takes back what `redirect` did. */
  redirectNoMore(from: Site, to: Site): void {
    for (const host of ['router', to] as const) {
      for (const family of [4, 6] as const) {
        this.ip(host, [`route flush exact ${vmAddress(from, family)}`], family);
      }
    }
  }

  /** A stranger at a site who has these addresses of the vm there now. */
  plugStranger(site: Site): void {
    plugStranger(this.names, site, vmAddress(site, 4));
    this.ip('stranger', [
      `addr add ${vmAddress(site, 6)}/64 dev eth0 nodad`,
      `route add default via ${NETWORKS[site].gateway6} dev eth0`,
    ]);
  }

  /** Whether a new TCP connection comes about within a second. */
  connects(host: HostName, to: Address, port: number): boolean {
    try {
      this.run(host, 'timeout', '1', 'bash', '-c', `exec 3<>/dev/tcp/${to}/${port}`);
      return true;
    } catch {
      return false;
    }
  }

  /** Waits until the far end's echo server answers, so that addresses are resolved all the way. */
  async reaches(family: Family, port: number): Promise<void> {
    await until('the far end', () => this.connects('vm', FAR[family], port));
  }

  /** What comes to the vm's eth0 for its address at a site gets this mark; undefined: none. */
  markFor(site: Site, mark: number | undefined): void {
    const nft = (...commands: string[]) => this.run('vm', 'nft', commands.join('; '));
    nft('add table inet marks', 'delete table inet marks');
    if (mark === undefined) return;
    nft(
      'add table inet marks',
      'add chain inet marks in { type filter hook prerouting priority raw; }',
      `add rule inet marks in iifname eth0 ip daddr ${vmAddress(site, 4)} meta mark set ${mark}`,
      `add rule inet marks in iifname eth0 ip6 daddr ${vmAddress(site, 6)} meta mark set ${mark}`,
    );
  }

  /** Lines for ip(8).  `family`: for lines in which nothing tells it. */
  ip(host: HostName, lines: readonly string[], family?: Family): void {
    const option = family === undefined ? [] : [`-${family}`];
    runCommand(['ip', ...option, '-n', this.names[host], '-batch', '-'], `${lines.join('\n')}\n`);
  }

  run(host: HostName, ...argv: string[]): string {
    return runInside(this.names[host], argv);
  }

  /** Starts a program that runs until the end of the test, or until it is ended. */
  start(host: HostName, ...argv: string[]): ChildProcess {
    const [program = '', ...rest] = insideNamespace(this.names[host], argv);
    const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#children.push(child);
    return child;
  }

  /** What `open` returns, with the sockets that it opens being those of another host. */
  inside<T>(host: HostName, open: () => T): T {
    this.#enter(openSync(namespacePath(this.names[host]), 'r'));
    try {
      return open();
    } finally {
      this.#enter(openSync(namespacePath(this.names.vm), 'r'));
    }
  }

  /** An echo server for both families; resolves when it listens. */
  async echo(host: HostName, port: number): Promise<ChildProcess> {
    const server = this.start(host, process.execPath, ECHO, String(port));
    if (server.stdout === null) throw new Error('no pipe');
    await once(server.stdout, 'data');
    return server;
  }

  /** The lab's DHCP server and router advertisements of a site. */
  async dnsmasq(site: Site): Promise<ChildProcess> {
    runCommand(['mkdir', '-p', join(this.directory, site)]);
    const server = this.start(site, ...dnsmasq(this.directory, site));
    await until('dnsmasq to answer', () =>
      this.run(site, 'ss', '-Hlun', 'sport = :67').includes(':67'),
    );
    return server;
  }

  /** Removes everything; runs on any exit. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#enter(this.#home);
    for (const child of this.#children) child.kill('SIGKILL');
    for (const host of HOSTS) deleteNamespace(this.names[host]);
    rmSync(this.directory, { recursive: true, force: true });
  }

  #enter(namespace: number): void {
    checked(setns(namespace, CLONE_NEWNET), 'enter a network namespace');
    closeSync(namespace);
  }
}

/** Ends a child and waits for it. */
export async function end(child: ChildProcess, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill(signal);
  await exit;
}
