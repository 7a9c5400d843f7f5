/* Two hypervisors on one machine: a network namespace each, and a run directory each.
 *
 *   athos                                   porthos
 *     br0 ── vnet0 ── QEMU (tcg, no OS)       br0
 *     daemon made of answers                  daemon made of answers
 *     tiflow migrate  ── "ssh": nsenter ──►   tiflow receive
 *
 * They share files and processes, so a QMP path is taken at porthos, and disks are copied into
 * another directory.
 */

import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { ownName } from '../../src/lab/own-name.js';
import { endProcess, markOf, type ProcessMark } from '../../src/migrate/process-mark.js';
import { Qmp } from '../../src/migrate/qmp.js';
import { type FakeVmDaemon, fakeVmDaemon } from './fake-vm-daemon.js';
import { FLOW, RealVmDaemon } from './real-vm-daemon.js';

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const BOUND_MS = 30_000;
/** Nobody works on it any more. */
const OVER_MS = 1_000;

export interface Host {
  namespace: string;
  runDir: string;
  stateDir: string;
  /** Commands that make its view of the file system: a boot id, devices that it has not. */
  mounts: string[];
  daemon: FakeVmDaemon;
}

export interface Line {
  stage?: string;
  event: string;
  message?: string;
  [key: string]: unknown;
}

export class TwoHosts {
  readonly directory: string;
  athos: Host;
  porthos: Host;
  readonly qmpPath: string;
  readonly disk: string;
  vm: ProcessMark | undefined;
  readonly #devices: string[] = [];

  private constructor(directory: string, hosts: { athos: Host; porthos: Host }) {
    this.directory = directory;
    this.athos = hosts.athos;
    this.porthos = hosts.porthos;
    this.qmpPath = join(directory, 'vm.qmp');
    this.disk = join(directory, 'disk.img');
  }

  static async up(t: TestContext, o: { daemons?: 'real' } = {}): Promise<TwoHosts> {
    const directory = mkdtempSync(join(tmpdir(), ownName('')));
    const athos = await host(t, directory, 'athos');
    const porthos = await host(t, directory, 'porthos');
    const hosts = new TwoHosts(directory, { athos, porthos });
    t.after(() => hosts.#end());
    const starting = (o.daemons === 'real' ? [athos, porthos] : []).map(async (at) => {
      at.daemon.real = await RealVmDaemon.start(at);
    });
    await Promise.all(starting);
    hosts.#scripts();
    execFileSync('qemu-img', ['create', '-q', '-f', 'raw', hosts.disk, '16M']);
    mkdirSync(hosts.copies);
    return hosts;
  }

  /** Where copied disks go. */
  get copies(): string {
    return join(this.directory, 'copies');
  }

  get runsOn(): string {
    return join(this.directory, 'tiflow-there');
  }

  /** Starts the VM on athos; its BIOS runs, and finds nothing to boot. */
  async startVm(extra: string[] = []): Promise<void> {
    const argv = [
      ...['-accel', 'tcg', '-machine', 'pc', '-m', '64', '-display', 'none', '-nodefaults'],
      ...['-name', 'vm', '-qmp', `unix:${this.qmpPath},server=on,wait=off`],
      ...['-netdev', 'tap,id=net0,ifname=vnet0,script=no,downscript=no'],
      ...['-device', 'virtio-net-pci,netdev=net0,mac=52:54:00:00:00:0a'],
      ...['-drive', `file=${this.disk},format=raw,if=none,id=disk0`],
      ...['-device', 'virtio-blk-pci,drive=disk0', ...extra],
    ];
    const child = this.#in(this.athos, ['qemu-system-x86_64', ...argv], 'inherit');
    await until('QMP of the VM', async () => (await this.statusOf(this.qmpPath)) === 'running');
    this.vm = markOf(child.pid ?? 0);
    execFileSync('ip', ['-n', this.athos.namespace, 'link', 'set', 'vnet0', 'master', 'br0', 'up']);
    const { daemon } = this.athos;
    if (daemon.real === undefined) daemon.taps.push('vnet0');
    else await daemon.real.takeIn('vnet0');
  }

  /** `tiflow migrate vm --to porthos` on athos. */
  migrate(...options: string[]): Run {
    const argv = [process.execPath, MAIN, 'migrate', ...(options[0] === '--recover' ? [] : ['vm'])];
    const words = [...argv, '--run-dir', this.athos.runDir, '--state-dir', this.athos.stateDir];
    if (options[0] !== '--recover') {
      words.push('--to', 'porthos', '--rsh', join(this.directory, 'rsh'));
      words.push('--remote-tiflow', this.runsOn, '--json');
    }
    words.push(...options);
    return new Run(this.#in(this.athos, words, 'pipe'));
  }

  /** A cable between the two, for --direct. */
  connect(): void {
    const [a, p] = [this.athos.namespace, this.porthos.namespace];
    const ip = (line: string) => execFileSync('ip', line.split(' '));
    ip(`-n ${a} link add cable type veth peer name cable netns ${p}`);
    ip(`-n ${a} address add 192.168.77.1/24 dev cable`);
    ip(`-n ${p} address add 192.168.77.2/24 dev cable`);
    for (const namespace of [a, p]) ip(`-n ${namespace} link set cable up`);
  }

  /** From now on the VM is to move in the other direction. */
  swap(): void {
    [this.athos, this.porthos] = [this.porthos, this.athos];
    this.#scripts();
  }

  /**
   * All its processes end, its run directory is as empty as a tmpfs, and it has a new boot id; its
   * disks and its state directory are as they were.
   */
  async reboot(at: 'athos' | 'porthos'): Promise<void> {
    const host = this[at];
    for (const mark of this.find(host)) await endProcess(mark);
    for (const name of readdirSync(host.runDir)) {
      if (name !== 'tiflow.sock') rmSync(join(host.runDir, name), { recursive: true });
    }
    host.daemon.taps = [];
    const bootId = join(this.directory, `${at}.boot-id`);
    writeFileSync(bootId, `${randomUUID()}\n`);
    host.mounts.push(`mount --bind ${bootId} /proc/sys/kernel/random/boot_id`);
    this.#scripts();
  }

  /** A character device that only athos has. */
  deviceOnAthos(): string {
    const directory = join('/dev', basename(this.directory));
    mkdirSync(directory);
    this.#devices.push(directory);
    const path = join(directory, 'rng');
    execFileSync('mknod', [path, 'c', '1', '9']); // Documentation/admin-guide/devices.txt: urandom
    this.porthos.mounts.push(`mount -t tmpfs none ${directory}`);
    this.#scripts();
    return path;
  }

  /** What a host has written down of the migration; undefined: nothing. */
  journal(at: 'athos' | 'porthos'): { path: string; phase: string } | undefined {
    const directory = join(this[at].stateDir, 'migrations');
    const names = existsSync(directory) ? readdirSync(directory) : [];
    const name = names.find((each) => each.endsWith('.json'));
    if (name === undefined) return undefined;
    const path = join(directory, name);
    const { phase } = JSON.parse(readFileSync(path, 'utf8')) as { phase: string };
    return { path, phase };
  }

  /** Processes whose command line has all of these words, in a host's namespace. */
  find(at: Host, ...words: string[]): ProcessMark[] {
    const here = execFileSync('ip', ['netns', 'pids', at.namespace], { encoding: 'utf8' });
    return here.split('\n').flatMap((text) => {
      const pid = Number(text);
      if (pid === 0) return [];
      const line = commandLine(pid);
      return words.every((word) => line.includes(word)) ? (markOf(pid) ?? []) : [];
    });
  }

  /** "running", "paused", ...; undefined: there is no QEMU. */
  async statusOf(path: string): Promise<string | undefined> {
    try {
      const qmp = await Qmp.connect(path);
      const { status } = await qmp.execute<{ status: string }>('query-status');
      qmp.close();
      return status;
    } catch {
      return undefined;
    }
  }

  /** QMP sockets of QEMUs on both hosts, by host. */
  async statuses(): Promise<{ athos: (string | undefined)[]; porthos: (string | undefined)[] }> {
    const statuses = (at: Host) =>
      Promise.all(
        this.find(at, 'qemu-system', '-name').map(({ pid }) =>
          this.statusOf(/unix:([^,\0]+)/.exec(commandLine(pid))?.[1] ?? ''),
        ),
      );
    return { athos: await statuses(this.athos), porthos: await statuses(this.porthos) };
  }

  /** A daemon has been asked this; `call` as in FakeVmDaemon.hold. */
  async isAsked(at: 'athos' | 'porthos', call: string): Promise<void> {
    const { calls } = this[at].daemon;
    await until(`${call} at ${at}`, () =>
      calls.some((each) => each.startsWith(`${call} `) || each.endsWith(`/${call}`)),
    );
  }

  commandLine(pid: number): string {
    return commandLine(pid);
  }

  /** What guards and QEMUs have written. */
  logs(): string {
    return [this.athos, this.porthos]
      .flatMap(({ runDir }) =>
        readdirSync(runDir)
          .filter((name) => name.endsWith('.log'))
          .map((name) => `${name}: ${readFileSync(join(runDir, name), 'utf8')}`),
      )
      .join('\n');
  }

  /** Where QEMUs are: "athos", "porthos", or neither. */
  async whereItRuns(): Promise<string> {
    const all = await this.statuses();
    const hosts = (['athos', 'porthos'] as const).filter((at) => all[at].includes('running'));
    return hosts.join(' and ') || 'nowhere';
  }

  /** Nobody works on it any more, and no journal or socket is left.  `told`: of who worked on it. */
  async assertOver(told = ''): Promise<void> {
    await until('no tiflow', () => this.#tiflows().length === 0);
    await until('no journal, no socket', () => this.#leftovers().length === 0, OVER_MS).catch(() =>
      assert.deepEqual(this.#leftovers(), [], `${told}\n${this.logs()}`),
    );
  }

  /** The VM runs at exactly one place, and nothing is left at the other. */
  async assertRunsOnlyOn(where: 'athos' | 'porthos'): Promise<void> {
    const other = where === 'athos' ? this.porthos : this.athos;
    await until(`nothing of the VM on the other host than ${where}`, async () => {
      const all = await this.statuses();
      const elsewhere = where === 'athos' ? all.porthos : all.athos;
      return all[where].join() === 'running' && elsewhere.length === 0;
    }).catch(async (error: Error) => {
      assert.fail(`${error.message}: ${JSON.stringify(await this.statuses())}`);
    });
    await this.assertOver();
    assert.deepEqual(other.daemon.taps, [], 'taps of the other daemon');
    const at = where === 'athos' ? this.athos : this.porthos;
    if (at.daemon.real !== undefined) await this.#assertFlowsOn(at.daemon.real, other.daemon.real);
    const links = execFileSync('ip', ['-n', other.namespace, '-o', 'link'], { encoding: 'utf8' });
    assert.doesNotMatch(links, /vnet/);
  }

  /** Its connections are where it runs, and nowhere else. */
  async #assertFlowsOn(here: RealVmDaemon, there: RealVmDaemon | undefined): Promise<void> {
    let seen: string[][] = [];
    await until('the flows are where the VM is', async () => {
      seen = [await here.flows(), (await there?.flows()) ?? [], (await there?.taps()) ?? []];
      return isDeepStrictEqual(seen, [[FLOW], [], []]);
    }).catch((error: Error) => assert.fail(`${error.message}: ${JSON.stringify(seen)}`));
  }

  #tiflows(): ProcessMark[] {
    const all = [this.athos, this.porthos].flatMap((at) => this.find(at, MAIN));
    return all.filter(({ pid }) => !/\0daemon\0/.test(commandLine(pid)));
  }

  #leftovers(): string[] {
    const hosts = [this.athos, this.porthos];
    const paths = hosts.flatMap((at) => [at.runDir, at.stateDir].map((d) => join(d, 'migrations')));
    return paths.flatMap((path) =>
      existsSync(path) ? readdirSync(path).map((name) => join(path, name)) : [],
    );
  }

  #in(at: Host, words: string[], stdio: 'pipe' | 'inherit'): ChildProcess {
    const [program = '', ...argv] = [...inside(at), ...words];
    return spawn(program, argv, {
      stdio: ['ignore', stdio === 'pipe' ? 'pipe' : 'ignore', stdio],
    });
  }

  #scripts(): void {
    const there = inside(this.porthos).map(quoted).join(' ');
    script(join(this.directory, 'rsh'), `shift; exec ${there} sh -c "$*"`);
    // With something in between that can be killed: the network.
    script(join(this.directory, 'rsh-cut'), `shift; cat | ${there} sh -c "$*" | cat`);
    const receive = `${process.execPath} ${MAIN} "$@" --run-dir ${this.porthos.runDir} --state-dir ${this.porthos.stateDir}`;
    script(this.runsOn, `exec ${receive}`);
  }

  async #end(): Promise<void> {
    for (const at of [this.athos, this.porthos]) {
      for (const mark of this.find(at)) await endProcess(mark);
      at.daemon.real?.remove();
      execFileSync('ip', ['netns', 'del', at.namespace]);
    }
    for (const path of [this.directory, ...this.#devices]) {
      rmSync(path, { recursive: true, force: true });
    }
  }
}

/** A running `tiflow migrate --json`. */
export class Run {
  readonly lines: Line[] = [];
  stdout = '';
  stderr = '';
  readonly #child: ChildProcess;
  readonly #closed: Promise<unknown>;
  readonly #watchers = new Set<() => void>();

  constructor(child: ChildProcess) {
    this.#child = child;
    this.#closed = once(child, 'close');
    let partial = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
      const lines = (partial + text).split('\n');
      partial = lines.pop() ?? '';
      for (const line of lines) if (line.startsWith('{')) this.lines.push(JSON.parse(line));
      for (const watcher of this.#watchers) watcher();
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Returns at once when the line is there. */
  async reaches(stage: string, event: string): Promise<void> {
    const isThere = () =>
      this.lines.some((line) => line.stage === stage && line.event === event) ? true : undefined;
    if (isThere()) return;
    await new Promise<void>((resolve, reject) => {
      const watcher = () => {
        if (isThere() === undefined) return;
        this.#watchers.delete(watcher);
        resolve();
      };
      this.#watchers.add(watcher);
      void this.#closed.then(() => reject(new Error(`never ${stage} ${event}: ${this.told}`)));
    });
  }

  get told(): string {
    return `${this.stdout}\n${this.stderr}`;
  }

  async end(): Promise<{ exit: number | null; last: Line }> {
    await Promise.race([this.#closed, delay(2 * BOUND_MS, undefined, { ref: false })]);
    const exit = this.#child.exitCode;
    return { exit, last: this.lines.at(-1) ?? { event: 'none', message: this.told } };
  }
}

async function host(t: TestContext, directory: string, name: string): Promise<Host> {
  const namespace = ownName(`${name}-${Math.random().toString(36).slice(2, 6)}`);
  const runDir = join(directory, name);
  execFileSync('ip', ['netns', 'add', namespace]);
  const ip = (line: string) => execFileSync('ip', ['-n', namespace, ...line.split(' ')]);
  ip('link set lo up');
  ip('link add br0 type bridge');
  ip('link set br0 up');
  const stateDir = join(directory, `${name}.state`);
  const daemon = await fakeVmDaemon(t, runDir);
  return { namespace, runDir, stateDir, mounts: [], daemon };
}

/* Runs a command on a host. */
function inside({ namespace, mounts }: Host): string[] {
  const there = ['nsenter', `--net=/run/netns/${namespace}`, '--'];
  if (mounts.length === 0) return there;
  const view = [...mounts, 'exec "$@"'].join(' && ');
  return [...there, 'unshare', '--mount', 'sh', '-c', view, 'sh'];
}

const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

function script(path: string, text: string): void {
  writeFileSync(path, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}

export async function until(
  what: string,
  probe: () => boolean | Promise<boolean>,
  boundMs = BOUND_MS,
): Promise<void> {
  const deadline = performance.now() + boundMs;
  while (!(await probe())) {
    if (performance.now() > deadline) throw new Error(`waited ${boundMs} ms in vain for ${what}`);
    await delay(20);
  }
}
