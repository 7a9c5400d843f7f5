/*
 * Measures tiflow beside plain TCP and prints ratios:
 *
 *     node dist/bench/main.js [--quick] [--repetitions=N] [NAME...]
 *
 * Writes bench/results.json after each measurement; a run of some measurements leaves the others'
 * results there.  --quick takes few and short samples, to see whether everything works, and
 * writes nothing.  --repetitions is for the measurements with VMs, whose samples take long.
 */
import { cpus, release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { sweepOwn } from '../src/lab/own-name.js';
import { blackout } from './blackout.js';
import { eventCost } from './event-cost.js';
import { gatewayMany } from './gateway-many.js';
import { gatewayThroughput } from './gateway-throughput.js';
import { many } from './many.js';
import type { Measurement, MeasureOptions, Result } from './measurement.js';
import { optionsDropped } from './options-dropped.js';
import { perPacket } from './per-packet.js';
import { formatResults, keepResults, mergeResults } from './results.js';
import { setUpTime } from './set-up-time.js';
import { sleep } from './sleep.js';
import { throughput } from './throughput.js';
import { vmGap } from './vm-gap.js';
import { vmThroughput } from './vm-throughput.js';

const RESULTS = fileURLToPath(new URL('../../bench/results.json', import.meta.url));

const MEASUREMENTS: readonly Measurement[] = [
  ...[throughput, setUpTime, optionsDropped, perPacket, blackout, sleep, many],
  eventCost,
  ...[gatewayThroughput, gatewayMany, vmGap, vmThroughput],
];

const USAGE_EXIT = 2;
const REPETITIONS = '--repetitions=';

async function main(argv: readonly string[]): Promise<number> {
  const quick = argv.includes('--quick');
  const repetitions = repetitionsOf(argv);
  const names = argv.filter((argument) => !argument.startsWith('--'));
  const known = new Set(MEASUREMENTS.map((m) => m.name));
  const wrong = names.find((name) => !known.has(name));
  if (wrong !== undefined) {
    console.error(usage(wrong));
    return USAGE_EXIT;
  }
  for (const name of sweepOwn()) say(`swept ${name} that a killed run left behind`);
  say(`Linux ${release()}, ${cpus().length} CPUs, Node ${process.version}`);
  const all: Result[] = [];
  const failed: string[] = [];
  for (const m of MEASUREMENTS) {
    if (names.length > 0 && !names.includes(m.name)) continue;
    const results = await run(m, { quick, say, ...(repetitions && { repetitions }) });
    if (results === undefined) failed.push(m.name);
    else all.push(...results);
  }
  if (failed.length > 0) {
    console.error(`\ncould not be measured: ${failed.join(', ')}`);
    return 1;
  }
  if (names.length === 0 && !quick) keepResults(RESULTS, new Set(all.map((r) => r.name)));
  return 0;
}

/* One that fails must not keep the others from being made. */
async function run(m: Measurement, o: MeasureOptions): Promise<Result[] | undefined> {
  const begun = Date.now();
  say(`${m.name}: ${m.summary}`);
  try {
    const results = await m.measure(o);
    if (!o.quick) mergeResults(RESULTS, results);
    say(`${m.name}: ${((Date.now() - begun) / 1000).toFixed(0)} s`);
    console.log(`\n${formatResults(results)}\n`);
    return results;
  } catch (error) {
    console.error(`${m.name}: ${(error as Error).stack}`);
    return undefined;
  }
}

const say = (text: string): void => console.error(`# ${text}`);

function repetitionsOf(argv: readonly string[]): number | undefined {
  const said = argv.find((argument) => argument.startsWith(REPETITIONS));
  return said === undefined ? undefined : Number(said.slice(REPETITIONS.length));
}

function usage(wrong: string): string {
  const list = MEASUREMENTS.map((m) => `  ${m.name.padEnd(12)} ${m.summary}`);
  return [`no measurement "${wrong}". There are:`, ...list].join('\n');
}

// Explicit: what a failed measurement left open must not keep the process, and its hosts, alive.
process.exit(await main(process.argv.slice(2)));
