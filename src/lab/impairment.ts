/**
 * What the userspace wire does to a packet, decided from a seed: the same seed and the same
 * sequence of packets give the same fate. Pure: the moving of bytes is programs/wire.ts.
 */
import { LabError } from './namespace.js';

/** Probabilities are 0 to 1, for each packet and direction. */
export interface Impairment {
  delayMs: number;
  /** added to the delay, evenly distributed from 0 */
  jitterMs: number;
  loss: number;
  /** the packet is late by another REORDER_MS, so that those behind overtake it */
  reorder: number;
  duplicate: number;
}

const REORDER_MS = 5;

const NAMES: Record<string, { key: keyof Impairment; unit: 'ms' | '%' }> = {
  delay: { key: 'delayMs', unit: 'ms' },
  jitter: { key: 'jitterMs', unit: 'ms' },
  loss: { key: 'loss', unit: '%' },
  reorder: { key: 'reorder', unit: '%' },
  duplicate: { key: 'duplicate', unit: '%' },
};

/** 'delay=50ms,loss=1%'. Throws LabError that names what is wrong. */
export function parseImpairment(text: string): Impairment {
  const impairment: Impairment = { delayMs: 0, jitterMs: 0, loss: 0, reorder: 0, duplicate: 0 };
  for (const item of text.split(',').filter(Boolean)) {
    const [name = '', value = ''] = item.split('=');
    const known = NAMES[name];
    const number = /^(\d+(?:\.\d+)?)(ms|%)$/.exec(value);
    if (!known || !number || number[2] !== known.unit) {
      const usage = Object.entries(NAMES).map(([n, { unit }]) => `${n}=N${unit}`);
      throw new LabError(`wire: "${item}" is not one of ${usage.join(', ')}`);
    }
    impairment[known.key] = known.unit === '%' ? Number(number[1]) / 100 : Number(number[1]);
  }
  return impairment;
}

/** The fates of the packets of one direction, one after the other. */
export class Fate {
  readonly #impairment: Impairment;
  readonly #draw: () => number;

  constructor(impairment: Impairment, seed: number) {
    this.#impairment = impairment;
    this.#draw = draws(seed);
  }

  /** After how many ms the packet arrives: [] if it is lost, two numbers if it comes twice. */
  next(): number[] {
    const { loss, duplicate } = this.#impairment;
    // Every packet draws the same number of times, or one setting would shift all other fates.
    const [lost, twice] = [this.#draw() < loss, this.#draw() < duplicate];
    const delays = [this.#delay(), this.#delay()];
    return lost ? [] : delays.slice(0, twice ? 2 : 1);
  }

  /** Which of its impairments have made this of a packet. */
  causes(fate: readonly number[]): Array<keyof Impairment> {
    const { delayMs, jitterMs } = this.#impairment;
    return [
      ...(fate.length === 0 ? (['loss'] as const) : []),
      ...(fate.length > 1 ? (['duplicate'] as const) : []),
      ...(delayMs > 0 && fate.length > 0 ? (['delayMs'] as const) : []),
      ...(jitterMs > 0 && fate.length > 0 ? (['jitterMs'] as const) : []),
      ...(fate.some((delay) => delay > delayMs + jitterMs) ? (['reorder'] as const) : []),
    ];
  }

  #delay(): number {
    const { delayMs, jitterMs, reorder } = this.#impairment;
    const jitter = this.#draw() * jitterMs;
    return delayMs + jitter + (this.#draw() < reorder ? REORDER_MS : 0);
  }
}

/** 0 <= x < 1, again and again: mulberry32, the usual 32-bit generator that any seed suits. */
export function draws(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}
