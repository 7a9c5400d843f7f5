/*
 * What the client of an echo server has noted, and what follows from it.  Pure.
 */
import { LabError } from '../src/lab/namespace.js';
import { median } from './statistics.js';

export const MESSAGE_BYTES = 16;

export interface Beats {
  /** when each message was written, ms of CLOCK_MONOTONIC */
  sent: number[];
  /** when bytes came, and how many there were then */
  arrived: Array<[atMs: number, bytes: number]>;
  /** what went wrong with the connection */
  error: string | null;
}

/** A time in which nothing came, ms of CLOCK_MONOTONIC. */
export interface Silence {
  fromMs: number;
  toMs: number;
}

/** All that a client has noted. */
export class Score {
  readonly #beats: Beats;

  constructor(beats: Beats) {
    this.#beats = beats;
  }

  /** Median time from a message to its echo, of those that came back before the moment. */
  roundTripMs(beforeMs: number): number {
    const { sent, arrived } = this.#beats;
    const times: number[] = [];
    let message = 0;
    for (const [at, bytes] of arrived) {
      if (at >= beforeMs) break;
      for (; (message + 1) * MESSAGE_BYTES <= bytes; message++)
        times.push(at - (sent[message] ?? 0));
    }
    return median(times);
  }

  /** The silence during which the moment was.  Throws LabError if nothing came after it. */
  silenceAt(moment: number): Silence {
    const { arrived } = this.#beats;
    const after = arrived.findIndex(([at]) => at >= moment);
    const [from, to] = [arrived[after - 1]?.[0], arrived[after]?.[0]];
    if (from === undefined || to === undefined) throw new LabError('the echo has not come back');
    return { fromMs: from, toMs: to };
  }
}
