/**
 * A bulk transfer in both directions at once: aramis writes known bytes to the guest's echo
 * server, by the stock busybox nc at both ends, and compares what comes back byte by byte.
 */
import type { ChildProcess } from 'node:child_process';
import { LabError } from '../namespace.js';
import { Pattern } from '../programs/pattern.js';
import type { Silent } from '../scene.js';
import type { Family } from '../topology.js';
import { now, until } from '../wait.js';
import type { VmLab } from './lab.js';

const WRITE_INTERVAL_MS = 20;
/** What may be under way: more would only be queued, and a guest without KVM is no fast one. */
const UNDER_WAY_MAX = 1 << 20;

export class Echo implements Silent {
  readonly #child: ChildProcess;
  readonly #pattern = new Pattern('to-server');
  readonly #arrivals: number[] = [];
  readonly #timer: NodeJS.Timeout;
  #written = 0;
  #received = 0;
  #wrongAt = -1;

  private constructor(child: ChildProcess, bytesPerS: number) {
    this.#child = child;
    child.stdin?.on('error', () => {});
    child.stdout?.on('data', (bytes: Buffer) => this.#take(bytes));
    const piece = Math.ceil((bytesPerS * WRITE_INTERVAL_MS) / 1e3);
    this.#timer = setInterval(() => this.#write(piece), WRITE_INTERVAL_MS);
    child.on('exit', () => clearInterval(this.#timer));
  }

  /** Connects from aramis to the address and waits for the first bytes to come back. */
  static async open(lab: VmLab, address: string, bytesPerS: number): Promise<Echo> {
    const argv = ['busybox', 'nc', address, '7'];
    const echo = new Echo(lab.spawn('aramis', 'nc', argv, ['pipe', 'pipe', 'inherit']), bytesPerS);
    await echo.flowing(now());
    return echo;
  }

  /** Waits until something that was written after the moment has come back. */
  async flowing(sinceMs: number, boundMs = 20_000): Promise<number> {
    const mark = this.#written;
    const back = () => {
      if (this.#child.exitCode !== null) throw new LabError('the echo has ended early');
      return this.#received > mark && (this.#arrivals.at(-1) ?? 0) > sinceMs;
    };
    await until('the echo to come back', back, boundMs);
    return now();
  }

  silence(from: number, to: number): number {
    const ends = [...this.#arrivals, now()];
    const pairs = ends.slice(1).map((end, i) => [ends[i] ?? 0, end] as const);
    const touching = pairs.filter(([start, end]) => end >= from && start < to);
    return touching.reduce((longest, [start, end]) => Math.max(longest, end - start), 0);
  }

  /** Ends the stream; whether every byte came back as it was, and nc was content. */
  async finish(boundMs = 20_000): Promise<{ ok: boolean; detail: string }> {
    clearInterval(this.#timer);
    this.#child.stdin?.end();
    const ended = () => this.#child.exitCode !== null;
    const late = await until('the end of the echo', ended, boundMs).then(
      () => '',
      (error: Error) => `, ${error.message}`,
    );
    const ok = this.#received === this.#written && this.#wrongAt < 0 && late === '';
    const wrong = this.#wrongAt < 0 ? '' : `, WRONG at ${this.#wrongAt}`;
    const detail = `${this.#received} of ${this.#written} bytes came back${wrong}${late}`;
    return { ok: ok && this.#child.exitCode === 0, detail };
  }

  /** Ends it without asking whether it was whole. */
  stop(): void {
    clearInterval(this.#timer);
    this.#child.kill('SIGKILL');
  }

  #write(length: number): void {
    if (this.#written - this.#received > UNDER_WAY_MAX) return;
    const piece = this.#pattern.piece(this.#written, length);
    this.#written += piece.length;
    this.#child.stdin?.write(piece);
  }

  #take(bytes: Buffer): void {
    if (this.#wrongAt < 0) this.#wrongAt = this.#pattern.firstWrong(this.#received, bytes);
    this.#received += bytes.length;
    this.#arrivals.push(now());
  }
}

/** An address in a URL. */
export const urlHost = (address: string, family: Family): string =>
  family === 6 ? `[${address}]` : address;
