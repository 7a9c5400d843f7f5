/*
 * What a client sees of a guest's live migration beyond the guest's own pause, in the three lanes
 * of vm-lane.ts.
 *
 *      last echo       STOP                          RESUME    first segment  first echo
 *   ──────┤─────────────┤ pause ──────────────────────┤ guest ────├ path ───────├──────►
 *         ├─ gap: what the client sees ─────────────────────────────────────────┤
 *                       ├─ QEMU's downtime ─┤
 *
 * QEMU's downtime ends when the source has sent its last byte; what the destination does with it,
 * and who says that it may run, is not in it.  Hence both differences: gap less downtime, gap less
 * pause.  The pause is by QEMU's own events, one clock for both.  What the guest takes to go on (a new
 * QEMU without KVM has to translate every instruction of it again) is shown apart.
 */
import { LabError } from '../src/lab/namespace.js';
import { pause } from '../src/lab/wait.js';
import type { Score } from './beats.js';
import { GuestSegments } from './guest-segments.js';
import {
  atMost,
  type Measurement,
  type MeasureOptions,
  type Result,
  result,
} from './measurement.js';
import { ECHO_PORT, Metronome } from './metronome.js';
import { VmLane, type VmLaneKind, type VmMove } from './vm-lane.js';

const KINDS: readonly VmLaneKind[] = ['tiflow', 'same subnet', 'vxlan'];
/* Each there and back. */
const JOURNEYS = 8;
const JOURNEYS_QUICK = 1;
/* To learn the connection's usual round trip. */
const BEFORE_MS = 1_000;
const AIM = atMost(15, '1 round trip + 15 ms');

/** One migration as its client saw it, ms. */
interface Sample {
  roundTrip: number;
  gap: number;
  downtime: number;
  pause: number;
  /** from RESUME to the guest's first segment with data */
  guest: number;
  /** from that to the client */
  path: number;
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
  const segments = await GuestSegments.listen(lane.lab, lane.otherSite, ECHO_PORT);
  try {
    const metronome = await Metronome.start(lane.lab, lane.address);
    await pause(BEFORE_MS);
    const move = await lane.move();
    if (lane.kind === 'tiflow' && move.provenMs === undefined) {
      throw new LabError('tiflow migrate has moved no flow');
    }
    await metronome.silenceEnded(move.resumedMs);
    return sampleOf(move, await metronome.stop(), segments);
  } finally {
    segments.stop();
  }
}

function sampleOf(move: VmMove, score: Score, segments: GuestSegments): Sample {
  // Nothing can have come in the middle of the pause.
  const { fromMs, toMs } = score.silenceAt((move.stoppedMs + move.resumedMs) / 2);
  return {
    roundTrip: score.roundTripMs(move.stoppedMs),
    gap: toMs - fromMs,
    downtime: move.downtimeMs,
    pause: move.resumedMs - move.stoppedMs,
    guest: segments.firstSince(move.resumedMs) - move.resumedMs,
    path: toMs - segments.firstSince(move.resumedMs),
    lead: move.resumedMs - (move.provenMs ?? move.resumedMs),
  };
}

function rows(kind: VmLaneKind, samples: readonly Sample[]): Result[] {
  const aim = kind === 'tiflow' ? AIM : undefined;
  const row = (what: string, f: (s: Sample) => number): Result =>
    result(`VM ${kind}: ${what}`, 'ms', samples.map(f));
  const beyond = (what: string, f: (s: Sample) => number): Result =>
    result(`VM ${kind}: ${what}`, 'ms after 1 round trip', samples.map(f), aim);
  return [
    row('round trip', (s) => s.roundTrip),
    row('gap', (s) => s.gap),
    row('pause', (s) => s.pause),
    row("QEMU's downtime", (s) => s.downtime),
    beyond('gap less pause', (s) => s.gap - s.pause - s.roundTrip),
    beyond('gap less downtime', (s) => s.gap - s.downtime - s.roundTrip),
    row("RESUME to the guest's first segment", (s) => s.guest),
    row('from there to its client', (s) => s.path),
    ...(kind === 'tiflow' ? [row('flows moved before RESUME', (s) => s.lead)] : []),
  ];
}

const text = (s: Sample): string =>
  Object.entries(s)
    .map(([name, ms]) => `${name} ${(ms as number).toFixed(1)}`)
    .join(', ');
