/**
 * The topology `vm`: real guests on two hypervisors in different subnets.
 *
 *     aramis ──────── router ──┬── athos    br0 192.0.2.1/24     2001:db8:1::1/64
 *     203.0.113.10             │    └─ vnet0 ── vm    (QEMU; DHCP and SLAAC)
 *     2001:db8:a::10           └── porthos  br0 198.51.100.1/24  2001:db8:2::1/64
 *                                   └─ vnet1 ┄┄ vm2   (if wanted)
 *
 * athos and porthos are hypervisors and their subnets' gateways; each has its own mounts
 * (hypervisor.ts), a tiflow daemon, and sshd, so that `ssh porthos tiflow receive` works from
 * athos. The guests are unmodified (image.ts), or have their own tiflow.
 */
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { DaemonHosts } from '../daemon-hosts.js';
import { ipBatch, LabError, namespacePids } from '../namespace.js';
import { seenFromOutside } from '../own-mounts.js';
import { type LabRecord, loadRecord, newRecord } from '../registry.js';
import * as services from '../services.js';
import { ARAMIS, buildSites, type Family, SITE_HOSTS, SITES, type Site } from '../topology.js';
import { until } from '../wait.js';
import { furnish, MANAGEMENT, reservations, vmAddress } from './hypervisor.js';
import { type GuestImage, guestImage } from './image.js';
import { writeInitrd } from './initrd.js';
import { consolePath, MACS, qemu, qmpPath, TAPS, VM_NAMES, type VmName } from './machine.js';
import { runState } from './qmp.js';

export type VmHost = (typeof SITE_HOSTS)[number];
export type VmProtected = 'aramis' | Site;

export interface VmLabOptions {
  /** the guests have their own tiflow; default: they are unmodified */
  tiflowInGuest?: boolean;
  /** hosts that run a tiflow daemon; default: aramis and both hypervisors */
  daemons?: readonly VmProtected[];
  /** of the daemons' configuration files */
  settings?: Record<string, string | number>;
  /** where which VM starts; default: vm on athos */
  vms?: Partial<Record<VmName, Site>>;
  /** a data disk for each VM: on storage that both hypervisors have, or on its own's */
  disk?: 'shared' | 'private';
  /** room for disk images, per hypervisor */
  diskBytes?: Partial<Record<Site, number>>;
  /** arguments at the end of each QEMU's command line */
  qemu?: readonly string[];
}

const DISK_BYTES = 64 << 20;
const ROOM_BYTES = 256 << 20;
const BOOT_BOUND_MS = 60_000;
/** In a guest; asked cheaply first, since Node takes its time without KVM. */
const TIFLOW_READY =
  'test -S /run/tiflow/tiflow.sock && tiflow status --json | grep -q \'"attached":true\'';
const ALL: readonly VmProtected[] = ['aramis', 'athos', 'porthos'];

export class VmLab extends DaemonHosts<VmHost, VmProtected> {
  readonly #o: VmLabOptions;

  private constructor(record: LabRecord, o: VmLabOptions) {
    super(record, o.daemons ?? ALL);
    this.#o = o;
  }

  static prepare(name: string, owned: boolean, o: VmLabOptions): VmLab {
    return new VmLab(newRecord(name, 'vm', SITE_HOSTS, owned), o);
  }

  /** Builds a lab with its VMs booted. Leaves nothing behind if that fails. */
  static async build(name: string, owned: boolean, o: VmLabOptions): Promise<VmLab> {
    const lab = VmLab.prepare(name, owned, o);
    try {
      await lab.build();
    } catch (error) {
      lab.teardown();
      throw error;
    }
    return lab;
  }

  /** A lab that stands already, for a command of the CLI. Throws LabError if it does not. */
  static load(name: string): VmLab {
    return new VmLab(loadRecord(name), {});
  }

  /** Builds what `prepare` has put on record; returns when every guest lets us log in. */
  async build(): Promise<void> {
    const image = guestImage();
    const { directory } = this;
    this.#writeKeys(image);
    buildSites(this.namespaces, { wire: false });
    const room = (site: Site) => this.#o.diskBytes?.[site] ?? ROOM_BYTES;
    await Promise.all(SITES.map((site) => furnish(this.record, this.host(site), room(site))));
    for (const site of SITES) {
      const macs = reservations(site, Object.values(MACS));
      this.start(site, 'dnsmasq', services.dnsmasq(directory, site, macs));
      this.start(site, 'sshd', ['/usr/sbin/sshd', '-D', '-e', '-f', '/etc/ssh/sshd_config']);
    }
    const daemons = this.#o.daemons ?? ALL;
    for (const host of daemons) this.#startDaemon(host);
    await Promise.all(daemons.map((host) => this.watch(host, () => true)));
    await Promise.all(SITES.map((site) => this.#letsIn(site)));
    for (const vm of this.vms) await this.#boot(vm);
    await Promise.all(this.vms.map((vm) => this.#booted(vm)));
  }

  #letsIn(site: Site): Promise<boolean> {
    const listens = () => this.run(site, ['ss', '-Hltn', 'sport = :22']) !== '';
    return until(`sshd of ${site}`, listens);
  }

  get vms(): VmName[] {
    const vms = this.#o.vms ?? { vm: 'athos' };
    return VM_NAMES.filter((vm) => vms[vm] !== undefined);
  }

  /** Where a VM started: the subnet of its inside address. */
  home(vm: VmName): Site {
    return this.#o.vms?.[vm] ?? 'athos';
  }

  #writeKeys(image: GuestImage): void {
    const keys = services.generateKeys(this.directory);
    const read = (name: string) => readFileSync(`${keys}/${name}`, 'utf8');
    const names = Object.entries(MANAGEMENT).flat().join(',');
    writeFileSync(`${keys}/known_hosts`, `${names} ${read('host_key.pub')}`);
    writeInitrd(this.#initrd, image, {
      keys: { hostKey: read('host_key'), userKeyPublic: read('user_key.pub') },
      tiflow: this.#o.tiflowInGuest ?? false,
    });
  }

  get #initrd(): string {
    return `${this.directory}/initrd`;
  }

  #startDaemon(host: VmProtected): void {
    const settings = { log: 'debug', ...this.#o.settings };
    const argv = services.daemon(this.host(host).run_dir, settings, {
      runDir: this.runDirInside(host),
      interfaces: host === 'aramis' ? ['eth0'] : [],
    });
    this.start(host, 'daemon', argv);
  }

  /** Starts the daemon of a host again, as a service manager does; waits for it. */
  async restartDaemon(host: VmProtected): Promise<void> {
    if (this.daemonPid(host) === undefined) this.#startDaemon(host);
    await this.watch(host, () => true);
  }

  /** A daemon's run directory as the host itself calls it. */
  runDirInside(host: VmProtected): string {
    return host === 'aramis' ? this.host(host).run_dir : '/run/tiflow';
  }

  /** Starts a VM where it is at home and lets tiflow have its tap. */
  async #boot(vm: VmName): Promise<void> {
    const site = this.home(vm);
    await this.startQemu(vm, site, this.#o.qemu);
    const daemons = this.#o.daemons ?? ALL;
    if (daemons.includes(site) && !this.#o.tiflowInGuest) this.#registerTap(vm, site);
  }

  /**
   * Starts a QEMU for the VM on a hypervisor and plugs its tap into the bridge. `more`: arguments
   * at the end of its command line.
   */
  async startQemu(vm: VmName, site: Site, more: readonly string[] = []): Promise<void> {
    const disk = this.#makeDisk(vm, site);
    const o = { name: vm, tiflow: this.#o.tiflowInGuest ?? false, initrd: this.#initrd, disk };
    this.start(site, vm, [...qemu(guestImage(), o), ...more]);
    const socket = this.qmpSocket(vm, site);
    await until(`QEMU of ${vm} on ${site}`, () => {
      if (this.running(site, vm).length === 0) throw new LabError(this.#whyEnded(vm, site));
      const links = this.run(site, ['ip', '-o', 'link', 'show', 'type', 'tun']);
      return existsSync(socket) && links.includes(` ${TAPS[vm]}:`);
    });
    // It answers when all of its command line is done.
    await runState(socket);
    ipBatch(this.namespaces[site], [`link set ${TAPS[vm]} master br0`, `link set ${TAPS[vm]} up`]);
  }

  /** Where this process reaches the QMP socket of a VM on a hypervisor. */
  qmpSocket(vm: string, site: Site): string {
    return seenFromOutside(this.host(site), qmpPath(vm));
  }

  #whyEnded(vm: VmName, site: Site): string {
    return `QEMU of ${vm} has ended: ${this.lastLines(site, `${this.directory}/${site}/${vm}.log`)}`;
  }

  #makeDisk(vm: VmName, site: Site): string | undefined {
    const { disk } = this.#o;
    if (disk === undefined) return undefined;
    const path = disk === 'shared' ? `${this.directory}/${vm}.img` : `/var/lib/vm/${vm}.img`;
    this.run(site, ['truncate', '-s', String(DISK_BYTES), path]);
    return path;
  }

  #registerTap(vm: VmName, site: Site): void {
    this.api(site, 'POST', '/v1/taps', { name: TAPS[vm], mac: MACS[vm] });
  }

  /** A request to a hypervisor's daemon, by curl, as an operator's script does it. */
  api(host: VmProtected, method: string, path: string, body?: unknown): unknown {
    const socket = `${this.runDirInside(host)}/tiflow.sock`;
    const curl = ['curl', '-sS', '--fail-with-body', '--unix-socket', socket, '-X', method];
    const json = body === undefined ? [] : ['-H', 'Content-Type: application/json', '-d', '@-'];
    const url = `http://tiflow${path}`;
    const answer = this.run(host, [...curl, ...json, url], body ? JSON.stringify(body) : '');
    return answer === '' ? undefined : JSON.parse(answer);
  }

  async #booted(vm: VmName): Promise<void> {
    const site = this.home(vm);
    const ready = this.#o.tiflowInGuest ? TIFLOW_READY : 'true';
    for (const family of [4, 6] as const) {
      const argv = services.ssh(this.directory, vmAddress(site, MACS[vm], family), ready);
      const answers = () => {
        if (this.running(site, vm).length === 0) throw new LabError(this.#whyEnded(vm, site));
        return this.#succeeds([...argv.slice(0, 1), '-o', 'ConnectTimeout=2', ...argv.slice(1)]);
      };
      await until(`${vm} to be logged in to over IPv${family}`, answers, BOOT_BOUND_MS);
    }
  }

  #succeeds(argv: readonly string[]): boolean {
    try {
      this.run('aramis', argv);
      return true;
    } catch {
      return false;
    }
  }

  /** The address that a VM had where it started: its inside address for ever. */
  vmAddress(family: Family, vm: VmName = 'vm', site = this.home(vm)): string {
    return vmAddress(site, MACS[vm], family);
  }

  address(host: 'aramis', family: Family): string {
    return host === 'aramis' ? ARAMIS[family] : '';
  }

  /** The stock ssh client on aramis, logging in to a VM. */
  logIn(family: Family, command: string, vm: VmName = 'vm'): ChildProcess {
    const argv = services.ssh(this.directory, this.vmAddress(family, vm), command);
    return this.spawn('aramis', 'ssh', argv, ['pipe', 'pipe', 'pipe']);
  }

  /** Runs a command in a guest to its end, by a new login to the given address. */
  inGuest(command: string, address: string): string {
    return this.run('aramis', services.ssh(this.directory, address, command));
  }

  /** Process ids of the QEMUs of a VM on a hypervisor, however they were started. */
  qemus(vm: string, site: Site): number[] {
    return namespacePids(this.namespaces[site]).filter((pid) => {
      const argv = commandLine(pid);
      const named = argv[argv.indexOf('-name') + 1]?.split(',')[0];
      return /qemu-system/.test(argv[0] ?? '') && named?.replace(/^guest=/, '') === vm;
    });
  }

  /** The hypervisors that have a QEMU of the VM. */
  sites(vm: string): Site[] {
    return SITES.filter((site) => this.qemus(vm, site).length > 0);
  }

  /** What each QEMU of the VM is doing: 'running', 'paused', ...; by hypervisor. */
  async states(vm: string): Promise<Partial<Record<Site, string>>> {
    const states: Partial<Record<Site, string>> = {};
    for (const site of this.sites(vm)) {
      states[site] = await runState(this.qmpSocket(vm, site));
    }
    return states;
  }

  /** The hypervisor on which the VM runs. Throws LabError if it is not exactly one. */
  async whereabouts(vm: string): Promise<Site> {
    const states = await this.states(vm);
    const running = SITES.filter((site) => states[site] === 'running');
    const [site] = running;
    if (site !== undefined && running.length === 1) return site;
    throw new LabError(`${vm} runs at ${running.length} places: ${JSON.stringify(states)}`);
  }

  /** A hypervisor that has lost all its cables, as if it had lost power for everybody else. */
  blackhole(site: Site): void {
    ipBatch(this.namespaces[site], ['link set up0 down', 'link set br0 down']);
  }

  override lastWords(): string[] {
    const consoles = SITES.flatMap((site) =>
      this.vms
        .filter((vm) => existsSync(seenFromOutside(this.host(site), consolePath(vm))))
        .flatMap((vm) => this.lastLines(site, consolePath(vm))),
    );
    return [...super.lastWords(), ...consoles];
  }
}

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}
