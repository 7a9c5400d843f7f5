/*
 * A VM's cable with real ends: a guest in a namespace, a real DHCP server and router at each
 * of two sites, and this process as the hypervisor between them.
 *
 *   guest            this process                        athos    192.0.2.1/24     2001:db8:1::1/64
 *   eth0 ────── tap ── packet socket ── packet socket ─┬─ br0  dnsmasq
 *   02:…:0a            GuestCare          uplink       └─ porthos 198.51.100.1/24  2001:db8:2::1/64
 *                                                         br0 ── stranger
 *
 * The process is also the data plane, as far as these tests need it: at home everything passes
 * and DHCP is copied to the care; away only the care hears DHCP and discovery, and ARP for the
 * outside address is answered.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GuestCare, type GuestCareOptions } from '../../src/guest/guest-care.js';
import type { GuestPacket } from '../../src/guest/port.js';
import {
  createNamespace,
  deleteNamespace,
  insideNamespace,
  ipBatch,
  runInside,
} from '../../src/lab/namespace.js';
import { ownName } from '../../src/lab/own-name.js';
import { until } from '../../src/lab/wait.js';
import { Poller } from '../../src/libc/poller.js';
import {
  AF_PACKET,
  bindSocket,
  closeFd,
  interfaceIndex,
  openSocket,
  packetSockaddr,
  receive,
  SOCK_RAW,
  sendTo,
} from '../../src/libc/socket.js';
import type { Address } from '../../src/wire/address.js';
import { decodeArp, encodeArp } from '../../src/wire/arp.js';
import { decodeDhcp } from '../../src/wire/dhcp.js';
import {
  decodeFrame,
  ETHERTYPE,
  encodeFrame,
  type Frame,
  type Mac,
  mac,
} from '../../src/wire/ethernet.js';
import { decodeNeighbour } from '../../src/wire/neighbour.js';
import { ownNetwork, run } from '../libc/own-network.js';

export const GUEST_MAC = mac('02:00:00:00:00:0a');
export const STAND_IN = mac('02:ff:00:00:00:01');
const ETH_P_ALL = 3;
const FRAME_MAX = 65_536;

export type Site = 'athos' | 'porthos';
const SITES: Record<Site, { prefix4: string; prefix6: string }> = {
  athos: { prefix4: '192.0.2', prefix6: '2001:db8:1:' },
  porthos: { prefix4: '198.51.100', prefix6: '2001:db8:2:' },
};

const clock = {
  now: () => performance.now(),
  setTimer: (ms: number, f: () => void): unknown => setTimeout(f, ms),
  clearTimer: (timer: unknown) => clearTimeout(timer as NodeJS.Timeout),
};

export class Cable {
  readonly directory = mkdtempSync(join(tmpdir(), 'tiflow-guest-'));
  readonly told: string[] = [];
  care: GuestCare;
  #poller = new Poller();
  #children: ChildProcess[] = [];
  #tap: Port;
  #uplinks: Record<Site, Port>;
  #site: Site = 'athos';
  /** Nothing passes: the guest hears its stand-in only. */
  #away = false;
  #closed = false;

  constructor() {
    process.on('exit', () => this.close());
    ownNetwork();
    for (const host of ['guest', 'athos', 'porthos', 'stranger']) createNamespace(name(host));
    this.#plug('tap', 'guest', 'eth0');
    ipBatch(name('guest'), [`link set eth0 address ${GUEST_MAC}`, 'link set eth0 up']);
    for (const site of ['athos', 'porthos'] as const) this.#build(site);
    this.#tap = this.#open('tap', (frame) => this.#fromGuest(frame));
    this.#uplinks = {
      athos: this.#open('athos', (frame) => this.#fromNetwork('athos', frame)),
      porthos: this.#open('porthos', (frame) => this.#fromNetwork('porthos', frame)),
    };
    this.care = this.newCare();
  }

  /** Of another hypervisor, to which the cable belongs from now on. */
  newCare(): GuestCare {
    const options: GuestCareOptions = {
      clock,
      random: () => Math.floor(Math.random() * 2 ** 32),
      mac: GUEST_MAC,
      standIn: STAND_IN,
      port: {
        toNetwork: (frame) => this.#uplinks[this.#site].send(frame),
        toGuest: (frame) => this.#tap.send(frame),
      },
      onOutside: ({ outside4 }) => this.told.push(`outside ${outside4?.address}`),
      onLost: (address, why) => this.told.push(`lost ${address} ${why}`),
    };
    return new GuestCare(options);
  }

  /** The VM is at this site now, its addresses are inside ones. */
  move(site: Site, o: { away: boolean }): void {
    this.#site = site;
    this.#away = o.away;
  }

  /** dnsmasq of a site; what it logs is in `log`. */
  async serve(site: Site, ...options: string[]): Promise<ChildProcess> {
    const { prefix4, prefix6 } = SITES[site];
    mkdirSync(join(this.directory, site), { recursive: true });
    rmSync(join(this.directory, site, 'log'), { force: true });
    const child = this.start(
      site,
      ...['dnsmasq', '--conf-file=/dev/null', '--keep-in-foreground', '--user=root', '--port=0'],
      ...['--interface=br0', '--bind-interfaces', '--dhcp-authoritative', '--no-ping'],
      ...[`--pid-file=${this.directory}/${site}/pid`, '--log-dhcp'],
      `--dhcp-leasefile=${this.leases(site)}`,
      `--log-facility=${this.directory}/${site}/log`,
      `--dhcp-option=option:router,${prefix4}.1`,
      '--enable-ra',
      `--dhcp-range=${prefix6}:,ra-only,64,2h`,
      '--ra-param=br0,high,4,1800',
      ...options,
    );
    await until('dnsmasq', () => this.run(site, 'ss', '-Hlun', 'sport = :67').includes(':67'));
    return child;
  }

  leases = (site: Site): string => join(this.directory, site, 'leases');

  /** How often the server of a site has logged this. */
  logged(site: Site, what: RegExp): number {
    const log = readFileSync(join(this.directory, site, 'log'), 'utf8');
    return log.split('\n').filter((line) => what.test(line)).length;
  }

  script(file: string, text: string): string {
    const path = join(this.directory, file);
    writeFileSync(path, text);
    chmodSync(path, 0o755);
    return path;
  }

  run = (host: string, ...argv: string[]): string => runInside(name(host), argv);

  start(host: string, ...argv: string[]): ChildProcess {
    const [program = '', ...rest] = insideNamespace(name(host), argv);
    const child = spawn(program, rest, { stdio: ['ignore', 'ignore', 'inherit'] });
    this.#children.push(child);
    return child;
  }

  /** Another host at porthos. */
  giveStranger(address: string): void {
    ipBatch(name('stranger'), [`addr add ${address} dev eth0`]);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.care.close();
    this.#poller.close();
    for (const child of this.#children) child.kill('SIGKILL');
    for (const port of [this.#tap, this.#uplinks.athos, this.#uplinks.porthos]) port.close();
    for (const host of ['guest', 'athos', 'porthos', 'stranger']) deleteNamespace(name(host));
    rmSync(this.directory, { recursive: true, force: true });
  }

  #plug(here: string, host: string, there: string): void {
    run('ip', 'link', 'add', here, 'type', 'veth', 'peer', 'name', there, 'netns', name(host));
    // The hypervisor's own stack has nothing to say on the cable.
    run('sysctl', '-qw', `net.ipv6.conf.${here}.disable_ipv6=1`);
    run('ip', 'link', 'set', here, 'up');
  }

  #build(site: Site): void {
    const { prefix4, prefix6 } = SITES[site];
    const ns = name(site);
    this.#plug(site, site, 'port0');
    const settings = ['net.ipv6.conf.all.forwarding=1', 'net.ipv6.conf.default.accept_dad=0'];
    runInside(ns, ['sysctl', '-qw', ...settings]);
    ipBatch(ns, ['link add br0 type bridge forward_delay 0', 'link set port0 master br0 up']);
    ipBatch(ns, [
      `addr add ${prefix4}.1/24 dev br0`,
      `addr add ${prefix6}:1/64 dev br0 nodad`,
      'link set br0 up',
    ]);
    if (site === 'athos') return;
    ipBatch(ns, [`link add port1 type veth peer name eth0 netns ${name('stranger')}`]);
    ipBatch(ns, ['link set port1 master br0 up']);
    ipBatch(name('stranger'), ['link set eth0 up']);
  }

  #open(device: string, onFrame: (bytes: Uint8Array) => void): Port {
    return new Port(device, this.#poller, onFrame);
  }

  #fromGuest(bytes: Uint8Array): void {
    const handed = handedUp(bytes, 'guest');
    if (handed !== undefined) this.care.packet(handed);
    if (!this.#away) this.#uplinks[this.#site].send(passed(bytes));
    else answerArp(bytes, STAND_IN, this.#tap, () => true);
  }

  #fromNetwork(site: Site, bytes: Uint8Array): void {
    if (site !== this.#site) return;
    const handed = handedUp(bytes, 'network');
    if (handed !== undefined) this.care.packet(handed);
    const outside = this.care.outside?.outside4?.address;
    answerArp(bytes, GUEST_MAC, this.#uplinks[site], (target) => target === outside);
    if (!this.#away) this.#tap.send(passed(bytes));
  }
}

/* As the data plane does, for the outside address and for all that the guest asks for. */
function answerArp(bytes: Uint8Array, own: Mac, to: Port, isOurs: (a: Address) => boolean): void {
  const frame = decodeFrame(bytes) as Frame;
  const arp = frame.etherType === ETHERTYPE.ARP ? decodeArp(frame.payload) : { error: '' };
  if ('error' in arp || arp.operation !== 'request' || arp.sender === '0.0.0.0') return;
  if (!isOurs(arp.target)) return;
  const { target, sender, senderMac } = arp;
  const reply = { operation: 'reply' as const, senderMac: own, sender: target };
  const payload = encodeArp({ ...reply, targetMac: senderMac, target: sender });
  const ends = { source: own, destination: senderMac };
  to.send(encodeFrame({ ...ends, etherType: ETHERTYPE.ARP, payload }));
}

const name = ownName;

/** What the data plane hands to the daemon. */
function handedUp(bytes: Uint8Array, from: GuestPacket['from']): GuestPacket | undefined {
  const frame = decodeFrame(bytes);
  if ('error' in frame) return undefined;
  const { etherType, payload: packet } = frame;
  const relevant =
    (etherType === ETHERTYPE.ARP && from === 'network') ||
    (etherType === ETHERTYPE.IPV4 && !('error' in decodeDhcp(packet))) ||
    (etherType === ETHERTYPE.IPV6 && !('error' in decodeNeighbour(packet)));
  return relevant ? { etherType, from, packet } : undefined;
}

/* A checksum that the hardware would have completed does not get through a packet socket: RFC 768 has
 * 0 for none.
 */
function passed(bytes: Uint8Array): Uint8Array {
  const frame = decodeFrame(bytes) as Frame;
  if (frame.etherType !== ETHERTYPE.IPV4 || 'error' in decodeDhcp(frame.payload)) return bytes;
  const at = 14 + (((frame.payload[0] ?? 0) & 0x0f) << 2) + 6;
  return bytes.slice().fill(0, at, at + 2);
}

/** A network device as a packet socket: all frames that come, and none that we send. */
class Port {
  #fd: number;
  #to: Uint8Array;

  constructor(
    device: string,
    private readonly poller: Poller,
    onFrame: (bytes: Uint8Array) => void,
  ) {
    const index = interfaceIndex(device) ?? 0;
    this.#to = packetSockaddr(index, ETH_P_ALL);
    this.#fd = openSocket(AF_PACKET, SOCK_RAW, 0);
    bindSocket(this.#fd, this.#to);
    const buffer = new Uint8Array(FRAME_MAX);
    poller.add(this.#fd, () => {
      for (let length = receive(this.#fd, buffer); length >= 0; ) {
        onFrame(buffer.slice(0, length));
        length = receive(this.#fd, buffer);
      }
    });
  }

  send(frame: Uint8Array): void {
    sendTo(this.#fd, frame, this.#to);
  }

  close(): void {
    this.poller.remove(this.#fd);
    closeFd(this.#fd);
  }
}
