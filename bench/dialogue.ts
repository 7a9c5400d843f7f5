/*
 * One connection at whose two ends this process writes steadily, and notes when something comes.
 */
import { Socket } from 'node:net';
import { now } from '../src/lab/wait.js';
import { closeFd } from '../src/libc/socket.js';
import type { Host } from './host.js';
import { accept, listenOn, openConnection } from './tcp.js';

const PORT = 5001;
const ROUND_TRIPS = 3;
const WRITE_INTERVAL_MS = 20;
const PIECE = Buffer.alloc(1000, 'tiflow ');

/** One end of it. */
class End {
  readonly #socket: Socket;
  readonly #writer: NodeJS.Timeout;
  #since = Number.POSITIVE_INFINITY;
  #first: number | undefined;
  lastArrivalMs = 0;
  error: string | undefined;

  constructor(fd: number) {
    this.#socket = new Socket({ fd });
    this.#socket.setNoDelay(true);
    this.#socket.on('data', () => this.#arrived(now()));
    this.#socket.on('error', (error) => {
      this.error = error.message;
    });
    this.#writer = setInterval(() => this.#socket.write(PIECE), WRITE_INTERVAL_MS);
  }

  #arrived(at: number): void {
    this.lastArrivalMs = at;
    if (at >= this.#since) this.#first ??= at;
  }

  /** From now on the first arrival counts. */
  expect(): void {
    this.#since = now();
    this.#first = undefined;
  }

  get firstArrivalMs(): number | undefined {
    return this.#first;
  }

  close(): void {
    clearInterval(this.#writer);
    this.#socket.destroy();
  }
}

export class Dialogue {
  readonly ends: { server: End; client: End };
  /** The shortest time that connect() took, ms. */
  readonly roundTripMs: number;

  /** `server` listens at `address`, `client` connects: both are waited for. */
  constructor(server: Host, client: Host, address: string) {
    const listener = server.inside(() => listenOn({ address, port: PORT }, 16));
    const connect = () => client.inside(() => openConnection({ address, port: PORT }));
    const times: number[] = [];
    // The first one also pays for address resolution.
    for (let i = 0; i < ROUND_TRIPS; i++) {
      const begun = now();
      const fd = connect();
      times.push(now() - begun);
      closeFd(fd);
      closeFd(accept(listener));
    }
    this.roundTripMs = Math.min(...times);
    const near = connect();
    this.ends = { server: new End(accept(listener)), client: new End(near) };
    closeFd(listener);
  }

  close(): void {
    this.ends.server.close();
    this.ends.client.close();
  }
}
