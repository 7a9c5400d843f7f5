/* What `tiflow status` shows, put together from the parts that know it. */

import type { Boundary } from '../../boundary/boundary.js';
import { monotonicMs } from '../../libc/monotonic.js';
import type { LinkMonitor } from '../../link/monitor.js';
import type { SyncAgent } from '../../sync/agent.js';
import { countersByName } from '../host/settings.js';
import { flowIsAlive, isForwarded, isStuck, type LegacyConnection } from '../view/flow-views.js';
import { tiflowVersion } from '../view/version.js';
import type { InterfaceView, StatusView, TapView } from '../view/view.js';

export interface StatusParts
  extends Pick<StatusView, 'missing' | 'lacks' | 'failed_rounds' | 'retained' | 'moves'> {
  boundary: Boundary;
  monitor: LinkMonitor;
  agent: SyncAgent;
  startedAtMs: number;
  taps: TapView[];
  legacy: LegacyConnection[];
}

export function statusView(p: StatusParts): StatusView {
  const flows = p.boundary.flows().filter(([, flow]) => flowIsAlive(flow));
  const legacyByReason: Record<string, number> = {};
  for (const { reason } of p.legacy) legacyByReason[reason] = (legacyByReason[reason] ?? 0) + 1;
  return {
    version: 1,
    tiflow: tiflowVersion(),
    pid: process.pid,
    uptime_s: Math.round((monotonicMs() - p.startedAtMs) / 1000),
    interfaces: interfaceViews(p),
    missing: p.missing,
    lacks: p.lacks,
    taps: p.taps,
    retained: p.retained,
    flows: {
      protected: flows.length,
      moving: flows.filter(([kernel]) => p.agent.state(kernel) !== 'steady').length,
      moved: flows.filter(([, flow]) => flow.moves > 0).length,
      stuck: flows.filter(([, flow]) => isStuck(flow)).length,
      forwarded: flows.filter(([, flow]) => isForwarded(flow)).length,
      legacy: p.legacy.length,
    },
    legacy_by_reason: legacyByReason,
    counters: countersByName(p.boundary),
    moves: { ...p.moves },
    failed_rounds: p.failed_rounds,
  };
}

function interfaceViews({ boundary, monitor, taps }: StatusParts): InterfaceView[] {
  const attached = new Set(boundary.attached());
  const gateways = new Set(boundary.attached('gateway'));
  const addresses = monitor.addresses();
  const vms = new Set(taps.map(({ name }) => name));
  return monitor
    .links()
    .filter((link) => link.name !== 'lo' && !vms.has(link.name))
    .map((link) => ({
      name: link.name,
      attached: attached.has(link.name),
      gateway: gateways.has(link.name),
      carrier: link.carrier,
      addresses: addresses.filter((a) => a.interface === link.name).map((a) => a.address),
    }));
}
