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
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { endProcess, isAlive, markOf, type ProcessMark } from '../../src/migrate/process-mark.js';
import { Qmp } from '../../src/migrate/qmp.js';
import { temporaryDirectory } from '../daemon/temporary.js';
import { type FakeVmDaemon, fakeVmDaemon } from './fake-vm-daemon.js';

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const BOUND_MS = 30_000;

export interface Host {
  namespace: string;
  runDir: string;
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
  readonly athos: Host;
  readonly porthos: Host;
  readonly qmpPath: string;
  readonly disk: string;
  vm: ProcessMark | undefined;

  private constructor(t: TestContext, directory: string, hosts: { athos: Host; porthos: Host }) {
    this.#t = t;
    this.directory = directory;
    this.athos = hosts.athos;
    this.porthos = hosts.porthos;
    this.qmpPath = join(directory, 'vm.qmp');
    this.disk = join(directory, 'disk.img');
  }

  static async up(t: TestContext): Promise<TwoHosts> {
    const directory = temporaryDirectory(t);
    const athos = await host(t, directory, 'athos');
    const porthos = await host(t, directory, 'porthos');
    const hosts = new TwoHosts(t, directory, { athos, porthos });
    t.after(() => hosts.#end());
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
    await until('QMP of the VM', () => existsSync(this.qmpPath));
    this.vm = markOf(child.pid ?? 0);
    assert.equal(await this.statusOf(this.qmpPath), 'running');
    execFileSync('ip', ['-n', this.athos.namespace, 'link', 'set', 'vnet0', 'master', 'br0', 'up']);
    this.athos.daemon.taps.push('vnet0');
  }

  /** `tiflow migrate vm --to porthos` on athos. */
  migrate(...options: string[]): Run {
    const argv = [process.execPath, MAIN, 'migrate', ...(options[0] === '--recover' ? [] : ['vm'])];
    const words = [...argv, '--run-dir', this.athos.runDir, ...options];
    if (options[0] !== '--recover') {
      words.push('--to', 'porthos', '--rsh', join(this.directory, 'rsh'));
      words.push('--remote-tiflow', this.runsOn, '--json');
    }
    return new Run(this.#in(this.athos, words, 'pipe'));
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
  async copies_(): Promise<{ athos: (string | undefined)[]; porthos: (string | undefined)[] }> {
    const statuses = (at: Host) =>
      Promise.all(
        this.find(at, 'qemu-system', '-name').map(({ pid }) =>
          this.statusOf(/unix:([^,\0]+)/.exec(commandLine(pid))?.[1] ?? ''),
        ),
      );
    return { athos: await statuses(this.athos), porthos: await statuses(this.porthos) };
  }

  /** The VM runs at exactly one place, and nothing is left at the other. */
  async assertRunsOnlyOn(where: 'athos' | 'porthos'): Promise<void> {
    const other = where === 'athos' ? this.porthos : this.athos;
    await until(`nothing of the VM on the other host than ${where}`, async () => {
      const all = await this.copies_();
      const elsewhere = where === 'athos' ? all.porthos : all.athos;
      return all[where].join() === 'running' && elsewhere.length === 0;
    }).catch(async (error: Error) => {
      assert.fail(`${error.message}: ${JSON.stringify(await this.copies_())}`);
    });
    await until('no tiflow', () => this.#tiflows().length === 0);
    await until('no journal, no socket', () => this.#leftovers().length === 0).catch(() =>
      assert.deepEqual(this.#leftovers(), []),
    );
    assert.deepEqual(other.daemon.taps, [], 'taps of the other daemon');
    const links = execFileSync('ip', ['-n', other.namespace, '-o', 'link'], { encoding: 'utf8' });
    assert.doesNotMatch(links, /vnet/);
  }

  #tiflows(): ProcessMark[] {
    return [this.athos, this.porthos].flatMap((at) => this.find(at, MAIN));
  }

  #leftovers(): string[] {
    return [this.athos, this.porthos].flatMap(({ runDir }) => {
      const path = join(runDir, 'migrations');
      return existsSync(path) ? readdirSync(path).map((name) => join(path, name)) : [];
    });
  }

  #in(at: Host, words: string[], stdio: 'pipe' | 'inherit'): ChildProcess {
    return spawn('nsenter', [`--net=/run/netns/${at.namespace}`, '--', ...words], {
      stdio: ['ignore', stdio === 'pipe' ? 'pipe' : 'ignore', stdio],
    });
  }

  #scripts(): void {
    const there = `nsenter --net=/run/netns/${this.porthos.namespace} --`;
    script(join(this.directory, 'rsh'), `shift; exec ${there} sh -c "$*"`);
    const receive = `${process.execPath} ${MAIN} "$@" --run-dir ${this.porthos.runDir}`;
    script(this.runsOn, `exec ${receive}`);
  }

  async #end(): Promise<void> {
    for (const at of [this.athos, this.porthos]) {
      for (const mark of this.find(at)) await endProcess(mark);
      execFileSync('ip', ['netns', 'del', at.namespace]);
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
  const namespace = `tiflow-mig-${name}-${process.pid}-${Math.random().toString(36).slice(2, 6)}`;
  const runDir = join(directory, name);
  execFileSync('ip', ['netns', 'add', namespace]);
  const ip = (line: string) => execFileSync('ip', ['-n', namespace, ...line.split(' ')]);
  ip('link set lo up');
  ip('link add br0 type bridge');
  ip('link set br0 up');
  return { namespace, runDir, daemon: await fakeVmDaemon(t, runDir) };
}

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

export { isAlive };
