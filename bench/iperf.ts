/*
 * One iperf3 transfer between two hosts: it never ends, and stands still when told to.
 */
import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { until } from '../src/lab/wait.js';
import type { Host } from './host.js';

const PORT = 5201;
/* bbr, the default of some systems, drops to four packets for 200 ms every ten seconds. */
const CONGESTION_CONTROL = 'cubic';
/* Sender and its ACKs on one CPU, receiver and its softirqs on the other: left to the scheduler,
 * packets overtake each other on a veth, and throughput jumps between 10 and 50 Gbit/s.
 */
export const CPU = { sender: 0, receiver: 1 };
/* iperf3 has two connections: control and transfer. */
export const CONNECTIONS = 2;

export class IperfTransfer {
  #server: ChildProcess | undefined;
  #client: ChildProcess | undefined;

  /** Starts it, and leaves it running.  `more`: arguments of the client. */
  async start(from: Host, to: Host, address: string, more: readonly string[] = []): Promise<void> {
    this.#server = to.spawn(['iperf3', '-s', '-1', '-p', String(PORT)]);
    await until('iperf3 to listen', () => listens(to.inside(readTcp)));
    this.#client = from.spawn([
      ...['iperf3', '-c', address, '-p', String(PORT), '-t', '3600', '-C', CONGESTION_CONTROL],
      ...['-A', `${CPU.sender},${CPU.receiver}`, ...more],
    ]);
  }

  resume(): void {
    this.#client?.kill('SIGCONT');
  }

  /** Stops the sender; what is under way arrives within a millisecond. */
  suspend(): void {
    this.#client?.kill('SIGSTOP');
  }

  /** Ends it. */
  stop(): void {
    for (const child of [this.#client, this.#server]) child?.kill('SIGKILL');
  }
}

const readTcp = (): string => readFileSync('/proc/self/net/tcp6', 'utf8');

/** Whether a socket of /proc/net/tcp6 is in state LISTEN (0A) on the port. */
const listens = (sockets: string): boolean =>
  new RegExp(`:${PORT.toString(16).toUpperCase()} \\S+ 0A `).test(sockets);
