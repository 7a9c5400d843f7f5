/*
 * What happens in one run of roaming.ts, drawn from its seed: addresses that come and go at any instant
 * in any order, links that flap, daemons that die, middleboxes that forget; who writes when.
 *
 * One end roams at a time: two that are both elsewhere cannot find each other.  The other end's link
 * may flap meanwhile and its daemon die, and in the next phase it is its turn.
 */
import type { Hostility } from './link-model.js';
import type { LinkName } from './machine.js';
import { Random } from './random.js';

type End = 0 | 1;

/** `place`: of the addresses that an end gets at different places, the n-th. */
export type Act =
  | { do: 'carrier'; link: LinkName; up: boolean }
  | { do: 'add' | 'remove' | 'only'; link: LinkName; place: number }
  /** Its routes have the lower metric from now on. */
  | { do: 'prefer'; link: LinkName }
  /** The daemon dies before its n-th act from then on. */
  | { do: 'kill'; after: number }
  /** A middlebox loses its state: no packet of a wire of now gets through any more. */
  | { do: 'forget' };

export interface Step {
  at: number;
  who: End;
  act: Act;
}

export interface Write {
  at: number;
  who: End;
  flow: number;
  bytes: number;
}

export interface Phase {
  roamer: End;
  steps: Step[];
  writes: Write[];
  hostility: Hostility;
  /** From then on nothing happens any more, and the roamer is at `home`. */
  healsAt: number;
  home: { link: LinkName; place: number };
  /** Its other link works as well, at the next place, and then becomes the better one. */
  spare: boolean;
}

export interface RoamingScenario {
  seed: number;
  family: 4 | 6;
  flows: number;
  places: number;
  prefersDeadLinks: [boolean, boolean];
  phases: Phase[];
}

export const PLACES = 3;

export function roamingScenarioOf(seed: number): RoamingScenario {
  const r = new Random(seed);
  const flows = r.pick([1, 1, 2, 3, 6]);
  const first = r.pick([0, 1] as const);
  const roamers = r.chance(0.4) ? [first, other(first)] : [first];
  return {
    ...{ seed, flows, family: r.pick([4, 6]) },
    places: r.pick([1, 2, 64]),
    prefersDeadLinks: [r.chance(0.3), r.chance(0.3)],
    phases: roamers.map((roamer) => phase(r, roamer, flows)),
  };
}

const other = (who: End): End => (who === 0 ? 1 : 0);

function phase(r: Random, roamer: End, flows: number): Phase {
  const steps = [...roams(r, roamer), ...disturbs(r, other(roamer))];
  const healsAt = Math.max(2_000, ...steps.map((step) => step.at + 1));
  const writes = Array.from({ length: r.between(2, 16) * flows }, () => ({
    at: r.between(0, healsAt),
    who: r.pick([0, 1] as const),
    flow: r.between(0, flows - 1),
    bytes: r.between(1, r.pick([100, 4000])),
  }));
  return {
    ...{ roamer, steps, writes, healsAt, hostility: hostility(r) },
    home: { link: r.pick(['eth0', 'wlan0']), place: r.between(0, PLACES - 1) },
    spare: r.chance(0.3),
  };
}

function roams(r: Random, who: End): Step[] {
  const steps: Step[] = [];
  const pauseMs = r.pick([20, 200, 1000, 3000]);
  let at = r.between(0, 1000);
  for (let move = r.between(1, 10); move > 0 && at < 25_000; move--) {
    const acts = r.pick([
      carried,
      renumbered,
      overlapped,
      flapped,
      second,
      rerouted,
      killed,
      forgotten,
    ])(r);
    for (const { afterMs, act } of acts) {
      at += afterMs;
      steps.push({ at, who, act });
    }
    at += r.between(0, pauseMs);
  }
  return steps;
}

/** Nothing that takes its first address away for good. */
function disturbs(r: Random, who: End): Step[] {
  const steps: Step[] = [];
  for (let n = r.pick([0, 0, 1, 3]); n > 0; n--) {
    let at = r.between(0, 20_000);
    for (const { afterMs, act } of r.pick([flapped, flapped, killed])(r)) {
      at += afterMs;
      steps.push({ at, who, act });
    }
  }
  return steps;
}

type Acts = { afterMs: number; act: Act }[];

const anyPlace = (r: Random): number => r.between(0, PLACES - 1);
const soon = (r: Random): number => r.between(0, r.pick([0, 10, 100, 1500]));

/** To another network: the lease of the old one goes, that of the new one comes. */
const carried = (r: Random): Acts => [
  ...flapped(r),
  { afterMs: soon(r), act: { do: 'only', link: 'eth0', place: anyPlace(r) } },
];

const renumbered = (r: Random): Acts => [
  { afterMs: 0, act: { do: 'remove', link: 'eth0', place: anyPlace(r) } },
  { afterMs: soon(r), act: { do: 'only', link: 'eth0', place: anyPlace(r) } },
];

const overlapped = (r: Random): Acts => [
  { afterMs: 0, act: { do: 'add', link: 'eth0', place: anyPlace(r) } },
  { afterMs: soon(r), act: { do: 'remove', link: 'eth0', place: anyPlace(r) } },
];

const flapped = (r: Random): Acts => [
  { afterMs: 0, act: { do: 'carrier', link: 'eth0', up: false } },
  { afterMs: soon(r), act: { do: 'carrier', link: 'eth0', up: true } },
];

const second = (r: Random): Acts => [
  { afterMs: 0, act: { do: 'carrier', link: 'wlan0', up: r.chance(0.7) } },
  { afterMs: soon(r), act: { do: 'only', link: 'wlan0', place: anyPlace(r) } },
];

const rerouted = (r: Random): Acts => [
  { afterMs: soon(r), act: { do: 'prefer', link: r.pick(['eth0', 'wlan0']) } },
];

const killed = (r: Random): Acts => [
  { afterMs: 0, act: { do: 'kill', after: r.between(0, r.pick([2, 10, 40])) } },
];

const forgotten = (): Acts => [{ afterMs: 0, act: { do: 'forget' } }];

function hostility(r: Random): Hostility {
  const low = r.between(1, 100);
  return {
    drop: r.pick([0, 0, 0.05, 0.3]),
    duplicate: r.pick([0, 0.1]),
    delay: [low, low + r.pick([0, 5, 100])],
    straggler: r.pick([0, 0, 0.05]),
    late: [200, r.pick([1000, 3000])],
  };
}
