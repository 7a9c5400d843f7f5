/**
 * What a case plays on: the lab, its steps told with their times, its checks collected, its
 * moves and the silences that they caused. What is particular to a topology is in stage.ts and
 * vm/stage.ts.
 */
import type { Family } from './topology.js';
import { now } from './wait.js';

export interface Check {
  name: string;
  ok: boolean;
  detail: string;
}

/** One line of the timeline of a move: ms after the cable was pulled, and on which host. */
export interface Moment {
  after_ms: number;
  host: 'vm' | 'aramis' | 'athos' | 'porthos' | 'lab';
  what: string;
}

/** What a command showed before or after the move: part of a figure, as in the paper. */
export interface Exhibit {
  figure: number;
  title: string;
  command: string;
  when: 'before' | 'after';
  lines: string[];
}

export interface SceneOptions<L> {
  lab: L;
  family: Family;
  seed: number;
  onStep: (text: string) => void;
  onExhibit: ((exhibit: Exhibit) => void) | undefined;
}

/** What was silent when: a finished transfer, a session. */
export interface Silent {
  /** the longest silence that touches the time from `from` to `to`, in ms */
  silence(from: number, to: number): number;
}

export class Scene<L> {
  readonly lab: L;
  readonly family: Family;
  readonly seed: number;
  readonly checks: Check[] = [];
  readonly moves: number[] = [];
  readonly gapsMs: number[] = [];
  /** measured values beside the gaps, by name with unit */
  readonly figures: Record<string, number> = {};
  timeline: Moment[] = [];
  readonly #options: SceneOptions<L>;

  constructor(options: SceneOptions<L>) {
    this.lab = options.lab;
    this.family = options.family;
    this.seed = options.seed;
    this.#options = options;
  }

  step(text: string): void {
    this.#options.onStep(text);
  }

  /** Shows the lines that `make` returns, if somebody is watching. */
  async exhibit(
    about: Omit<Exhibit, 'lines'>,
    make: () => string[] | Promise<string[]>,
  ): Promise<void> {
    if (this.#options.onExhibit) this.#options.onExhibit({ ...about, lines: await make() });
  }

  check(name: string, ok: boolean, detail = ''): void {
    this.checks.push({ name, ok, detail });
    this.step(`${ok ? 'ok  ' : 'FAIL'} ${name}${detail === '' ? '' : `: ${detail}`}`);
  }

  noteSilence(silent: Silent): void {
    this.moves.forEach((from, i) => {
      const gap = silent.silence(from, this.moves[i + 1] ?? now());
      this.gapsMs[i] = Math.max(this.gapsMs[i] ?? 0, Math.round(gap));
    });
  }
}
