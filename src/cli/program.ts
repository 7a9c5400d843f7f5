/* What a command line of tiflow is given and ends with: options of its own, exit codes, and the only place
 * that turns an error into one.
 */

import { Command, CommanderError } from 'commander';
import { tiflowVersion } from '../daemon/view/version.js';
import { EXIT, tell } from './exit.js';

/** A program without verbs. */
export const newProgram = (description: string): Command =>
  new Command('tiflow')
    .description(description)
    .version(tiflowVersion(), '-V, --version')
    .showSuggestionAfterError()
    .showHelpAfterError('(tiflow --help shows what there is)')
    .exitOverride();

/** Runs one command line; returns the exit code.  `args` without interpreter and script. */
export async function runProgram(program: Command, args: string[]): Promise<number> {
  process.stdout.on('error', endWithOutput);
  try {
    await program.parseAsync(args, { from: 'user' });
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
