/*
 * A connection from aramis to a guest's echo server that notices milliseconds, by a client of
 * its own process (metronome-client.ts).
 */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { LabError } from '../src/lab/namespace.js';
import type { VmLab } from '../src/lab/vm/lab.js';
import { until } from '../src/lab/wait.js';
import { type Beats, Score } from './beats.js';

const CLIENT = fileURLToPath(new URL('./metronome-client.js', import.meta.url));
/** RFC 862. */
export const ECHO_PORT = '7';
const INTERVAL_MS = 2;

export class Metronome {
  readonly #child: ChildProcess;
  #silenceEndedMs = 0;
  #beats: Beats | undefined;

  private constructor(child: ChildProcess) {
    this.#child = child;
    if (!child.stdout) return;
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line.startsWith('{')) this.#beats = JSON.parse(line) as Beats;
      else this.#silenceEndedMs = Number(line);
    });
  }

  /** Connects and waits for the first echo. */
  static async start(lab: VmLab, address: string): Promise<Metronome> {
    const argv = [process.execPath, CLIENT, address, ECHO_PORT, String(INTERVAL_MS)];
    const child = lab.spawn('aramis', 'metronome', argv, ['pipe', 'pipe', 'inherit']);
    const metronome = new Metronome(child);
    await metronome.silenceEnded(0);
    return metronome;
  }

  /** Waits for an echo after this moment that ended a silence. */
  async silenceEnded(moment: number): Promise<void> {
    const ended = (): boolean => {
      if (this.#beats) throw new LabError(`the metronome's connection: ${this.#beats.error}`);
      return this.#silenceEndedMs > moment;
    };
    await until('the echo to come back', ended, 30_000);
  }

  /** Ends it; what it has noted.  Throws LabError if its connection did not last. */
  async stop(): Promise<Score> {
    this.#child.stdin?.end();
    const beats = await until('what the metronome has noted', () => this.#beats, 20_000);
    if (beats.error !== null) throw new LabError(`the metronome's connection: ${beats.error}`);
    return new Score(beats);
  }
}
