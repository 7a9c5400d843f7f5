/**
 * The content of a continuity stream: 65521 known bytes, repeated. The period is prime, so that
 * no segment, window or buffer size divides it: a lost, repeated or misplaced piece of any
 * length that is no multiple of it shows as a wrong byte.
 */
const PERIOD = 65521;

/** Each direction has a pattern of its own, or crossed streams would look right. */
export type Direction = 'to-server' | 'to-client';

const SEEDS: Record<Direction, number> = { 'to-server': 0x5449_0001, 'to-client': 0x5449_0002 };

export class Pattern {
  /** twice the period: a piece up to PERIOD long starts at any offset without wrapping */
  readonly #bytes: Buffer;

  constructor(direction: Direction) {
    const once = Buffer.alloc(PERIOD);
    let state = SEEDS[direction];
    for (let i = 0; i < PERIOD; i++) {
      state = xorshift(state);
      once[i] = state >>> 24;
    }
    this.#bytes = Buffer.concat([once, once]);
  }

  /** The stream's bytes from `offset` on; at most one period of them. */
  piece(offset: number, length: number): Buffer {
    const start = offset % PERIOD;
    return this.#bytes.subarray(start, start + Math.min(length, PERIOD));
  }

  /** Where in the stream `received`, which starts at `offset`, is wrong first; -1: nowhere. */
  firstWrong(offset: number, received: Buffer): number {
    for (let done = 0; done < received.length; done += PERIOD) {
      const part = received.subarray(done, done + PERIOD);
      const wanted = this.piece(offset + done, part.length);
      if (part.equals(wanted)) continue;
      return offset + done + part.findIndex((byte, i) => byte !== wanted[i]);
    }
    return -1;
  }
}

/** Marsaglia, "Xorshift RNGs" (2003), the 32-bit generator. */
function xorshift(state: number): number {
  let x = state;
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  return x >>> 0;
}
