/*
 * A host of a benchmark: a network namespace, what runs in it, and the boundary or daemon that it
 * may have.  Made small: the labs of src/lab are the paper's network, with DHCP and sshd.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createNamespace,
  deleteNamespace,
  insideNamespace,
  ipBatch,
  LabError,
  namespacePath,
  runCommand,
  writeSysctls,
} from '../src/lab/namespace.js';
import { ownName, removeOwn } from '../src/lab/own-name.js';
import { onEveryExit } from './cleanup.js';
import { insideOf } from './namespace-entry.js';

/* No second of duplicate address detection, no router solicitations: IPv4 is measured. */
const SYSCTLS = {
  'ipv6/conf/all/disable_ipv6': '1',
  'ipv6/conf/default/disable_ipv6': '1',
  // A sender that was stopped goes on as it was.
  'ipv4/tcp_slow_start_after_idle': '0',
  // Metrics of an earlier connection would be one connection's advantage over the other.
  'ipv4/tcp_no_metrics_save': '1',
};

let hosts = 0;

export class Host {
  readonly namespace: string;
  readonly #release: () => void;
  #directory: string | undefined;

  /** Makes the namespace, loopback up.  Throws LabError. */
  constructor(name: string) {
    this.namespace = ownName(`${++hosts}-${name}`);
    this.#release = onEveryExit(() => this.#delete());
    createNamespace(this.namespace);
    writeSysctls(this.namespace, SYSCTLS);
  }

  get path(): string {
    return namespacePath(this.namespace);
  }

  /** Of the boundary or the daemon here; a directory of its own, beside which files may be put. */
  get runDir(): string {
    this.#directory ??= mkdtempSync(join(tmpdir(), `${this.namespace}-`));
    return join(this.#directory, 'run');
  }

  /** Runs `ip` commands, one a line. */
  ip(...lines: string[]): void {
    ipBatch(this.namespace, lines);
  }

  /** Writes below /proc/sys/net: `{'ipv4/ip_forward': '1'}`. */
  sysctl(settings: Record<string, string>): void {
    writeSysctls(this.namespace, settings);
  }

  /**
   * Has one CPU do all receive work of an interface (RPS), as a network card with one queue per
   * flow does.  Else a veth's packets are received on whichever CPU sent them, and overtake.
   */
  receiveOn(cpu: number, name: string): void {
    const path = `/sys/class/net/${name}/queues/rx-0/rps_cpus`;
    // The one use of `ip netns exec`: only it shows the namespace's own /sys.
    const write = ['sh', '-c', `echo ${(1 << cpu).toString(16)} > ${path}`];
    runCommand(['ip', 'netns', 'exec', this.namespace, ...write]);
  }

  /** Runs a function of this process in the namespace; it must not await. */
  inside<T>(f: () => T): T {
    return insideOf(this.path, f);
  }

  /** Starts a process here; it ends with the host. */
  spawn(
    argv: readonly string[],
    stdio: StdioOptions = ['ignore', 'ignore', 'ignore'],
  ): ChildProcess {
    const [file = '', ...rest] = insideNamespace(this.namespace, argv);
    const child = spawn(file, rest, { stdio });
    child.on('error', () => {});
    if (child.pid === undefined) throw new LabError(`${this.namespace}: cannot run ${argv[0]}`);
    return child;
  }

  /** Bytes that an interface has received; a GSO packet counts once, with one header. */
  receivedBytes(name: string): number {
    return receivedBytes(this.path, name);
  }

  /** Ends everything that runs here, and the namespace. */
  remove(): void {
    this.#release();
  }

  #delete(): void {
    deleteNamespace(this.namespace);
    if (this.#directory !== undefined) removeOwn(this.#directory);
  }
}

/** Bytes that an interface of a network namespace has received, as above. */
export function receivedBytes(namespace: string, name: string): number {
  const text = insideOf(namespace, () => readFileSync('/proc/self/net/dev', 'utf8'));
  const line = text.split('\n').find((each) => each.trim().startsWith(`${name}:`));
  const bytes = line?.split(':')[1]?.trim().split(/\s+/)[0];
  if (bytes === undefined) throw new LabError(`${namespace}: no interface ${name}`);
  return Number(bytes);
}

/** Joins two hosts by a veth pair; addresses are the caller's. */
export function connectByVeth(a: Host, aName: string, b: Host, bName: string): void {
  a.ip(`link add ${aName} type veth peer name ${bName} netns ${b.namespace}`);
  a.ip(`link set ${aName} up`);
  b.ip(`link set ${bName} up`);
}
