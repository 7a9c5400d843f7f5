/* What a migration tells while it runs: one JSON object a line with --json. */

import type { StageEvent } from './stages.js';

export const STAGES = [
  ...(['check', 'address', 'receive', 'storage', 'memory', 'pause'] as const),
  ...(['export', 'import', 'continue', 'announce', 'release'] as const),
] as const;

export type StageName = (typeof STAGES)[number];

export interface Progress {
  total_bytes: number;
  remaining_bytes: number;
  /** Bytes per second. */
  rate?: number;
  /** What QEMU expects now. */
  downtime_ms?: number;
}

export type MigrationEvent =
  | StageEvent<StageName>
  | { stage: StageName; event: 'note'; message: string }
  | ({ stage: StageName; event: 'progress' } & Progress);

export interface Report {
  /** Hosts: as it was asked for, and as it calls itself. */
  to: string;
  id: string;
  name: string;
  driver: 'qmp' | 'libvirt';
  placement?: 'hypervisor' | 'guest';
  /** As QEMU reports it: from the stop to the last byte of the device state. */
  downtime_ms?: number;
  /** From the stop here until it runs there. */
  paused_ms?: number;
  total_ms: number;
  memory_bytes?: number;
  disk_bytes?: number;
  flows?: { moved: number; failed: number; pending: number };
  outside?: string[];
  /** QMP socket at the destination. */
  qmp?: string;
  /** The VM has run there, and has ended since. */
  ended_there?: boolean;
}

export interface FailureReport extends Report {
  stage: StageName;
  message: string;
  /** Where the VM runs now: `unknown` only when nothing was decided. */
  runs: 'here' | 'unknown' | 'nowhere';
  not_undone: { stage: StageName; message: string }[];
}

/** The last line. */
export type LastEvent =
  | ({ event: 'migrated'; unfinished: { stage: StageName; message: string }[] } & Report)
  | ({ event: 'failed' } & FailureReport);
