/*
 * When a guest's segments with data come out of its tap: by tcpdump on the hypervisor, which hears
 * them before the boundary.  Between the first of them and its client is what the network and
 * tiflow take; before it is what the guest itself takes to go on.
 */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { LabError } from '../src/lab/namespace.js';
import type { Site } from '../src/lab/topology.js';
import type { VmLab } from '../src/lab/vm/lab.js';
import { until } from '../src/lab/wait.js';
import { realtimeOffset } from './clock.js';

/* `any`: the tap is not there yet. */
const COMMAND = ['tcpdump', '-i', 'any', '-Q', 'in', '-nn', '-tt', '-l', '--immediate-mode'];
/* More than headers, as pcap-filter(7) has it: what only acknowledges does not count. */
const filter = (port: string): string =>
  `tcp src port ${port} and ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) != 0`;

export class GuestSegments {
  readonly #child: ChildProcess;
  readonly #seen: number[] = [];
  #said = '';

  private constructor(child: ChildProcess) {
    this.#child = child;
    const offset = realtimeOffset();
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#said += chunk.toString();
    });
    if (!child.stdout) return;
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.#seen.push(Number.parseFloat(line) * 1e3 - offset);
    });
  }

  /** Listens on a hypervisor for segments from this port of a guest. */
  static async listen(lab: VmLab, site: Site, port: string): Promise<GuestSegments> {
    const child = lab.spawn(
      site,
      'tcpdump',
      [...COMMAND, filter(port)],
      ['ignore', 'pipe', 'pipe'],
    );
    const segments = new GuestSegments(child);
    await until('tcpdump to listen', () => {
      if (child.exitCode !== null) throw new LabError(`tcpdump on ${site}: ${segments.#said}`);
      return segments.#said.includes('listening on');
    });
    return segments;
  }

  /** When the first came at or after the moment.  Throws LabError if none did. */
  firstSince(moment: number): number {
    const first = this.#seen.find((at) => at >= moment);
    if (first === undefined) throw new LabError('no segment of the guest has been seen');
    return first;
  }

  stop(): void {
    this.#child.kill('SIGKILL');
  }
}
