/* What the CLI ends with: few codes, stable, documented in docs/OPERATIONS.md.
 *
 * Verbs throw; here every error becomes an exit code and the lines for stderr.
 */

import { DaemonNotRunning } from '../daemon/api/client.js';
import { ConfigError } from '../daemon/config/config.js';

export const EXIT = {
  ok: 0,
  failure: 1,
  /** Wrong arguments, or a broken configuration. */
  usage: 2,
  /** Nothing listens on the daemon's socket. */
  notRunning: 3,
  /** EPERM or EACCES, or capabilities are missing. */
  notPermitted: 4,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** What the user asked for cannot be done as asked. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** A verb failed, for a reason that its message explains completely. */
export class VerbError extends Error {
  override readonly name = 'VerbError';
  constructor(
    message: string,
    readonly exit: ExitCode = EXIT.failure,
  ) {
    super(message);
  }
}

/** Says on stderr what went wrong, and what to end with. */
export function tell(error: unknown): ExitCode {
  const { exit, text } = explainError(error);
  process.stderr.write(text.replace(/^/gm, 'tiflow: ').concat('\n'));
  return exit;
}

/** The exit code of an error, and what to print. */
export function explainError(error: unknown): { exit: ExitCode; text: string } {
  if (!(error instanceof Error)) return { exit: EXIT.failure, text: String(error) };
  const exit = exitOf(error);
  if (exit !== undefined) return { exit, text: error.message };
  // Not foreseen, so a mistake of ours: only then is the stack of use.
  return { exit: EXIT.failure, text: error.stack ?? error.message };
}

function exitOf(error: Error): ExitCode | undefined {
  if (error instanceof VerbError) return error.exit;
  if (error instanceof UsageError || error instanceof ConfigError) return EXIT.usage;
  if (error instanceof DaemonNotRunning) return EXIT.notRunning;
  const code = 'code' in error ? error.code : undefined;
  if (code === 'EPERM' || code === 'EACCES') return EXIT.notPermitted;
  return typeof code === 'string' ? EXIT.failure : undefined;
}
