/*
 * Nanoseconds that the data plane takes for one packet, by BPF_PROG_TEST_RUN: no flow, a flow
 * that has not moved, a flow that has; both directions, both families.  On the tap of a VM as well:
 * no flow at home, no flow and a moved flow away.
 *
 * The kernel feeds the packet that comes out of one run into the next.  Thus the moved flow's
 * mapping translates to the very tuple and numbers that it started from: all work is done, and
 * the packet is fit for another round.  On ingress the tuple of an active flow would be taken for
 * the abandoned path, so that flow has ended (FIN both ways) first, which changes no work but one
 * comparison.
 *
 * For the same reason a place that is away translates to the addresses that the guest has inside,
 * and the gateway is where the guest's frames go already.
 *
 * Each value contains what the kernel's own loop takes, see `nothing`.
 */

import type { Place } from '../src/boundary/boundary.js';
import { encodePacket } from '../src/wire/packet.js';
import { seq, seqAdd } from '../src/wire/seq.js';
import {
  type DataPlane,
  type Direction,
  type Family,
  frameOf,
  freshTuple,
  openFlow,
  packetOf,
  programOf,
  type View,
} from '../test/bpf/data-plane.js';
import { AWAY, frame, guestView, HOME, HOME_MAC, Tap } from '../test/bpf/tap.js';
import { type Measurement, type MeasureOptions, type Result, result } from './measurement.js';

const REPEAT = 100_000;
const SAMPLES = 9;

const TIMESTAMPS = 'nop,nop,TS val 1 ecr 1';
const LINES = {
  small: `PA 2:66(64) ack 2 win 512 <${TIMESTAMPS}>`,
  sack: `A 2:2(0) ack 2 win 512 <${TIMESTAMPS},nop,nop,sack 1:2>`,
} as const;
type Segment = keyof typeof LINES;

/** The end of a flow, by both. */
const FINS: Array<[Direction, string]> = [
  ['out', `FA 1000:1000(0) ack 1 win 512 <${TIMESTAMPS}>`],
  ['in', `FA 1000:1000(0) ack 1001 win 512 <${TIMESTAMPS}>`],
];

/** One row: what is run, and how to make the frame. */
interface Row {
  name: string;
  direction: Direction;
  frame: Uint8Array;
  /** Where the VM is, if it is run on the tap of one. */
  place?: Place;
}

/** The place of every tap row that is away: all work is done and changes nothing. */
const AWAY_UNCHANGED: Place = {
  ...AWAY,
  outside4: HOME.inside4,
  outside6: HOME.inside6,
  gateway4Mac: HOME_MAC,
  gateway6Mac: HOME_MAC,
};

export const perPacket: Measurement = {
  name: 'per-packet',
  summary: 'ns per packet in the data plane (BPF_PROG_TEST_RUN)',
  measure: async (o) => {
    const tap = new Tap(HOME);
    try {
      return measureRows(tap, rows(tap), o);
    } finally {
      tap.remove();
    }
  },
};

/* A round of all rows, then the next round: what disturbs one round disturbs all rows. */
function measureRows(tap: Tap, all: readonly Row[], o: MeasureOptions): Result[] {
  const samples = new Map(all.map((row) => [row.name, [] as number[]]));
  for (let round = 0; round < (o.quick ? 3 : SAMPLES); round++) {
    for (const row of all) {
      const repeat = o.quick ? REPEAT / 10 : REPEAT;
      const placement = row.place === undefined ? 'host' : 'tap';
      if (row.place !== undefined) tap.place = row.place;
      const { verdict, durationNs } = tap.plane.boundary.testRun(
        programOf(row.direction, placement),
        row.frame,
        { repeat },
        placement,
      );
      if (verdict !== 'pass') throw new Error(`${row.name}: ${verdict} instead of pass`);
      samples.get(row.name)?.push(durationNs);
    }
  }
  return [...samples].map(([name, values]) => result(name, 'ns/packet', values));
}

function rows(tap: Tap): Row[] {
  const arp = new Uint8Array(64);
  arp.set([0x08, 0x06], 12);
  const families: Family[] = [4, 6];
  return [
    { name: 'packet nothing (ARP)', direction: 'out', frame: arp },
    ...families.flatMap((f) => familyRows(tap.plane, f)),
    ...families.flatMap((f) => tapRows(tap, f)),
  ];
}

function tapRows(tap: Tap, f: Family): Row[] {
  const none = guestView(f);
  tap.place = HOME;
  const moved = tap.openFlow(guestView(f));
  map(tap.plane, moved);
  const movedIn = tap.openFlow(guestView(f));
  for (const [direction, line] of FINS) tap.line(movedIn, direction, line, line);
  map(tap.plane, movedIn);
  const cases: Array<[string, Place, View, View]> = [
    ['tap, no flow', HOME, none, none],
    ['tap, away', AWAY_UNCHANGED, none, none],
    ['tap, away, moved flow', AWAY_UNCHANGED, moved, movedIn],
  ];
  const ip = (view: View, direction: Direction, segment: Segment): Uint8Array =>
    encodePacket(packetOf(view, direction, LINES[segment]));
  return cases.flatMap(([what, place, out, into]) =>
    (Object.keys(LINES) as Segment[]).flatMap((segment) => {
      const name = `guest IPv${f} ${what}, ${segment}`;
      const sent = { direction: 'out', ip: ip(out, 'out', segment) } as const;
      const received = { direction: 'in', ip: ip(into, 'in', segment) } as const;
      return [
        tapRow(tap, { name: `packet from ${name}`, place, ...sent }),
        tapRow(tap, { name: `packet to ${name}`, place, ...received }),
      ];
    }),
  );
}

/* Also checks that the frame comes out as it went in, as row() does. */
function tapRow(
  tap: Tap,
  row: { name: string; place: Place; direction: Direction; ip: Uint8Array },
): Row {
  const bytes = frame(row.direction, row.ip);
  tap.place = row.place;
  tap.passes(row.direction, bytes);
  return { name: row.name, direction: row.direction, frame: bytes, place: row.place };
}

function familyRows(plane: DataPlane, f: Family): Row[] {
  const unknown: View = { tuple: freshTuple(f), iss: seq(1), irs: seq(1) };
  const flow = openFlow(plane, f);
  const moved = openFlow(plane, f);
  map(plane, moved);
  const movedIn = openFlow(plane, f);
  end(plane, movedIn);
  map(plane, movedIn);
  const cases: Array<[string, View, View]> = [
    ['no flow', unknown, unknown],
    ['flow', flow, flow],
    ['moved flow', moved, movedIn],
  ];
  const segments = Object.keys(LINES) as Segment[];
  return cases.flatMap(([what, out, into]) =>
    segments.flatMap((segment) => [
      row(plane, `packet egress IPv${f} ${what}, ${segment}`, 'out', out, segment),
      row(plane, `packet ingress IPv${f} ${what}, ${segment}`, 'in', into, segment),
    ]),
  );
}

/* Also checks that the packet comes out as it went in: only then may it be fed in again. */
function row(
  plane: DataPlane,
  name: string,
  direction: Direction,
  view: View,
  segment: Segment,
): Row {
  plane.expect(view, direction, LINES[segment], 'same');
  return {
    name,
    direction,
    frame: frameOf(encodePacket(packetOf(view, direction, LINES[segment]))),
  };
}

/** A move to where the flow is already: every translation is made and changes nothing. */
function map(plane: DataPlane, view: View): void {
  const { result: answer } = plane.boundary.command({
    verb: 'map',
    kernel: view.tuple,
    mapping: {
      wire: view.tuple,
      sndDelta: seq(0),
      rcvDelta: seq(0),
      sndBase: seqAdd(view.iss, 1),
      rcvBase: seqAdd(view.irs, 1000),
      redirect: 0,
    },
    epoch: 1,
    unproven: false,
    held: false,
  });
  if (answer !== 'ok') throw new Error(`map a flow: ${answer}`);
}

function end(plane: DataPlane, view: View): void {
  for (const [direction, line] of FINS) plane.expect(view, direction, line, 'same');
}
