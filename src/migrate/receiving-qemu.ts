/* The QEMU that waits for a VM: started, prepared, watched; in the end continued.
 *
 * It is a session of its own and outlives us.  What it writes goes to a log, of which the last
 * words are the reason when it ends.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { MIGRATION_VARIABLE } from './qemu-process.js';
import { Qmp } from './qmp.js';

const START_TIMEOUT_MS = 20_000;
const POLL_MS = 20;
const LAST_WORDS = 600;

export interface QemuStart {
  id: string;
  program: string;
  argv: string[];
  /** Become descriptors 3, 4, ... */
  fds: number[];
  /** Our own QMP socket. */
  qmp: string;
  log: string;
}

/** It ended, or does what it should not. */
export class QemuFailed extends Error {
  override readonly name = 'QemuFailed';
}

interface BlockDevice {
  device: string;
  qdev?: string;
  inserted?: { 'node-name': string };
}

export class ReceivingQemu {
  readonly #child: ChildProcess;
  readonly #start: QemuStart;
  #qmp: Qmp | undefined;
  /** Resolves with its last words when it ends. */
  readonly ended: Promise<string>;

  private constructor(start: QemuStart, child: ChildProcess) {
    this.#start = start;
    this.#child = child;
    this.ended = new Promise((resolve) => {
      child.once('exit', (code, signal) => resolve(this.#lastWords(code, signal)));
      child.once('error', (error) => resolve(`start ${start.program}: ${error.message}`));
    });
    child.unref();
  }

  /** Returns when it answers.  Throws QemuFailed, QmpError. */
  static async start(start: QemuStart): Promise<ReceivingQemu> {
    const log = openSync(start.log, 'a', 0o600);
    const child = spawn(start.program, start.argv, {
      detached: true,
      stdio: ['ignore', log, log, ...start.fds],
      env: { ...process.env, [MIGRATION_VARIABLE]: start.id },
    });
    closeSync(log);
    const qemu = new ReceivingQemu(start, child);
    qemu.#qmp = await Promise.race([qemu.#answers(), qemu.#ends()]);
    return qemu;
  }

  get qmp(): Qmp {
    if (this.#qmp === undefined) throw new QemuFailed('the receiving QEMU is not up');
    return this.#qmp;
  }

  /** Waits for the memory, on a unix socket, or on a TCP port that it chooses and that is returned. */
  async listen(at: { unix: string } | 'tcp'): Promise<number | undefined> {
    await this.qmp.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'events', state: true }],
    });
    const uri = at === 'tcp' ? 'tcp::0' : `unix:${at.unix}`;
    await this.qmp.execute('migrate-incoming', { uri });
    if (at !== 'tcp') return undefined;
    const info = await this.qmp.execute<{ 'socket-address'?: { port?: string }[] }>(
      'query-migrate',
    );
    return Number(info['socket-address']?.[0]?.port);
  }

  /** Exports the disks of these devices for the source's mirrors: name by device. */
  async exportDisks(
    devices: string[],
    at: { unix: string } | 'tcp',
  ): Promise<{ exports: Record<string, string>; port?: number }> {
    const port = at === 'tcp' ? await freePort() : undefined;
    const addr =
      at === 'tcp'
        ? { type: 'inet', data: { host: '::', port: String(port) } }
        : { type: 'unix', data: { path: at.unix } };
    await this.qmp.execute('nbd-server-start', { addr });
    const blocks = await this.qmp.execute<BlockDevice[]>('query-block');
    const exports: Record<string, string> = {};
    for (const [n, device] of devices.entries()) {
      const block = blocks.find((each) => nameOf(each) === device);
      const node = block?.inserted?.['node-name'];
      if (node === undefined) throw new QemuFailed(`the receiving QEMU has no disk ${device}`);
      const name = `tiflow-${n}`;
      const [id, type] = [name, 'nbd'];
      await this.qmp.execute('block-export-add', {
        ...{ id, type, name, 'node-name': node, writable: true },
      });
      exports[device] = name;
    }
    return { exports, ...(port !== undefined && { port }) };
  }

  /** Returns when the VM is complete and paused.  Throws QemuFailed, QmpError. */
  async loaded(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const changed = this.qmp.nextEvent(POLL_MS);
      const { status } = await this.qmp.execute<{ status: string }>('query-status');
      if (status === 'paused' || status === 'prelaunch') return;
      if (status !== 'inmigrate') throw new QemuFailed(`the receiving QEMU is ${status}`);
      if (performance.now() > deadline) {
        throw new QemuFailed(`the receiving QEMU is not complete after ${timeoutMs} ms`);
      }
      await Promise.race([changed, this.#ends()]);
    }
  }

  /** The mirrors are complete: nobody writes to the disks from outside any more. */
  async unexportDisks(): Promise<void> {
    const exports = await this.qmp.execute<{ id: string }[]>('query-block-exports');
    for (const { id } of exports) await this.qmp.execute('block-export-del', { id, mode: 'hard' });
    await this.qmp.execute('nbd-server-stop');
  }

  async #answers(): Promise<Qmp> {
    for (;;) {
      try {
        return await Qmp.connect(this.#start.qmp);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        const early = code === 'ENOENT' || code === 'ECONNREFUSED';
        if (!early || performance.now() > this.#deadline) throw error;
        await delay(POLL_MS);
      }
    }
  }

  readonly #deadline = performance.now() + START_TIMEOUT_MS;

  async #ends(): Promise<never> {
    throw new QemuFailed(await this.ended);
  }

  #lastWords(code: number | null, signal: string | null): string {
    const how = code === null ? `ended by ${signal}` : `exit code ${code}`;
    const words = readFileSync(this.#start.log, 'utf8').trim().slice(-LAST_WORDS);
    return `the receiving QEMU (pid ${this.#child.pid}) ended: ${how}${words && `: ${words}`}`;
  }
}

/** As both sides call a disk: by its device, or by the guest's device that it is in. */
export function nameOf(block: { device: string; qdev?: string }): string {
  return block.device === '' ? (block.qdev ?? '') : block.device;
}

/* nbd-server-start does not tell which port it got. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0);
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}
