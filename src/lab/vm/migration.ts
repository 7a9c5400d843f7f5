/**
 * One run of `tiflow migrate` as the lab sees it: its JSON lines, its end.
 */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Site } from '../topology.js';
import { now, until } from '../wait.js';
import type { VmLab } from './lab.js';

export const STAGES = [
  'check',
  'address',
  'receive',
  'storage',
  'memory',
  'pause',
  'export',
  'import',
  'continue',
  'announce',
  'release',
] as const;
export type StageName = (typeof STAGES)[number];

/** A line of `tiflow migrate --json`. */
export interface MigrationLine {
  version: 1;
  event: 'begin' | 'done' | 'failed' | 'undone' | 'progress' | 'migrated';
  /** absent in the last line */
  stage?: StageName;
  /** Of what failed. */
  message?: string;
  at_ms?: number;
  downtime_ms?: number;
  [more: string]: unknown;
}

const BOUND_MS = 90_000;

export class Migration {
  readonly child: ChildProcess;
  readonly from: Site;
  readonly to: Site;
  readonly lines: Array<MigrationLine & { seen_ms: number }> = [];
  /** what it wrote that is no JSON line, and standard error */
  said = '';
  #listener: ((line: MigrationLine) => void) | undefined;

  private constructor(child: ChildProcess, from: Site, to: Site) {
    this.child = child;
    this.from = from;
    this.to = to;
    if (child.stdout) {
      createInterface({ input: child.stdout }).on('line', (text) => this.#take(text));
    }
    child.stderr?.on('data', (chunk: Buffer) => {
      this.said += chunk.toString();
    });
  }

  /** Starts it where the VM runs; `onLine` is called for each line, at once. */
  static async start(
    lab: VmLab,
    o: { vm: string; to: Site; args?: readonly string[]; onLine?: (line: MigrationLine) => void },
  ): Promise<Migration> {
    const from = await lab.whereabouts(o.vm);
    const argv = ['tiflow', 'migrate', o.vm, '--to', o.to, '--json', ...(o.args ?? [])];
    const child = lab.spawn(from, 'migrate', argv, ['ignore', 'pipe', 'pipe']);
    const migration = new Migration(child, from, o.to);
    migration.#listener = o.onLine;
    return migration;
  }

  #take(text: string): void {
    try {
      const line = JSON.parse(text) as MigrationLine;
      this.lines.push({ ...line, seen_ms: now() });
      this.#listener?.(line);
    } catch {
      this.said += `${text}\n`;
    }
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Waits for its end; the last line, if it says how it went. */
  async finish(boundMs = BOUND_MS): Promise<MigrationLine | undefined> {
    const drained = () => this.ended && (this.child.stdout?.readableEnded ?? true);
    await until(`the end of tiflow migrate (${this.progress})`, drained, boundMs);
    const last = this.lines.at(-1);
    return last?.stage === undefined ? last : undefined;
  }

  /** When this was reported of a stage, on the lab's clock; undefined: it was not. */
  at(stage: StageName, event: MigrationLine['event']): number | undefined {
    return this.lines.find((l) => l.stage === stage && l.event === event)?.seen_ms;
  }

  /** The last stage that it has reported, for messages. */
  get progress(): string {
    const last = this.lines.at(-1);
    return last ? `${last.stage ?? ''} ${last.event}`.trim() : 'it has said nothing';
  }

  /** How it ended, in words. */
  get verdict(): string {
    const { exitCode, signalCode } = this.child;
    const { seen_ms: _, ...last } = this.lines.at(-1) ?? { seen_ms: 0 };
    return `${signalCode ?? `exit ${exitCode}`}, ${JSON.stringify(last)} ${this.said.trim()}`;
  }
}
