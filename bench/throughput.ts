/*
 * Throughput and CPU time per gigabyte of an iperf3 transfer: plain, through a boundary, moved.
 *
 * One transfer per lane stands all the time, stopped but for its turns (SIGSTOP to the sender).
 * Turns are short and go round, so that neighbours in time are compared.  A sample is one set of
 * connections, because where a connection's buffers happen to lie makes it a little faster or
 * slower for good.  The control is a second plain lane: its ratio shows what the noise is.
 */
import { now, pause } from '../src/lab/wait.js';
import { Lane, type LaneKind } from './lanes.js';
import { busySeconds } from './load.js';
import { type Aim, atLeast, type Measurement, type MeasureOptions, result } from './measurement.js';
import { median } from './statistics.js';

const KINDS: readonly LaneKind[] = ['plain', 'control', 'attached', 'moved'];
/* After a turn begins, before it counts: the sender's window opens again. */
const WARM_UP_MS = 100;
const FULL = { turnMs: 500, rounds: 6, sets: 7 };
const QUICK = { turnMs: 200, rounds: 2, sets: 2 };

const AIMS: Partial<Record<LaneKind, Aim>> = { attached: atLeast(0.99), moved: atLeast(0.97) };

/** What one turn came to. */
interface Turn {
  bytes: number;
  seconds: number;
  busySeconds: number;
}

/** What one set of connections came to, by lane. */
type SetSums = Record<LaneKind, { gbitPerS: number; busyPerGbyte: number }>;

export const throughput: Measurement = {
  name: 'throughput',
  summary: 'throughput and CPU time per gigabyte (iperf3 over veth)',
  measure: async (o) => {
    const lanes: Lane[] = [];
    try {
      for (const kind of KINDS) lanes.push(await Lane.build(kind));
      return results(await measureSets(lanes, o));
    } finally {
      for (const lane of lanes) lane.remove();
    }
  },
};

async function measureSets(lanes: readonly Lane[], o: MeasureOptions): Promise<SetSums[]> {
  const { turnMs, rounds, sets } = o.quick ? QUICK : FULL;
  const sums: SetSums[] = [];
  for (let i = 0; i < sets; i++) {
    for (const lane of lanes) await lane.start();
    const turns = new Map(KINDS.map((kind) => [kind, [] as Turn[]]));
    for (let round = 0; round < rounds; round++) {
      // Each lane is first as often as last: a drift of the machine hits all alike.
      const order = round % 2 === 0 ? lanes : [...lanes].reverse();
      for (const lane of order) turns.get(lane.kind)?.push(await takeTurn(lane, turnMs));
    }
    for (const lane of lanes) lane.stop();
    const sum = sumUp(turns);
    sums.push(sum);
    const texts = KINDS.map((kind) => `${kind} ${sum[kind].gbitPerS.toFixed(2)}`);
    o.say(`throughput, set ${i + 1} of ${sets}: ${texts.join(', ')} Gbit/s`);
  }
  return sums;
}

async function takeTurn(lane: Lane, turnMs: number): Promise<Turn> {
  lane.resume();
  await pause(WARM_UP_MS);
  const [bytes, at, busy] = [lane.receivedBytes(), now(), busySeconds()];
  await pause(turnMs);
  const turn = {
    bytes: lane.receivedBytes() - bytes,
    seconds: (now() - at) / 1e3,
    busySeconds: busySeconds() - busy,
  };
  lane.suspend();
  return turn;
}

/* Rates by the median turn.  CPU time by the sum: the kernel counts it in ticks of 4 or 10 ms. */
function sumUp(turns: ReadonlyMap<LaneKind, readonly Turn[]>): SetSums {
  const entries = [...turns].map(([kind, taken]) => {
    const bytes = taken.reduce((sum, turn) => sum + turn.bytes, 0);
    const busy = taken.reduce((sum, turn) => sum + turn.busySeconds, 0);
    const gbitPerS = median(taken.map((turn) => (turn.bytes * 8) / turn.seconds / 1e9));
    return [kind, { gbitPerS, busyPerGbyte: busy / (bytes / 1e9) }];
  });
  return Object.fromEntries(entries) as SetSums;
}

function results(sums: readonly SetSums[]) {
  const of = (kind: LaneKind, value: keyof SetSums[LaneKind]): number[] =>
    sums.map((sum) => sum[kind][value]);
  const over = (above: number[], below: number[]): number[] =>
    above.map((value, i) => value / (below[i] ?? Number.NaN));
  const ratios = KINDS.slice(1).flatMap((kind) => [
    result(
      `throughput ${kind} / plain`,
      'ratio',
      over(of(kind, 'gbitPerS'), of('plain', 'gbitPerS')),
      AIMS[kind],
    ),
    result(
      `CPU per gigabyte plain / ${kind}`,
      'ratio',
      over(of('plain', 'busyPerGbyte'), of(kind, 'busyPerGbyte')),
      AIMS[kind],
    ),
  ]);
  return [
    result('throughput plain', 'Gbit/s', of('plain', 'gbitPerS')),
    result('CPU per gigabyte plain', 'CPU s/GB', of('plain', 'busyPerGbyte')),
    ...ratios,
  ];
}
