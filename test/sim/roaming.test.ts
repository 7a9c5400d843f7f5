/*
 * Machines whose addresses and links come and go faster than their flows can follow.  `SEED=n` replays one
 * run and prints its timeline; `SEEDS=n` plays the first n.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tupleText } from '../../src/wire/tuple.js';
import { WHOLE } from '../whole.js';
import { Roaming } from './roaming.js';

const SEEDS = Number(process.env.SEEDS ?? (WHOLE ? 100_000 : 2_000));
const seeds =
  process.env.SEED === undefined
    ? Array.from({ length: SEEDS }, (_, i) => i + 1)
    : [Number(process.env.SEED)];

function timeline(roaming: Roaming): string {
  return roaming.machines
    .flatMap((machine) => machine.events.map((event) => ({ host: machine.name, event })))
    .sort((a, b) => a.event.at - b.event.at)
    .map(({ host, event }) => {
      const { kernel, at, ...rest } = event;
      const wire = 'wire' in rest ? { wire: tupleText(rest.wire) } : {};
      const flow = Math.max(kernel.localPort, kernel.remotePort);
      return `${at.toFixed(0).padStart(7)} ${host} ${flow} ${JSON.stringify({ ...rest, ...wire })}`;
    })
    .join('\n');
}

test(`every flow follows a machine that roams (${seeds.length} seeds)`, (t) => {
  const total = { steps: 0, deaths: 0, packets: 0 };
  const longest = { restMs: 0, talkMs: 0 };
  for (const seed of seeds) {
    const roaming = new Roaming(seed);
    try {
      const outcome = roaming.run();
      total.steps += outcome.steps;
      total.deaths += outcome.deaths;
      total.packets += outcome.packets;
      longest.restMs = Math.max(longest.restMs, outcome.restMs);
      longest.talkMs = Math.max(longest.talkMs, outcome.talkMs);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const scenario = JSON.stringify(roaming.scenario);
      throw new Error(`SEED=${seed}: ${reason}\n${scenario}\n${timeline(roaming)}`, {
        cause: error,
      });
    }
    if (process.env.SEED !== undefined) t.diagnostic(timeline(roaming));
  }
  t.diagnostic(JSON.stringify({ ...total, ...longest }));
  if (seeds.length > 100) assert.ok(total.deaths > seeds.length / 4, 'daemons hardly ever die');
});
