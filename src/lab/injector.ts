/**
 * Packets of our making, sent from a host of the lab (programs/inject.ts).
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { encodePacket, type Packet } from '../wire/packet.js';
import type { Hosts } from './hosts.js';
import { LabError } from './namespace.js';
import { within } from './wait.js';

const PROGRAM = fileURLToPath(new URL('./programs/inject.js', import.meta.url));

export class Injector {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start<Name extends string>(
    lab: Pick<Hosts<Name>, 'spawn'>,
    host: Name,
  ): Promise<Injector> {
    const command = [process.execPath, PROGRAM];
    const child = lab.spawn(host, 'inject', command, ['pipe', 'pipe', 'inherit']);
    if (!child.stdout) throw new LabError(`injector on ${host}: no pipe`);
    await within(`injector on ${host}`, once(child.stdout, 'data'), 10_000);
    return new Injector(child);
  }

  send(packet: Packet): void {
    this.sendBytes(encodePacket(packet));
  }

  /** From the IP header on; it may be wrong in anything. */
  sendBytes(packet: Uint8Array): void {
    this.#child.stdin?.write(`${Buffer.from(packet).toString('hex')}\n`);
  }

  /** Until the program has been given all that there was to send: no faster than it can. */
  sent(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#child.stdin?.write('', () => resolve()) === undefined) resolve();
    });
  }

  stop(): void {
    this.#child.stdin?.end();
  }
}
