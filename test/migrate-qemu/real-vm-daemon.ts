/* A real daemon on one of two hypervisors, with its boundary in the kernel; a migration reaches it
 * through the socket of fake-vm-daemon.ts, where its calls are seen and can be held.
 */

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { FLOW_SIZE, readFlow } from '../../src/boundary/abi.gen.js';
import { packLuggage } from '../../src/boundary/transfer.js';
import { DaemonClient } from '../../src/daemon/api/client.js';
import { socketPath } from '../../src/daemon/config/run-directory.js';
import { address } from '../../src/wire/address.js';
import { GUEST } from './fake-vm-daemon.js';

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const INSIDE = '192.0.2.10';
const PEER = '203.0.113.7';

/** The connection that each VM has, as `flows` shows it. */
export const FLOW = `${INSIDE}:22 > ${PEER}:40000`;

export class RealVmDaemon {
  readonly #namespace: string;
  readonly #runDir: string;
  readonly #client: DaemonClient;

  private constructor(namespace: string, runDir: string) {
    this.#namespace = namespace;
    this.#runDir = runDir;
    this.#client = new DaemonClient(runDir);
  }

  static async start(at: { namespace: string; runDir: string }): Promise<RealVmDaemon> {
    const daemon = new RealVmDaemon(at.namespace, `${at.runDir}.real`);
    const child = spawn('nsenter', daemon.#command('daemon'), {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    child.unref();
    let told = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      told += text;
    });
    while (!(await daemon.#client.status().then(Boolean, () => false))) {
      if (child.exitCode !== null) throw new Error(`the daemon has ended: ${told}`);
      await delay(20);
    }
    return daemon;
  }

  /** The boundary on the tap of a VM that is at home, and a connection of it. */
  async takeIn(tap: string): Promise<void> {
    await this.#client.attachTap(tap, GUEST.mac);
    await this.#client.importFlows(tap, { flows: oneFlow(), outside: [INSIDE] });
    await this.#client.synchronize(tap, 1_000, false);
  }

  /** Of VMs. */
  async flows(): Promise<string[]> {
    const { flows } = await this.#client.flows();
    return flows.filter(({ tap }) => tap !== null).map(({ kernel }) => kernel);
  }

  async taps(): Promise<string[]> {
    return (await this.#client.taps()).map(({ name }) => name);
  }

  /** What it says to a request that has come to somebody else. */
  async answer({ method, url }: IncomingMessage, body: unknown) {
    const headers = { 'Content-Type': 'application/json' };
    const asked = request({ socketPath: socketPath(this.#runDir), method, path: url, headers });
    asked.end(body === undefined ? undefined : JSON.stringify(body));
    const [response] = (await once(asked, 'response')) as [IncomingMessage];
    let text = '';
    for await (const chunk of response.setEncoding('utf8')) text += chunk;
    return { status: response.statusCode ?? 500, answer: JSON.parse(text) as object };
  }

  /** Takes its boundary out of the kernel; it is dead already. */
  remove(): void {
    spawnSync('nsenter', this.#command('down', '--force'), { stdio: 'ignore' });
  }

  #command(...words: string[]): string[] {
    const there = `--net=/run/netns/${this.#namespace}`;
    return [there, '--', process.execPath, MAIN, ...words, '--run-dir', this.#runDir];
  }
}

/* As another hypervisor packs it. */
function oneFlow(): string {
  const flow = readFlow(new DataView(new ArrayBuffer(FLOW_SIZE)));
  flow.initiator.tifidHalf = 0x0a0b0c0d;
  const now = process.hrtime.bigint();
  Object.assign(flow, { created: now, seenIn: now, seenOut: now });
  const ends = { local: address(INSIDE), remote: address(PEER) };
  const tuple = { ...ends, localPort: 22, remotePort: 40_000, tap: 1 };
  return Buffer.from(packLuggage({ flows: [[tuple, flow]], plain: [] }, now)).toString('base64');
}
