#!/usr/bin/env node
/* `tiflow lab`, as a checkout has it: the test bench is no part of the product. */

import { newProgram, runProgram } from '../cli/program.js';
import { addLabCommands } from './cli.js';

const program = newProgram('tiflow, tried on one machine');
addLabCommands(program);
process.exitCode = await runProgram(program, process.argv.slice(2));
