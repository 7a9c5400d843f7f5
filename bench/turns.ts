/*
 * Transfers that take turns, so that what is compared was measured at nearly the same time.
 *
 * One transfer per lane stands all the time, stopped but for its turns (SIGSTOP to the sender).
 * Turns are short and go round.  A sample is one set of connections, because where a connection's
 * buffers happen to lie makes it a little faster or slower for good.
 */
import { now, pause } from '../src/lab/wait.js';
import { busySeconds } from './load.js';
import { type Aim, type MeasureOptions, type Result, result } from './measurement.js';
import { median } from './statistics.js';

/* After a turn begins, before it counts: the sender's window opens again. */
const WARM_UP_MS = 100;
const FULL = { turnMs: 500, rounds: 6, sets: 7 };
const QUICK = { turnMs: 200, rounds: 2, sets: 2 };

/** What has a transfer that goes on and stands still when told to. */
export interface TurnLane<Kind extends string> {
  readonly kind: Kind;
  readonly transfer: { resume(): void; suspend(): void; stop(): void };
  /** Starts a new one, and leaves it stopped. */
  start(): Promise<void>;
  receivedBytes(): number;
}

/** What one turn came to. */
interface Turn {
  bytes: number;
  seconds: number;
  busySeconds: number;
}

interface Rates {
  gbitPerS: number;
  busyPerGbyte: number;
}

/** What one set of connections came to, by lane. */
export type SetSums<Kind extends string> = Record<Kind, Rates>;

export async function measureSets<Kind extends string>(
  name: string,
  lanes: readonly TurnLane<Kind>[],
  o: MeasureOptions,
): Promise<SetSums<Kind>[]> {
  const { turnMs, rounds, sets } = o.quick ? QUICK : FULL;
  const sums: SetSums<Kind>[] = [];
  for (let i = 0; i < sets; i++) {
    for (const lane of lanes) await lane.start();
    const turns = new Map(lanes.map(({ kind }) => [kind, [] as Turn[]]));
    for (let round = 0; round < rounds; round++) {
      // Each lane is first as often as last: a drift of the machine hits all alike.
      const order = round % 2 === 0 ? lanes : [...lanes].reverse();
      for (const lane of order) turns.get(lane.kind)?.push(await takeTurn(lane, turnMs));
    }
    for (const lane of lanes) lane.transfer.stop();
    const sum = sumUp(turns);
    sums.push(sum);
    const texts = lanes.map(({ kind }) => `${kind} ${sum[kind].gbitPerS.toFixed(2)}`);
    o.say(`${name}, set ${i + 1} of ${sets}: ${texts.join(', ')} Gbit/s`);
  }
  return sums;
}

async function takeTurn(lane: TurnLane<string>, turnMs: number): Promise<Turn> {
  lane.transfer.resume();
  await pause(WARM_UP_MS);
  const [bytes, at, busy] = [lane.receivedBytes(), now(), busySeconds()];
  await pause(turnMs);
  const turn = {
    bytes: lane.receivedBytes() - bytes,
    seconds: (now() - at) / 1e3,
    busySeconds: busySeconds() - busy,
  };
  lane.transfer.suspend();
  return turn;
}

/* Rates by the median turn.  CPU time by the sum: the kernel counts it in ticks of 4 or 10 ms. */
function sumUp<Kind extends string>(turns: ReadonlyMap<Kind, readonly Turn[]>): SetSums<Kind> {
  const entries = [...turns].map(([kind, taken]) => {
    const bytes = taken.reduce((sum, turn) => sum + turn.bytes, 0);
    const busy = taken.reduce((sum, turn) => sum + turn.busySeconds, 0);
    const gbitPerS = median(taken.map((turn) => (turn.bytes * 8) / turn.seconds / 1e9));
    return [kind, { gbitPerS, busyPerGbyte: busy / (bytes / 1e9) }];
  });
  return Object.fromEntries(entries) as SetSums<Kind>;
}

/** The figures of the plain lane, then the ratio of each other to it: more is better. */
export function ratiosToPlain<Kind extends string>(
  name: string,
  sums: readonly SetSums<Kind | 'plain'>[],
  others: readonly Kind[],
  aims: Partial<Record<Kind, Aim>> = {},
): Result[] {
  const of = (kind: Kind | 'plain', value: keyof Rates): number[] =>
    sums.map((sum) => sum[kind][value]);
  const over = (above: number[], below: number[]): number[] =>
    above.map((value, i) => value / (below[i] ?? Number.NaN));
  const ratios = others.flatMap((kind) => [
    result(
      `${name} ${kind} / plain`,
      'ratio',
      over(of(kind, 'gbitPerS'), of('plain', 'gbitPerS')),
      aims[kind],
    ),
    result(
      `${perGbyte(name)} plain / ${kind}`,
      'ratio',
      over(of('plain', 'busyPerGbyte'), of(kind, 'busyPerGbyte')),
      aims[kind],
    ),
  ]);
  return [
    result(`${name} plain`, 'Gbit/s', of('plain', 'gbitPerS')),
    result(`${perGbyte(name)} plain`, 'CPU s/GB', of('plain', 'busyPerGbyte')),
    ...ratios,
  ];
}

const perGbyte = (name: string): string => name.replace('throughput', 'CPU per gigabyte');
