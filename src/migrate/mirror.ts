/* Copying disks with the VM: QEMU's own mirror, from each disk here to the same one there over NBD.
 *
 *   blockdev-add nbd → blockdev-mirror sync=full → ready: both are equal, and are kept so
 *   VM stopped → block-job-cancel: the mirror ends with both equal  (QAPI: BLOCK_JOB_READY)
 *
 * Names of jobs and nodes begin with "tiflow-mirror-": what is found under them is ours.
 */

import { setTimeout as delay } from 'node:timers/promises';
import type { Qmp, QmpEvent } from './qmp.js';
import { VmError } from './source-qemu.js';
import { Aborted } from './stages.js';

const PREFIX = 'tiflow-mirror-';
const POLL_MS = 50;
const FINISH_TIMEOUT_MS = 60_000;

export interface MirrorProgress {
  total_bytes: number;
  remaining_bytes: number;
}

interface BlockJob {
  device: string;
  len: number;
  offset: number;
  ready: boolean;
}

/** Where QEMU finds the destination's NBD server. */
export type NbdServer =
  | { type: 'unix'; path: string }
  | { type: 'inet'; host: string; port: string };

export class Mirrors {
  readonly #qmp: Qmp;
  /** What the job of a disk ended with, by job. */
  readonly #completed = new Map<string, string | undefined>();
  readonly #names = new Map<string, string>();
  readonly #unlisten: () => void;

  constructor(qmp: Qmp) {
    this.#qmp = qmp;
    this.#unlisten = qmp.onEvent((event) => this.#event(event));
  }

  async start(
    disks: { device: string; export: string; path: string }[],
    server: NbdServer,
    bandwidth: number | undefined,
  ): Promise<void> {
    for (const [n, disk] of disks.entries()) {
      const name = `${PREFIX}${n}`;
      this.#names.set(name, disk.path);
      const node = { driver: 'nbd', server, export: disk.export, 'node-name': name };
      await this.#qmp.execute('blockdev-add', node);
      await this.#qmp.execute('blockdev-mirror', {
        ...{ 'job-id': name, device: disk.device, target: name, sync: 'full' },
        ...(bandwidth !== undefined && { speed: bandwidth }),
      });
    }
  }

  /** Returns when all disks are equal and kept so.  Throws VmError naming the disk. */
  async ready(o: {
    signal: AbortSignal;
    failed: Promise<never>;
    progress(at: MirrorProgress): void;
  }): Promise<void> {
    for (;;) {
      const jobs = await this.#jobs();
      this.check();
      if (jobs.every(({ ready }) => ready)) return;
      if (o.signal.aborted) throw new Aborted();
      const total = jobs.reduce((sum, { len }) => sum + len, 0);
      const done = jobs.reduce((sum, { offset }) => sum + offset, 0);
      o.progress({ total_bytes: total, remaining_bytes: total - done });
      await Promise.race([delay(POLL_MS), o.failed]);
    }
  }

  /** Throws VmError if a mirror has ended, which none does by itself. */
  check(): void {
    for (const [name, error] of this.#completed) {
      throw this.#failure(name, error ?? 'the copy has ended');
    }
  }

  #failure(name: string, why: string): VmError {
    const path = this.#names.get(name) ?? name;
    return new VmError(`copy disk ${path} to the destination: ${why}; the VM runs on here`);
  }

  /** The VM is stopped: the copies are complete when this returns. */
  async finish(): Promise<void> {
    this.check();
    for (const name of this.#names.keys()) {
      await this.#qmp.execute('block-job-cancel', { device: name });
    }
    const deadline = performance.now() + FINISH_TIMEOUT_MS;
    while (this.#completed.size < this.#names.size) {
      if (performance.now() > deadline) {
        throw new VmError(`the disks' copies are not complete after ${FINISH_TIMEOUT_MS} ms`);
      }
      // Of a QEMU that has ended there will be none.
      if (this.#qmp.closed !== undefined) throw this.#qmp.closed;
      await this.#qmp.nextEvent(POLL_MS);
    }
    for (const [name, error] of this.#completed) {
      if (error !== undefined) throw this.#failure(name, error);
    }
    this.#unlisten();
    await removeMirrors(this.#qmp);
  }

  async #jobs(): Promise<BlockJob[]> {
    const jobs = await this.#qmp.execute<BlockJob[]>('query-block-jobs');
    return jobs.filter(({ device }) => device.startsWith(PREFIX));
  }

  #event({ event, data }: QmpEvent): void {
    const { device, error } = data as { device?: string; error?: string };
    const over = event === 'BLOCK_JOB_COMPLETED' || event === 'BLOCK_JOB_CANCELLED';
    if (over && device?.startsWith(PREFIX)) this.#completed.set(device, error);
  }
}

/** Ends what mirrors there are, and forgets the destination's disks.  Any number of times. */
export async function removeMirrors(qmp: Qmp): Promise<void> {
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    const jobs = await qmp.execute<BlockJob[]>('query-block-jobs');
    const ours = jobs.filter(({ device }) => device.startsWith(PREFIX));
    if (ours.length === 0) break;
    if (waitedMs > FINISH_TIMEOUT_MS) throw new VmError('the mirrors of its disks do not end');
    for (const { device } of ours) {
      // Refused while it is being cancelled already.
      await qmp.execute('block-job-cancel', { device, force: true }).catch(() => undefined);
    }
    await delay(POLL_MS);
  }
  const nodes = await qmp.execute<{ 'node-name': string }[]>('query-named-block-nodes', {
    flat: true,
  });
  for (const { 'node-name': name } of nodes) {
    if (name.startsWith(PREFIX)) await qmp.execute('blockdev-del', { 'node-name': name });
  }
}
