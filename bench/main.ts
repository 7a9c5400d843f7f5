/*
 * Measures tiflow beside plain TCP and prints ratios:  node dist/bench/main.js [--quick] [NAME...]
 *
 * Writes bench/results.json after each measurement; a run of some measurements leaves the others'
 * results there.  --quick takes few and short samples, to see whether everything works, and
 * writes nothing.
 */
import { cpus, release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { blackout } from './blackout.js';
import { sweepStale } from './host.js';
import { many } from './many.js';
import type { Measurement } from './measurement.js';
import { perPacket } from './per-packet.js';
import { formatResults, mergeResults } from './results.js';
import { setUpTime } from './set-up-time.js';
import { throughput } from './throughput.js';

const RESULTS = fileURLToPath(new URL('../../bench/results.json', import.meta.url));

const MEASUREMENTS: readonly Measurement[] = [throughput, setUpTime, perPacket, blackout, many];

const USAGE_EXIT = 2;

async function main(argv: readonly string[]): Promise<number> {
  const quick = argv.includes('--quick');
  const names = argv.filter((argument) => argument !== '--quick');
  const known = new Set(MEASUREMENTS.map((m) => m.name));
  const wrong = names.find((name) => !known.has(name));
  if (wrong !== undefined) {
    console.error(usage(wrong));
    return USAGE_EXIT;
  }
  for (const name of sweepStale()) say(`swept ${name} that a killed run left behind`);
  say(`Linux ${release()}, ${cpus().length} CPUs, Node ${process.version}`);
  const failed: string[] = [];
  for (const m of MEASUREMENTS) {
    if (names.length > 0 && !names.includes(m.name)) continue;
    if (!(await run(m, quick))) failed.push(m.name);
  }
  if (failed.length > 0) console.error(`\ncould not be measured: ${failed.join(', ')}`);
  return failed.length > 0 ? 1 : 0;
}

/* One that fails must not keep the others from being made. */
async function run(m: Measurement, quick: boolean): Promise<boolean> {
  const begun = Date.now();
  say(`${m.name}: ${m.summary}`);
  try {
    const results = await m.measure({ quick, say });
    if (!quick) mergeResults(RESULTS, results);
    say(`${m.name}: ${((Date.now() - begun) / 1000).toFixed(0)} s`);
    console.log(`\n${formatResults(results)}\n`);
    return true;
  } catch (error) {
    console.error(`${m.name}: ${(error as Error).stack}`);
    return false;
  }
}

const say = (text: string): void => console.error(`# ${text}`);

function usage(wrong: string): string {
  const list = MEASUREMENTS.map((m) => `  ${m.name.padEnd(12)} ${m.summary}`);
  return [`no measurement "${wrong}". There are:`, ...list].join('\n');
}

// Explicit: what a failed measurement left open must not keep the process, and its hosts, alive.
process.exit(await main(process.argv.slice(2)));
