/*
 * A real tiflow daemon on a host of a benchmark, and what it tells.
 */
import { daemon as daemonCommand } from '../src/lab/services.js';
import { until } from '../src/lab/wait.js';
import { WatchedDaemon } from '../src/lab/watched-daemon.js';
import type { Host } from './host.js';
import { LINK } from './pair.js';

/** Starts it with the boundary on eth0; resolves once it serves and its events are collected. */
export async function startDaemon(host: Host): Promise<WatchedDaemon> {
  host.spawn(daemonCommand(host.runDir, { log: 'warn' }), ['ignore', 'ignore', 'inherit']);
  const watched = new WatchedDaemon(host.runDir);
  await until(`the daemon of ${host.namespace}`, () =>
    watched.status().then(
      (status) => status.interfaces.some((i) => i.name === LINK && i.attached),
      () => false,
    ),
  );
  await watched.watch();
  return watched;
}
