/* The running QEMU on the source: what it is, and what a migration does to it.
 *
 * Proven with QEMU 7.2 (test/migrate-qemu): migrate_cancel in pre-switchover, and a failure after
 * migrate-continue, resume the VM by themselves if it ran before; `cont` is refused in
 * pre-switchover, works after migrate_cancel, and in postmigrate takes the disks back, which fails
 * as long as another QEMU has them.
 */

import { setTimeout as delay } from 'node:timers/promises';
import type { Progress } from './event.js';
import { findQemus, type QemuProcess, tapNames } from './qemu-process.js';
import { Qmp } from './qmp.js';
import { nameOf } from './receiving-qemu.js';
import { Aborted } from './stages.js';

const POLL_MS = 50;
const CANCEL_TIMEOUT_MS = 10_000;

/** The VM cannot be found, or cannot be moved as it is. */
export class VmError extends Error {
  override readonly name = 'VmError';
}

export interface Disk {
  device: string;
  path: string;
  format: string;
  bytes: number;
  allocated: number;
}

export interface MigrateInfo {
  status?: string;
  'error-desc'?: string;
  'blocked-reasons'?: string[];
  'expected-downtime'?: number;
  downtime?: number;
  'total-time'?: number;
  ram?: { total: number; remaining: number; transferred: number; mbps: number };
}

interface BlockInfo {
  device: string;
  qdev?: string;
  inserted?: {
    ro: boolean;
    drv: string;
    file: string;
    image: { 'virtual-size': number; 'actual-size'?: number };
  };
}

/** Throws VmError when there is not exactly one. */
export function findVm(what: string): QemuProcess {
  const found = findQemus(what);
  const [qemu] = found;
  if (qemu === undefined) {
    throw new VmError(`no QEMU of this name or QMP socket runs here: ${what}`);
  }
  if (found.length > 1) {
    const pids = found.map(({ mark }) => mark.pid).join(', ');
    throw new VmError(`several QEMUs are named ${what} (pids ${pids}); say the QMP socket's path`);
  }
  return qemu;
}

export class SourceQemu {
  readonly qemu: QemuProcess;
  readonly qmp: Qmp;
  /** By TapNetdev.at. */
  readonly taps: Map<number, string>;

  private constructor(qemu: QemuProcess, qmp: Qmp) {
    this.qemu = qemu;
    this.qmp = qmp;
    this.taps = tapNames(qemu);
  }

  /** Throws VmError, QmpError. */
  static async connect(what: string): Promise<SourceQemu> {
    const qemu = findVm(what);
    if (qemu.qmpPath === undefined) {
      const advice = 'start it with -qmp unix:PATH,server=on,wait=off';
      throw new VmError(`${what} (pid ${qemu.mark.pid}) has no QMP socket; ${advice}`);
    }
    return new SourceQemu(qemu, await Qmp.connect(qemu.qmpPath));
  }

  async status(): Promise<string> {
    return (await this.qmp.execute<{ status: string }>('query-status')).status;
  }

  /** Full name of the machine: "pc-i440fx-7.2". */
  async machine(): Promise<string> {
    const type = await this.qmp.execute<string>('qom-get', { path: '/machine', property: 'type' });
    return type.replace(/-machine$/, '');
  }

  /** Those that the guest can write. */
  async disks(): Promise<Disk[]> {
    const blocks = await this.qmp.execute<BlockInfo[]>('query-block');
    return blocks.flatMap((block) => {
      const { inserted } = block;
      if (inserted === undefined || inserted.ro) return [];
      const { file: path, drv: format, image } = inserted;
      const bytes = image['virtual-size'];
      const allocated = image['actual-size'] ?? bytes;
      return { device: nameOf(block), path, format, bytes, allocated };
    });
  }

  migration(): Promise<MigrateInfo> {
    return this.qmp.execute<MigrateInfo>('query-migrate');
  }

  /** Starts to send the memory to `uri`. */
  async migrate(o: { uri: string; bandwidth?: number; downtimeMs?: number }): Promise<void> {
    await this.qmp.execute('migrate-set-capabilities', { capabilities: switchover(true) });
    await this.qmp.execute('migrate-set-parameters', {
      // QEMU's own limit is 128 MiB/s, and meant for 2012.
      'max-bandwidth': o.bandwidth ?? UNLIMITED,
      ...(o.downtimeMs !== undefined && { 'downtime-limit': Math.round(o.downtimeMs) }),
    });
    await this.qmp.execute('migrate', { uri: o.uri });
  }

  /**
   * Waits for the migration to have this state; asks at each of QEMU's events, for the VM may be
   * standing still meanwhile.  Throws VmError when it fails.
   */
  async migrationReaches(
    wanted: string,
    o: { signal: AbortSignal; progress?(info: MigrateInfo): void; failed?: Promise<never> },
  ): Promise<MigrateInfo> {
    for (;;) {
      const changed = this.qmp.nextEvent(POLL_MS);
      const info = await this.migration();
      if (info.status === wanted) return info;
      if (info.status === 'failed' || info.status === 'cancelled' || info.status === 'completed') {
        const why = info['error-desc'];
        throw new VmError(`migration of the memory: ${info.status}${why ? `: ${why}` : ''}`);
      }
      if (o.signal.aborted) throw new Aborted();
      o.progress?.(info);
      await Promise.race([changed, ...(o.failed ? [o.failed] : [])]);
    }
  }

  continueMigration(): Promise<unknown> {
    return this.qmp.execute('migrate-continue', { state: 'pre-switchover' });
  }

  stop(): Promise<unknown> {
    return this.qmp.execute('stop');
  }
}

const UNLIMITED = 2 ** 50;

function switchover(state: boolean) {
  return [
    { capability: 'events', state: true },
    { capability: 'pause-before-switchover', state },
  ];
}

const OVER = new Set(['none', 'completed', 'failed', 'cancelled', undefined]);

/** The VM runs here again, whatever became of its migration.  Throws when it cannot be had. */
export async function resumeVm(qmp: Qmp, boundMs: number): Promise<void> {
  const deadline = performance.now() + Math.max(boundMs, 1);
  await cancelMigration(qmp);
  for (;;) {
    const { status } = await qmp.execute<{ status: string }>('query-status');
    if (status === 'running') break;
    try {
      await qmp.execute('cont');
    } catch (error) {
      // The other QEMU may still have the disks: it is being killed.
      if (qmp.closed !== undefined || performance.now() > deadline) throw error;
      await delay(POLL_MS);
    }
  }
  await qmp.execute('migrate-set-capabilities', { capabilities: switchover(false) });
}

async function cancelMigration(qmp: Qmp): Promise<void> {
  for (let waitedMs = 0; waitedMs < CANCEL_TIMEOUT_MS; waitedMs += POLL_MS) {
    const { status } = await qmp.execute<MigrateInfo>('query-migrate');
    if (OVER.has(status)) return;
    if (status !== 'cancelling') await qmp.execute('migrate_cancel');
    await delay(POLL_MS);
  }
  throw new VmError(`QMP ${qmp.path}: the migration cannot be cancelled`);
}

/** How far the copying of the memory is. */
export function progressOf(ram: NonNullable<MigrateInfo['ram']>, info: MigrateInfo): Progress {
  return {
    total_bytes: ram.total,
    remaining_bytes: ram.remaining,
    rate: Math.round((ram.mbps * 1e6) / 8),
    ...(info['expected-downtime'] !== undefined && { downtime_ms: info['expected-downtime'] }),
  };
}
