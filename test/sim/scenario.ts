/*
 * What happens in one run, drawn from its seed: the connection, who writes when, who moves how,
 * when a daemon dies, how hostile the link is.
 */
import type { Hostility } from './link-model.js';
import { Random } from './random.js';

/**
 * break: the old address goes, the new one comes after `gapMs`.  make: the old one stays.
 * same: a synchronization without a move.  both: both ends get a new address, old ones stay.
 */
export type MoveKind = 'break' | 'make' | 'same' | 'both';

export interface Move {
  kind: MoveKind;
  who: 0 | 1;
  /** After the last one has settled. */
  pauseMs: number;
  gapMs: number;
  /** The daemon of `who` dies before its n-th act from then on. */
  deaths: { who: 0 | 1; after: number }[];
}

export interface Write {
  at: number;
  who: 0 | 1;
  bytes: number;
}

export interface Scenario {
  seed: number;
  family: 4 | 6;
  isns: [number, number];
  epoch: number;
  writes: Write[];
  /** Closes its direction at once when its last write is done, not at the end of the run. */
  closesEarly: [boolean, boolean];
  moves: Move[];
  hostility: Hostility;
  healsAt: number;
  /** Synchronization packets that an attacker replays, from where, how. */
  attacker: boolean;
}

export function scenarioOf(seed: number): Scenario {
  const r = new Random(seed);
  const healsAt = r.between(5_000, 40_000);
  const writes = Array.from({ length: r.between(2, 24) }, () => ({
    at: r.between(0, healsAt),
    who: r.pick([0, 1] as const),
    bytes: r.between(1, 5000),
  }));
  return {
    seed,
    family: r.pick([4, 6]),
    // Half of the streams cross 2^32 on their way.
    isns: [isn(r), isn(r)],
    epoch: r.pick([0, 0, 1, 0x7fff, 0xfffe, 0xffff]),
    writes: writes.sort((a, b) => a.at - b.at),
    closesEarly: [r.chance(0.15), r.chance(0.15)],
    moves: Array.from({ length: r.between(1, 4) }, () => move(r)),
    hostility: hostility(r),
    healsAt,
    attacker: r.chance(0.5),
  };
}

const isn = (r: Random): number =>
  r.chance(0.5) ? (2 ** 32 - r.between(1, 20_000)) >>> 0 : r.word();

function move(r: Random): Move {
  const dies = r.chance(0.5);
  const deaths = Array.from({ length: dies ? r.between(1, 2) : 0 }, () => ({
    who: r.pick([0, 1] as const),
    after: r.between(0, r.pick([4, 12, 40])),
  }));
  return {
    kind: r.pick(['break', 'break', 'break', 'make', 'same', 'both'] as const),
    who: r.pick([0, 1] as const),
    pauseMs: r.between(0, 1500),
    gapMs: r.pick([0, 50, r.between(0, 5000)]),
    deaths,
  };
}

function hostility(r: Random): Hostility {
  const low = r.between(1, 40);
  return {
    drop: r.pick([0, 0.05, 0.2, 0.4]),
    duplicate: r.pick([0, 0.1, 0.3]),
    delay: [low, low + r.pick([0, 5, 100])],
    straggler: r.pick([0, 0.02, 0.1]),
    late: [r.between(200, 500), r.pick([1000, 3000, 15_000])],
  };
}
