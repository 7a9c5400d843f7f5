/*
 * What a measurement is, and what it results in.
 *
 * A result is the median of its samples.  Every sample of a ratio is made of values that were
 * measured side by side, alternating, so that whatever else the machine does hits both.
 */
import { median, rounded } from './statistics.js';

/** One entry of results.json. */
export interface Result {
  name: string;
  value: number;
  unit: string;
  samples: number[];
  aim: string | null;
  met: boolean | null;
}

export interface MeasureOptions {
  /** Few and short samples: to see whether it works, not to learn a number. */
  quick: boolean;
  /** How often, where a sample takes long; default: the measurement's own number. */
  repetitions?: number;
  /** Progress, for whoever watches. */
  say: (text: string) => void;
}

/** A row of the table in main.ts. */
export interface Measurement {
  name: string;
  summary: string;
  /** Rejects if it could not be measured, or if what was measured is not what it should be. */
  measure(o: MeasureOptions): Promise<Result[]>;
}

/** What a value has to reach. */
export interface Aim {
  text: string;
  isMet: (value: number) => boolean;
}

export const atLeast = (limit: number): Aim => ({
  text: `>= ${limit}`,
  isMet: (value) => value >= limit,
});

/** `what`: how the limit is made up, if the number alone does not say it. */
export const atMost = (limit: number, what = ''): Aim => ({
  text: `<= ${limit}${what && ` (${what})`}`,
  isMet: (value) => value <= limit,
});

/** The median of the samples, compared with the aim.  Throws without samples. */
export function result(name: string, unit: string, samples: number[], aim?: Aim): Result {
  const value = rounded(median(samples));
  return {
    name,
    value,
    unit,
    samples: samples.map(rounded),
    aim: aim?.text ?? null,
    met: aim?.isMet(value) ?? null,
  };
}
