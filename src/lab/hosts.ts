/**
 * The hosts of a lab: running and starting things on them, everything started on record.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { mkdirSync, openSync } from 'node:fs';
import { insideNamespace, LabError, runCommand } from './namespace.js';
import {
  type HostRecord,
  isRunning,
  type LabRecord,
  type ProcessRecord,
  processStart,
  saveRecord,
} from './registry.js';
import type { HostName } from './topology.js';

/** The argument vector that runs `argv` on a host: in its network, with its mounts. */
export function onHost(host: HostRecord, argv: readonly string[]): string[] {
  if (!host.holder) return insideNamespace(host.namespace, argv);
  if (!isRunning(host.holder)) throw new LabError(`${host.name} is gone (holder has ended)`);
  return ['nsenter', `--target=${host.holder.pid}`, '--net', '--mount', '--', ...argv];
}

export class Hosts<Name extends string = HostName> {
  readonly record: LabRecord;
  /** processes started here that have ended, and how */
  readonly ended: string[] = [];

  constructor(record: LabRecord) {
    this.record = record;
  }

  get directory(): string {
    return this.record.directory;
  }

  get namespaces(): Record<Name, string> {
    const entries = this.record.hosts.map((host) => [host.name, host.namespace]);
    return Object.fromEntries(entries) as Record<Name, string>;
  }

  /** Throws LabError naming the hosts there are. */
  host(name: string): HostRecord {
    const host = this.record.hosts.find((h) => h.name === name);
    if (host) return host;
    const names = this.record.hosts.map((h) => h.name).join(', ');
    throw new LabError(`lab ${this.record.name}: no host ${name} (there are ${names})`);
  }

  /** Runs a command on a host to its end; returns its output. */
  run(host: Name, argv: readonly string[], input?: string): string {
    return runCommand(onHost(this.host(host), argv), input);
  }

  /** Starts a service on a host; its output goes to HOST/WHAT.log in the lab's directory. */
  start(host: Name, what: string, argv: readonly string[]): ChildProcess {
    mkdirSync(`${this.directory}/${host}`, { recursive: true });
    const log = openSync(`${this.directory}/${host}/${what}.log`, 'a');
    const child = this.spawn(host, what, argv, ['ignore', log, log]);
    child.unref();
    return child;
  }

  /** Starts a process on a host and records it. */
  spawn(host: Name, what: string, argv: readonly string[], stdio: StdioOptions): ChildProcess {
    const [file = '', ...rest] = onHost(this.host(host), argv);
    const child = spawn(file, rest, { stdio, detached: true, cwd: '/' });
    child.on('error', () => {});
    child.on('exit', (code, signal) => {
      this.ended.push(`${what} of ${host} (pid ${child.pid}) ended: ${signal ?? `exit ${code}`}`);
    });
    const { pid } = child;
    if (pid === undefined) throw new LabError(`start ${what} on ${host}: ${file} cannot be run`);
    this.record.processes.push({ pid, start: processStart(pid) ?? '', what, host });
    saveRecord(this.record);
    return child;
  }

  /** The processes of that name which run on a host. */
  running(host: Name, what: string): ProcessRecord[] {
    return this.record.processes.filter((p) => p.host === host && p.what === what && isRunning(p));
  }
}
