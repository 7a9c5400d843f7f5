/*
 * When a QEMU stopped its VM, and when one ran it: QEMU's own events with QEMU's own times, by a
 * monitor that nobody else uses (a monitor has one client at a time).
 */
import { createConnection, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { until } from '../src/lab/wait.js';
import { realtimeOffset } from './clock.js';

interface Message {
  event?: string;
  timestamp?: { seconds: number; microseconds: number };
}

/* Their names are the same on both hypervisors, as /run is each one's own. */
export const WATCH_PATH = '/run/vm/vm.watch';
export const WATCH_ARGUMENTS = ['-qmp', `unix:${WATCH_PATH},server=on,wait=off`];

export class QemuEvents {
  readonly #socket: Socket;
  readonly #seen: Array<{ event: string; atMs: number }> = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    const offset = realtimeOffset();
    // The end of its QEMU is no concern of ours.
    socket.on('error', () => {});
    createInterface({ input: socket }).on('line', (line) => {
      const { event, timestamp } = JSON.parse(line) as Message;
      if (event === undefined || timestamp === undefined) return;
      const atMs = timestamp.seconds * 1e3 + timestamp.microseconds / 1e3 - offset;
      this.#seen.push({ event, atMs });
    });
    socket.write('{"execute": "qmp_capabilities"}\n');
  }

  /** Waits for a QEMU to listen at this path. */
  static async open(path: string): Promise<QemuEvents> {
    const socket = await until(`QEMU's monitor ${path}`, () => connect(path), 60_000);
    return new QemuEvents(socket);
  }

  /** When it was seen first, ms of CLOCK_MONOTONIC; waits for it. */
  first(event: string): Promise<number> {
    const found = () => this.#seen.find((e) => e.event === event)?.atMs;
    return until(`QEMU's event ${event}`, found, 90_000);
  }

  close(): void {
    this.#socket.destroy();
  }
}

/* Undefined: nobody listens there yet. */
function connect(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once('connect', () => resolve(socket));
    socket.once('error', () => resolve(undefined));
  });
}
