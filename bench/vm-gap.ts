/*
 * What a client sees of a guest's live migration beyond the guest's own pause, in the three lanes
 * of vm-lane.ts.
 *
 *      last echo       STOP                          RESUME      first echo
 *   ──────┤─────────────┤ pause ──────────────────────┤───────────├──────►
 *         ├─ gap: what the client sees ───────────────────────────┤
 *                       ├─ QEMU's downtime ─┤
 *
 * QEMU's downtime ends when the source has sent its last byte; what the destination does with it,
 * and who says that it may run, is not in it.  Hence both differences: gap less downtime, gap less
 * pause.  The pause is by QEMU's own events, one clock for both.
 */
import { pause } from '../src/lab/wait.js';
import {
  atMost,
  type Measurement,
  type MeasureOptions,
  type Result,
  result,
} from './measurement.js';
import { Metronome } from './metronome.js';
import { VmLane, type VmLaneKind, type VmMove } from './vm-lane.js';

const KINDS: readonly VmLaneKind[] = ['tiflow', 'same subnet', 'vxlan'];
/* Each there and back. */
const JOURNEYS = 8;
const JOURNEYS_QUICK = 1;
/* What is the connection's usual round trip; and that it goes on. */
const BEFORE_MS = 1_000;
const AFTER_MS = 1_000;
const AIM = atMost(15, '1 round trip + 15 ms');

/** One migration as its client saw it, ms. */
interface Sample {
  roundTrip: number;
  gap: number;
  downtime: number;
  pause: number;
  /** from RESUME to the first echo */
  wake: number;
  /** from the last proven flow to RESUME; 0 without tiflow */
  lead: number;
}

export const vmGap: Measurement = {
  name: 'vm-gap',
  summary: "a client's gap beyond the VM's own pause: tiflow, same subnet, VXLAN",
  measure: async (o) => {
    const lanes: VmLane[] = [];
    try {
      for (const [i, kind] of KINDS.entries()) lanes.push(await VmLane.build(kind, i));
      return await measureAll(lanes, o);
    } finally {
      for (const lane of lanes) lane.remove();
    }
  },
};

async function measureAll(lanes: readonly VmLane[], o: MeasureOptions): Promise<Result[]> {
  const moves = 2 * (o.quick ? JOURNEYS_QUICK : (o.repetitions ?? JOURNEYS));
  const samples = new Map(lanes.map((lane) => [lane.kind, [] as Sample[]]));
  for (let i = 0; i < moves; i++) {
    for (const lane of lanes) {
      const sample = await measureOne(lane);
      samples.get(lane.kind)?.push(sample);
      o.say(`vm-gap, ${i + 1} of ${moves}: ${lane.kind}: ${text(sample)}`);
    }
  }
  return [...samples].flatMap(([kind, taken]) => rows(kind, taken));
}

async function measureOne(lane: VmLane): Promise<Sample> {
  const metronome = await Metronome.start(lane.lab, lane.address);
  await pause(BEFORE_MS);
  const move = await lane.move();
  await pause(AFTER_MS);
  return sampleOf(move, await metronome.stop());
}

function sampleOf(move: VmMove, score: Awaited<ReturnType<Metronome['stop']>>): Sample {
  // Nothing can have come in the middle of the pause.
  const { fromMs, toMs } = score.silenceAt((move.stoppedMs + move.resumedMs) / 2);
  return {
    roundTrip: score.roundTripMs(move.stoppedMs),
    gap: toMs - fromMs,
    downtime: move.downtimeMs,
    pause: move.resumedMs - move.stoppedMs,
    wake: toMs - move.resumedMs,
    lead: move.resumedMs - (move.provenMs ?? move.resumedMs),
  };
}

function rows(kind: VmLaneKind, samples: readonly Sample[]): Result[] {
  const name = `VM ${kind}`;
  const aim = kind === 'tiflow' ? AIM : undefined;
  const of = (f: (s: Sample) => number): number[] => samples.map(f);
  const beyond = 'ms after 1 round trip';
  return [
    result(
      `${name}: round trip`,
      'ms',
      of((s) => s.roundTrip),
    ),
    result(
      `${name}: gap`,
      'ms',
      of((s) => s.gap),
    ),
    result(
      `${name}: pause`,
      'ms',
      of((s) => s.pause),
    ),
    result(
      `${name}: QEMU's downtime`,
      'ms',
      of((s) => s.downtime),
    ),
    result(
      `${name}: gap less pause`,
      beyond,
      of((s) => s.gap - s.pause - s.roundTrip),
      aim,
    ),
    result(
      `${name}: gap less downtime`,
      beyond,
      of((s) => s.gap - s.downtime - s.roundTrip),
      aim,
    ),
    result(
      `${name}: first echo after the VM runs`,
      'ms',
      of((s) => s.wake),
    ),
  ];
}

const text = (s: Sample): string =>
  Object.entries(s)
    .map(([name, ms]) => `${name} ${(ms as number).toFixed(1)}`)
    .join(', ');
