/**
 * Hosts some of which run a tiflow daemon: waiting for it, its API, its end.
 */
import type { StatusView } from '../daemon/view/view.js';
import { Hosts } from './hosts.js';
import { endProcess, LabError } from './namespace.js';
import { type LabRecord, removeLab, saveRecord } from './registry.js';
import { until } from './wait.js';
import { WatchedDaemon } from './watched-daemon.js';

export class DaemonHosts<Name extends string, Protected extends Name> extends Hosts<Name> {
  readonly #daemons: readonly Protected[];
  readonly #clients = new Map<Protected, WatchedDaemon>();

  constructor(record: LabRecord, daemons: readonly Protected[]) {
    super(record);
    this.#daemons = daemons;
  }

  /** Waits until the daemon answers and is ready, then collects its events. */
  async watch(host: Protected, ready: (status: StatusView) => boolean): Promise<WatchedDaemon> {
    const client = this.#clients.get(host) ?? new WatchedDaemon(this.host(host).run_dir);
    this.#clients.set(host, client);
    await until(`tiflow daemon of ${host}`, async () => {
      if (this.daemonPid(host) === undefined) throw new LabError(this.#whyEnded(host));
      return client.status().then(ready, () => false);
    });
    await client.watch();
    return client;
  }

  #whyEnded(host: Protected): string {
    const log = `${this.directory}/${host}/daemon.log`;
    return `tiflow daemon of ${host} has ended: ${this.run(host, ['tail', '-n', '5', log]).trim()}`;
  }

  /** The API of a host's daemon. Throws LabError if that host has none in this lab. */
  daemon(host: Protected): WatchedDaemon {
    const client = this.#clients.get(host);
    if (!client) throw new LabError(`lab ${this.record.name}: no tiflow daemon on ${host}`);
    return client;
  }

  daemonPid = (host: Protected): number | undefined => this.running(host, 'daemon')[0]?.pid;

  /** SIGKILL to the daemon of a host; returns once it is gone. */
  async killDaemon(host: Protected): Promise<void> {
    const pid = this.daemonPid(host);
    if (pid === undefined) throw new LabError(`no tiflow daemon runs on ${host}`);
    endProcess(pid);
    await until(`end of the daemon of ${host}`, () => this.daemonPid(host) === undefined);
  }

  /** What has ended and the last lines of the daemons' logs, for whoever looks into a failure. */
  lastWords(): string[] {
    const logs = this.#daemons.flatMap((host) =>
      this.lastLines(host, `${this.directory}/${host}/daemon.log`),
    );
    return [...this.ended, ...logs];
  }

  /** The end of a file on a host, each line with the host's name; []: there is none yet. */
  lastLines(host: Name, file: string): string[] {
    const log = this.run(host, ['sh', '-c', 'test ! -e "$1" || tail -n 20 "$1"', 'sh', file]);
    return log
      .split('\n')
      .filter(Boolean)
      .map((line) => `${host}: ${line}`);
  }

  /** Makes the lab outlive this process, until `lab down`. */
  keep(): void {
    for (const client of this.#clients.values()) client.close();
    this.record.owner = null;
    saveRecord(this.record);
  }

  /** Ends everything that the lab consists of. Synchronous and idempotent. */
  teardown(): void {
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
    removeLab(this.record);
  }
}
