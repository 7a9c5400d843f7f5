/**
 * Moves that are interrupted by the next one: the VM is carried from site to site faster than its
 * flows can follow, while every connection talks. Wherever a flow is on its way (waiting for its
 * turn, asked for, mapped and not proven), its next attempt has to start from where the VM is now.
 */
import type { Case, Stage } from '../stage.js';
import { now, pause } from '../wait.js';

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

/** After the last move nobody may be silent for longer. */
const SILENT_MAX_MS = 10_000;

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

async function play(stage: Stage, c: Churn): Promise<void> {
  const { connections, congestionControl } = c;
  if (congestionControl !== undefined) stage.chooseCongestionControl(congestionControl);
  const transfer = await stage.transfer({ connections, gapMs: SILENT_MAX_MS });
  transfer.streams.write(c.bytesPerS);
  await transfer.streams.flowing(now());
  const last = await moveAbout(stage, c);
  const back = await transfer.streams.flowing(last, SILENT_MAX_MS).catch(() => undefined);
  const silent = `nobody is silent ${SILENT_MAX_MS / 1e3} s after the last move`;
  stage.check(silent, back !== undefined, back === undefined ? await whoIs(stage) : '');
  if (back !== undefined) stage.figures.last_move_to_all_talking_ms = Math.round(back - last);
  await stage.finish(`${connections} transfers`, transfer);
}

/** Returns the moment of the last move. */
async function moveAbout(stage: Stage, { moves, pauseMs: [least, most] }: Churn): Promise<number> {
  const draw = generator(stage.seed);
  let at = now();
  for (let i = 1; i <= moves; i++) {
    at = stage.move(i % 2 === 1 ? 'porthos' : 'athos');
    // Most are short.
    if (i < moves) await pause(least + draw() ** 2 * (most - least));
  }
  return at;
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
