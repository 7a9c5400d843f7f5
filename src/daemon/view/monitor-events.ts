/* From the layers' own events to the lines of `tiflow monitor`. */

import { monotonicMs } from '../../libc/monotonic.js';
import type { LinkChange } from '../../link/monitor.js';
import type { SyncEvent } from '../../sync/event.js';
import { tupleText } from '../../wire/tuple.js';
import type { MonitorEvent } from './view.js';

/** An event without version and time; `at_ms` only where it happened earlier than now. */
export type NewEvent = Omit<MonitorEvent, 'version' | 'at_ms'> & { at_ms?: number };

export type Emit = (event: NewEvent) => void;

export const stamp = (event: NewEvent): MonitorEvent => ({
  version: 1,
  at_ms: monotonicMs(),
  ...event,
});

export function ofLinkChange(
  change: Exclude<
    LinkChange,
    { type: 'link-added' | 'link-removed' | 'hook-changed' | 'ours-removed' }
  >,
): NewEvent {
  switch (change.type) {
    case 'carrier':
      return { event: change.up ? 'carrier-up' : 'carrier-down', interface: change.interface };
    case 'address-added':
    case 'address-removed':
      return { event: change.type, interface: change.interface, address: change.address };
    case 'route-changed':
      return { event: 'route-changed' };
  }
}

export function ofSyncEvent(event: SyncEvent): NewEvent {
  const common = {
    at_ms: event.at,
    kernel: tupleText(event.kernel),
    ...('wire' in event ? { wire: tupleText(event.wire) } : {}),
    ...('epoch' in event ? { epoch: event.epoch } : {}),
    ...('reason' in event ? { reason: event.reason } : {}),
  };
  return { event: event.type === 'failed' ? 'attempt-failed' : event.type, ...common };
}
