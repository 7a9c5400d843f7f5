/*
 * Two thousand runs of two machines on a hostile link.  `SEED=n` replays one run and prints its
 * timeline; `SEEDS=n` plays the first n.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tupleText } from '../../src/wire/tuple.js';
import { WHOLE } from '../whole.js';
import { World } from './world.js';

const SEEDS = Number(process.env.SEEDS ?? (WHOLE ? 100_000 : 2_000));
const seeds =
  process.env.SEED === undefined
    ? Array.from({ length: SEEDS }, (_, i) => i + 1)
    : [Number(process.env.SEED)];

function timeline(world: World): string {
  return world.hosts
    .flatMap((host) => host.events.map((event) => ({ host: host.name, event })))
    .sort((a, b) => a.event.at - b.event.at)
    .map(({ host, event }) => {
      const { kernel: _, at, ...rest } = event;
      const wire = 'wire' in rest ? { wire: tupleText(rest.wire) } : {};
      return `${at.toFixed(0).padStart(7)} ${host} ${JSON.stringify({ ...rest, ...wire })}`;
    })
    .join('\n');
}

test(`the stream survives every move on a hostile link (${seeds.length} seeds)`, (t) => {
  const total = { moves: 0, deaths: 0, packets: 0 };
  for (const seed of seeds) {
    const world = new World(seed);
    try {
      const outcome = world.run();
      total.moves += outcome.moves;
      total.deaths += outcome.deaths;
      total.packets += outcome.packets;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const scenario = JSON.stringify(world.scenario);
      throw new Error(`SEED=${seed}: ${reason}\n${scenario}\n${timeline(world)}`, { cause: error });
    }
    if (process.env.SEED !== undefined) t.diagnostic(timeline(world));
  }
  t.diagnostic(JSON.stringify(total));
  if (seeds.length > 100) assert.ok(total.deaths > seeds.length / 4, 'daemons hardly ever die');
});
