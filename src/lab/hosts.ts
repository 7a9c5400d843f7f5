/**
 * The hosts of a lab: running and starting things on them, everything started on record.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { mkdirSync, openSync } from 'node:fs';
import { insideNamespace, LabError, runInside } from './namespace.js';
import {
  type HostRecord,
  isRunning,
  type LabRecord,
  type ProcessRecord,
  processStart,
  saveRecord,
} from './registry.js';
import type { HostName } from './topology.js';

export class Hosts {
  readonly record: LabRecord;
  /** processes started here that have ended, and how */
  readonly ended: string[] = [];

  constructor(record: LabRecord) {
    this.record = record;
  }

  get directory(): string {
    return this.record.directory;
  }

  get namespaces(): Record<HostName, string> {
    const entries = this.record.hosts.map((host) => [host.name, host.namespace]);
    return Object.fromEntries(entries) as Record<HostName, string>;
  }

  /** Throws LabError naming the hosts there are. */
  host(name: string): HostRecord {
    const host = this.record.hosts.find((h) => h.name === name);
    if (host) return host;
    const names = this.record.hosts.map((h) => h.name).join(', ');
    throw new LabError(`lab ${this.record.name}: no host ${name} (there are ${names})`);
  }

  /** Runs a command on a host to its end; returns its output. */
  run(host: HostName, argv: readonly string[], input?: string): string {
    return runInside(this.host(host).namespace, argv, input);
  }

  /** Starts a service on a host; its output goes to HOST/WHAT.log in the lab's directory. */
  start(host: HostName, what: string, argv: readonly string[]): ChildProcess {
    mkdirSync(`${this.directory}/${host}`, { recursive: true });
    const log = openSync(`${this.directory}/${host}/${what}.log`, 'a');
    const child = this.spawn(host, what, argv, ['ignore', log, log]);
    child.unref();
    return child;
  }

  /** Starts a process on a host and records it. */
  spawn(host: HostName, what: string, argv: readonly string[], stdio: StdioOptions): ChildProcess {
    const [file = '', ...rest] = insideNamespace(this.host(host).namespace, argv);
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
  running(host: HostName, what: string): ProcessRecord[] {
    return this.record.processes.filter((p) => p.host === host && p.what === what && isRunning(p));
  }
}
