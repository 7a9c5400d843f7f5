#!/usr/bin/env node
/* The `tiflow` command: one file per verb, added here.
 *
 * Not here: what a verb does.  The test bench has an entry of its own (lab/main.ts).
 */

import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { addDaemon } from './daemon.js';
import { addDoctor } from './doctor.js';
import { addDown } from './down.js';
import { addFlows } from './flows.js';
import { addFreeze } from './freeze.js';
import { addMigrate } from './migrate.js';
import { addMonitor } from './monitor.js';
import { addProbe } from './probe.js';
import { newProgram, runProgram } from './program.js';
import { addReceive } from './receive.js';
import { addReload } from './reload.js';
import { addStatus } from './status.js';
import { addUp } from './up.js';

function buildProgram(): Command {
  const program = newProgram('TCP connections that go on when either end gets a new IP address');
  addUp(program);
  addDown(program);
  addStatus(program);
  addFlows(program);
  addMonitor(program);
  addFreeze(program);
  addDoctor(program);
  addProbe(program);
  addDaemon(program);
  addReload(program);
  addMigrate(program);
  addReceive(program);
  return program;
}

/** Runs one command line; returns the exit code.  `args` without interpreter and script. */
export const main = (args: string[]): Promise<number> => runProgram(buildProgram(), args);

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  process.exitCode = await main(process.argv.slice(2));
}
