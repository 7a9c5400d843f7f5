/**
 * `tiflow lab run`: plays a case and tells how it goes, for a terminal or for a program.
 */
import type { Command } from 'commander';
import { UsageError } from '../cli/exit.js';
import { type AnyCase, CASES } from './cases/table.js';
import { verb, wholeNumber } from './cli-verb.js';
import { runHostsVerb } from './host-cases/cli.js';
import { runMatrixVerb } from './matrix/cli.js';
import { type CaseResult, runCase } from './runner.js';
import { Show } from './show.js';
import type { Family } from './topology.js';

interface RunVerbOptions {
  ipv6?: boolean;
  json?: boolean;
  show?: boolean;
  keep?: boolean;
  seed: number;
  wire?: string;
  page?: string;
}

/** Adds `run` to the verbs of the lab. */
export function addRun(lab: Command): void {
  lab
    .command('run')
    .argument('<case>', 'see `lab list`; matrix: all middleboxes; hosts: all of host-*')
    .argument('[row]', 'of the matrix')
    .description('play a case in a lab of its own; exit 0 only if all its checks hold')
    .option('--ipv6', 'over IPv6 (default: IPv4; real guests: both)')
    .option('--json', 'end with one JSON line on standard output')
    .option('--show', 'show interfaces, connections and the timeline, as the paper does')
    .option('--keep', 'leave the lab standing if the case fails')
    .option('--seed <n>', 'of everything random', wholeNumber, 1)
    .option('--wire <impairment>', 'a userspace wire at aramis: delay=50ms,loss=1%,…')
    .option('--page <file>', 'matrix, hosts: write docs/MIDDLEBOXES.md, docs/HOSTS.md')
    .action((name: string, row: string | undefined, o: RunVerbOptions) =>
      verb(() => (name in SERIES ? series(name as Series, row, o) : run(name, row, o))),
    );
}

/** What is played as a whole, and has a page. */
const SERIES = { matrix: runMatrixVerb, hosts: runHostsVerb };
type Series = keyof typeof SERIES;

async function series(name: Series, row: string | undefined, o: RunVerbOptions): Promise<void> {
  const { json = false, seed, page, ipv6, show, keep, wire } = o;
  if (ipv6 || show || keep || wire !== undefined) {
    throw new UsageError(`${name}: --ipv6, --show, --keep and --wire are for single cases`);
  }
  if (name === 'hosts' && row !== undefined) throw new UsageError(`${name}: its rows are cases`);
  const ok = await SERIES[name]({ row, json, seed, page, onStep: printStep });
  process.exitCode = ok ? 0 : 1;
}

async function run(name: string, row: string | undefined, o: RunVerbOptions): Promise<void> {
  if (row !== undefined || o.page !== undefined) {
    throw new UsageError(`${name}: a row is for the matrix, --page for matrix and hosts`);
  }
  const known = CASES.find((c) => c.name === name);
  if (!known) {
    throw new UsageError(`no case ${name} (there are ${CASES.map((c) => c.name).join(', ')})`);
  }
  const show = o.show ? new Show(process.stdout) : undefined;
  const isOfGuests = 'vm' in known;
  if (isOfGuests && o.ipv6) throw new UsageError(`${name}: its guests talk over both families`);
  const family = familyOf(known, o);
  show?.begin(name, known.summary, familyText(isOfGuests ? 'both' : family));
  const result = await runCase(name, {
    family,
    seed: o.seed,
    wire: o.wire,
    keep: o.keep,
    onStep: show ? (text, at) => show.step(text, at) : printStep,
    onExhibit: show && ((exhibit) => show.exhibit(exhibit)),
  });
  show?.end(result);
  if (o.json) process.stdout.write(`${JSON.stringify(result)}\n`);
  else if (!show) process.stdout.write(`${summary(result)}\n`);
  process.exitCode = result.ok ? 0 : 1;
}

function familyOf(known: AnyCase, { ipv6 = false }: RunVerbOptions): Family {
  const only = 'families' in known && known.families?.length === 1 ? known.families[0] : undefined;
  if (only === 4 && ipv6) throw new UsageError(`${known.name}: is about IPv4`);
  return only ?? (ipv6 ? 6 : 4);
}

const printStep = (text: string, afterMs: number): void => {
  process.stderr.write(`${(afterMs / 1e3).toFixed(3).padStart(7)} s  ${text}\n`);
};

const familyText = (family: CaseResult['family']): string =>
  family === 'both' ? 'IPv4 and IPv6' : `IPv${family}`;

function summary(result: CaseResult): string {
  const failed = result.checks.filter((check) => !check.ok).length;
  const verdict = result.ok ? 'ok' : `FAILED (${failed} of ${result.checks.length} checks)`;
  const gaps = result.gap_ms.length > 0 ? `, gaps ${result.gap_ms.join(' ')} ms` : '';
  return `${result.case} over ${familyText(result.family)}: ${verdict}, ${result.moves} moves${gaps}`;
}
