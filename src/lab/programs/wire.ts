/**
 * The userspace wire: carries frames between two TAPs, one process for one cable, and does to
 * each what its seed decides (impairment.ts). For kernels without netem. Runs until killed.
 *
 * Arguments: NAMESPACE-PATH TAP NAMESPACE-PATH TAP SEED IMPAIRMENT [ISN-MODE]
 */
import { Poller } from '../../libc/poller.js';
import { draws, Fate, parseImpairment } from '../impairment.js';
import { ISN_MODES, Randomizer, type Side } from '../randomizer.js';
import { openTap, readFrame, writeFrame } from '../tap.js';

const FRAME_MAX = 65536;
/** Frames read from one TAP before the other has its turn. */
const BATCH = 64;
/** As netem's default limit: a queue that a slow sender cannot fill and a mad one can. */
const QUEUE_MAX = 10_000;

const now = (): number => Number(process.hrtime.bigint()) / 1e6;

/** Frames under way in one direction, by time of arrival. */
class Lane {
  readonly #fate: Fate;
  readonly #to: number;
  readonly #queue: Array<{ due: number; frame: Buffer }> = [];
  #timer: NodeJS.Timeout | undefined;
  readonly #noted = new Set<string>();

  constructor(fate: Fate, to: number) {
    this.#fate = fate;
    this.#to = to;
  }

  send(frame: Buffer): void {
    const at = now();
    const delays = this.#fate.next();
    for (const cause of this.#fate.causes(delays)) this.#note(cause);
    for (const delay of delays) {
      if (delay === 0) writeFrame(this.#to, frame);
      else if (this.#queue.length < QUEUE_MAX) this.#insert(at + delay, Buffer.from(frame));
    }
  }

  /** Once each: whoever wants to know whether the wire has acted finds it in its log. */
  #note(cause: string): void {
    if (this.#noted.has(cause)) return;
    this.#noted.add(cause);
    process.stdout.write(`acts ${cause}\n`);
  }

  /** Most frames belong at the end: the search starts there. */
  #insert(due: number, frame: Buffer): void {
    let place = this.#queue.length;
    while (place > 0 && (this.#queue[place - 1]?.due ?? 0) > due) place--;
    this.#queue.splice(place, 0, { due, frame });
    if (place === 0) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
    }
    this.#arm();
  }

  #arm(): void {
    const first = this.#queue[0];
    if (this.#timer || !first) return;
    this.#timer = setTimeout(() => this.#deliver(), Math.max(0, first.due - now()));
  }

  #deliver(): void {
    this.#timer = undefined;
    // Timers have a resolution of 1 ms; half of it early is as right as half of it late.
    const due = now() + 0.5;
    const late = this.#queue.findIndex((item) => item.due > due);
    const ready = this.#queue.splice(0, late < 0 ? this.#queue.length : late);
    for (const { frame } of ready) writeFrame(this.#to, frame);
    this.#arm();
  }
}

function randomizer(mode: string | undefined, seed: number): Randomizer | undefined {
  const known = ISN_MODES.find((m) => m === mode);
  const draw = draws(seed);
  const draw32 = (): number => Math.floor(draw() * 0x1_0000_0000);
  const log = (key: string): void => void process.stdout.write(`rewrites ${key}\n`);
  return known && new Randomizer(known, draw32, log);
}

function main([aPath = '', aTap = '', bPath = '', bTap = '', ...rest]: string[]): void {
  const [seedText, text = '', isnMode] = rest;
  const impairment = parseImpairment(text);
  const seed = Number(seedText);
  const isn = randomizer(isnMode, seed + 2);
  const [a, b] = [openTap(aPath, aTap), openTap(bPath, bTap)];
  const poller = new Poller();
  const carry = (from: number, side: Side, lane: Lane): void => {
    const buffer = Buffer.alloc(FRAME_MAX);
    poller.add(from, () => {
      for (let i = 0; i < BATCH; i++) {
        const length = readFrame(from, buffer);
        if (length < 0) return;
        const frame = buffer.subarray(0, length);
        isn?.rewrite(frame, side);
        lane.send(frame);
      }
    });
  };
  carry(a, 'a', new Lane(new Fate(impairment, seed), b));
  carry(b, 'b', new Lane(new Fate(impairment, seed + 1), a));
  // A poller alone does not keep the process alive.
  setInterval(() => {}, 1 << 30);
}

main(process.argv.slice(2));
