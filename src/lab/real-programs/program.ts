/**
 * A real program that the lab started on a host: what it is told, what it says and when, how it
 * ends. Nothing here knows which program it is.
 */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Lab } from '../lab.js';
import { LabError } from '../namespace.js';
import type { Silent } from '../scene.js';
import type { HostName } from '../topology.js';
import { now, until } from '../wait.js';

const BOUND_MS = 15_000;

export class Program implements Silent {
  /** of standard output, each with the moment at which it was complete */
  readonly lines: Array<{ text: string; at: number }> = [];
  readonly #name: string;
  readonly #child: ChildProcess;
  #complaint = '';
  #closed = false;

  private constructor(name: string, child: ChildProcess) {
    this.#name = name;
    this.#child = child;
    const { stdin, stdout, stderr } = child;
    if (!stdin || !stdout || !stderr) throw new LabError(`${name}: no pipes`);
    // A program that has ended is seen by how it ended.
    stdin.on('error', () => {});
    createInterface({ input: stdout }).on('line', (text) => this.lines.push({ text, at: now() }));
    stderr.on('data', (chunk: Buffer) => {
      this.#complaint += chunk.toString();
    });
    child.on('close', () => {
      this.#closed = true;
    });
  }

  /** Its environment is bare: nothing of this machine's own settings reaches it. */
  static start(lab: Lab, host: HostName, what: string, argv: readonly string[]): Program {
    const bare = ['env', '-i', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL=C', 'HOME=/nowhere'];
    const child = lab.spawn(host, what, [...bare, ...argv], ['pipe', 'pipe', 'pipe']);
    return new Program(`${what} on ${host}`, child);
  }

  get texts(): string[] {
    return this.lines.map((line) => line.text);
  }

  write(text: string): void {
    this.#child.stdin?.write(text);
  }

  /** Nothing more will be written. */
  end(text = ''): void {
    this.#child.stdin?.end(text);
  }

  /** Writes what `next` makes of 1, 2, 3 ... at this interval, until what is returned is called. */
  pace(intervalMs: number, next: (n: number) => string): () => number {
    let n = 0;
    const timer = setInterval(() => this.write(next(++n)), intervalMs);
    return () => {
      clearInterval(timer);
      return n;
    };
  }

  /** Waits for a line that begins so, from the moment on; returns it. */
  async line(beginning: string, sinceMs = 0, boundMs = BOUND_MS): Promise<string> {
    const found = await until(
      `"${beginning}" from ${this.#name}`,
      () => {
        const said = this.lines.find((l) => l.at >= sinceMs && l.text.startsWith(beginning));
        if (!said && this.#closed) throw new LabError(this.ending);
        return said;
      },
      boundMs,
    );
    return found.text;
  }

  /** Waits until it has ended by itself; whether with exit code 0 and no complaint, and how. */
  async finish(boundMs = BOUND_MS): Promise<{ ok: boolean; detail: string }> {
    await until(`the end of ${this.#name}`, () => this.#closed, boundMs);
    const ok = this.#child.exitCode === 0 && this.#complaint === '';
    return { ok, detail: this.ending };
  }

  /** Ends a program that would go on for ever; whether it was well until now. */
  stop(): { ok: boolean; detail: string } {
    const ok = !this.#closed && this.#complaint === '';
    const detail = this.ending;
    this.#child.kill();
    return { ok, detail };
  }

  /** How it is, or how it ended, and what it complained of. */
  get ending(): string {
    const { exitCode, signalCode } = this.#child;
    const how = this.#closed ? `exit ${exitCode ?? signalCode}` : 'running';
    const complaint = this.#complaint.trim();
    return `${this.#name}: ${how}${complaint === '' ? '' : `, said: ${complaint}`}`;
  }

  silence(from: number, to: number): number {
    let longest = 0;
    for (const [i, { at }] of this.lines.entries()) {
      const before = this.lines[i - 1]?.at;
      if (before === undefined || at < from || before >= to) continue;
      longest = Math.max(longest, at - before);
    }
    return longest;
  }
}
