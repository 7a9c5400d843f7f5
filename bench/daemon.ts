/*
 * A real tiflow daemon on a host of a benchmark, and what it tells.
 */
import { daemon as daemonCommand } from '../src/lab/services.js';
import { until } from '../src/lab/wait.js';
import { WatchedDaemon } from '../src/lab/watched-daemon.js';
import type { Host } from './host.js';
import { LINK } from './pair.js';

/**
 * Starts it with the boundary on eth0, of a host or of a gateway; resolves once it serves and its
 * events are collected, unless nobody wants them.
 */
export async function startDaemon(
  host: Host,
  o: { gateway?: boolean; watched?: boolean } = {},
): Promise<WatchedDaemon> {
  const { runDir } = host;
  const settings = { log: 'warn', ...(o.gateway ? { gateways: [LINK] } : {}) };
  const command = daemonCommand(runDir, settings, { runDir, interfaces: o.gateway ? [] : [LINK] });
  host.spawn(command, ['ignore', 'ignore', 'inherit']);
  const watched = new WatchedDaemon(host.runDir);
  await until(`the daemon of ${host.namespace}`, () =>
    watched.status().then(
      (status) => status.interfaces.some((i) => i.name === LINK && i.attached),
      () => false,
    ),
  );
  if (o.watched ?? true) await watched.watch();
  return watched;
}
