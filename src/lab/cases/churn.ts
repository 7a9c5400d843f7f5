/**
 * Moves that are interrupted by the next one: the VM is carried from site to site faster than its
 * flows can follow, while every connection talks. Wherever a flow is on its way (waiting for its
 * turn, asked for, mapped and not proven), its next attempt has to start from where the VM is now.
 */
import type { FlowView } from '../../daemon/view/view.js';
import { mirror } from '../flow-check.js';
import type { Case, Stage } from '../stage.js';
import { now, pause, until } from '../wait.js';

interface Churn {
  connections: number;
  moves: number;
  /** between two moves, drawn from the case's seed */
  pauseMs: readonly [number, number];
  /** on each connection and by either end */
  bytesPerS: number;
  /** default: the machine's */
  congestionControl?: string;
}

/* A log line for each step of each flow would be most of the work.  And the way to the peer takes time,
 * or each attempt would be over before the next move.
 */
const OPTIONS: Case['options'] = {
  daemons: ['aramis', 'vm'],
  settings: { log: 'info' },
  wire: { impairment: 'delay=50ms', seed: 1 },
};

/** After the last move every flow has to be where the VM is, at both ends. */
const ARRIVED_MAX_MS = 10_000;

/* And from then on it is plain TCP: one that was cut off for a while sends again as long after that at the
 * latest, since its timer doubles; and where what was acknowledged last had been sent again it takes
 * the cut for a round trip (test/kernel/late-echo.test.ts), which comes to the same.  `churn-plain` is the
 * control.
 */
const silentMaxMs = (cutOffMs: number): number => ARRIVED_MAX_MS + cutOffMs;

/** Silences longer than this are noted. */
const GAP_MS = 10_000;

export const churn: Case = {
  name: 'churn',
  summary: '1,000 connections that talk all the time; ten moves, 0.2 to 5 s apart',
  options: OPTIONS,
  play: (stage) =>
    play(stage, { connections: 1000, moves: 10, pauseMs: [200, 5_000], bytesPerS: 1024 }),
};

/*
 * Not with the machine's default: after a minute in which a path is gone most of the time BBR takes it
 * for one of some kbit/s, and paces by that what has piled up, for minutes, however well the path
 * does by then.  Asked is whether tiflow brings the flow back.
 */
export const churnFew: Case = {
  name: 'churn-few',
  summary: 'five connections that talk all the time; 200 moves, most before the last is done',
  options: OPTIONS,
  play: (stage) =>
    play(stage, {
      ...{ connections: 5, moves: 200, pauseMs: [100, 600], bytesPerS: 20_000 },
      congestionControl: 'reno',
    }),
};

/* What the same blackouts do to plain TCP: the control of `churn`.  A flow of its is cut off from a move
 * until it is synchronized, which with a thousand of them is most of the time until the next.
 */
const CUT_OFF = 0.8;
const LAST_CUT_MS = 3_000;
const PLAIN_SILENT_MAX_MS = 60_000;

export const churnPlain: Case = {
  name: 'churn-plain',
  summary: 'the same without tiflow and without moves: the cable is pulled ten times',
  options: { ...OPTIONS, daemons: [] },
  play: async (stage) => {
    const transfer = await stage.transfer({ connections: 100, gapMs: GAP_MS });
    transfer.streams.write(1024);
    await transfer.streams.flowing(now());
    const pauses = [...pausesOf(stage.seed, 10, [200, 5_000]), LAST_CUT_MS / CUT_OFF];
    let last = now();
    for (const ms of pauses) {
      stage.unplug();
      await pause(ms * CUT_OFF);
      last = stage.plug('athos');
      if (ms !== pauses.at(-1)) await pause(ms * (1 - CUT_OFF));
    }
    const back = await transfer.streams.flowing(last, PLAIN_SILENT_MAX_MS);
    stage.figures.last_plug_to_all_talking_ms = Math.round(back - last);
    await stage.finish('100 transfers', transfer);
  },
};

async function play(stage: Stage, c: Churn): Promise<void> {
  const { connections, congestionControl } = c;
  if (congestionControl !== undefined) stage.chooseCongestionControl(congestionControl);
  const transfer = await stage.transfer({ connections, gapMs: GAP_MS });
  transfer.streams.write(c.bytesPerS);
  await transfer.streams.flowing(now());
  const first = now();
  const last = await moveAbout(stage, c);
  const arrived = await until('every flow', () => isThere(stage), ARRIVED_MAX_MS).catch(
    () => false,
  );
  const there = `every flow is where the VM is ${ARRIVED_MAX_MS / 1e3} s after the last move`;
  stage.check(there, arrived === true, arrived === true ? '' : await whoIs(stage));
  const boundMs = silentMaxMs(last - first);
  const back = await transfer.streams.flowing(last, boundMs).catch(() => undefined);
  const silent = `nobody is silent for longer than plain TCP may be, ${Math.round(boundMs / 1e3)} s`;
  stage.check(silent, back !== undefined, back === undefined ? await whoIs(stage) : '');
  if (back !== undefined) stage.figures.last_move_to_all_talking_ms = Math.round(back - last);
  await stage.finish(`${connections} transfers`, transfer);
}

/** Returns the moment of the last move. */
async function moveAbout(stage: Stage, { moves, pauseMs }: Churn): Promise<number> {
  let at = stage.move('porthos');
  for (const [i, ms] of pausesOf(stage.seed, moves, pauseMs).entries()) {
    await pause(ms);
    at = stage.move(i % 2 === 0 ? 'athos' : 'porthos');
  }
  return at;
}

/** Between so many moves; most are short. */
function pausesOf(seed: number, moves: number, [least, most]: readonly [number, number]): number[] {
  const draw = generator(seed);
  return Array.from({ length: moves - 1 }, () => least + draw() ** 2 * (most - least));
}

/** Whether both daemons hold every flow on one wire, which leads to the VM's address of now. */
async function isThere(stage: Stage): Promise<boolean> {
  const hosts = ['vm', 'aramis'] as const;
  const [ours = [], theirs = []] = await Promise.all(
    hosts.map((host) => stage.lab.daemon(host).flows()),
  );
  const wires = new Set(theirs.map(({ wire }) => wire));
  const address = stage.lab.vmAddress(stage.family);
  const here = stage.family === 4 ? `${address}:` : `[${address}]:`;
  const isOne = ({ state, wire }: FlowView): boolean =>
    state === 'steady' && wire.startsWith(here) && wires.has(mirror(wire));
  return ours.length > 0 && ours.every(isOne);
}

/** What the VM's daemon says of its flows, for who has to find out why. */
async function whoIs(stage: Stage): Promise<string> {
  const { flows, moves } = await stage.lab.daemon('vm').status();
  return `${flows.protected} flows, ${flows.moving} moving; ${moves.failed} moves failed`;
}

/** In [0, 1): Park and Miller's minimal standard, which is random enough for pauses. */
function generator(seed: number): () => number {
  let state = (seed % 2_147_483_646) + 1;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}
