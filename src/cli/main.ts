#!/usr/bin/env node
/* The `tiflow` command: one file per verb, added here.
 *
 * Not here: what a verb does.  Verbs throw; this is the only place that turns an error into an
 * exit code.
 */

import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command, CommanderError } from 'commander';
import { tiflowVersion } from '../daemon/version.js';
import { addLabCommands } from '../lab/cli.js';
import { addDaemon } from './daemon.js';
import { addDoctor } from './doctor.js';
import { addDown } from './down.js';
import { EXIT, tell } from './exit.js';
import { addFlows } from './flows.js';
import { addFreeze } from './freeze.js';
import { addMigrate } from './migrate.js';
import { addMonitor } from './monitor.js';
import { addProbe } from './probe.js';
import { addReceive } from './receive.js';
import { addStatus } from './status.js';
import { addUp } from './up.js';

function buildProgram(): Command {
  const program = new Command('tiflow')
    .description('TCP connections that go on when either end gets a new IP address')
    .version(tiflowVersion(), '-V, --version')
    .showSuggestionAfterError()
    .showHelpAfterError('(tiflow --help shows what there is)')
    .exitOverride();
  addUp(program);
  addDown(program);
  addStatus(program);
  addFlows(program);
  addMonitor(program);
  addFreeze(program);
  addDoctor(program);
  addProbe(program);
  addDaemon(program);
  addMigrate(program);
  addReceive(program);
  addLabCommands(program);
  return program;
}

/** Runs one command line; returns the exit code.  `args` without interpreter and script. */
export async function main(args: string[]): Promise<number> {
  process.stdout.on('error', endWithOutput);
  try {
    await buildProgram().parseAsync(args, { from: 'user' });
    return Number(process.exitCode ?? EXIT.ok);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    return tell(error);
  }
}

/* `tiflow flows | head -1` is no failure. */
function endWithOutput(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') process.exit(EXIT.ok);
  process.stderr.write(`tiflow: write to standard output: ${error.code ?? error.message}\n`);
  process.exit(EXIT.failure);
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  process.exitCode = await main(process.argv.slice(2));
}
