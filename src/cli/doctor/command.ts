/* The system's own tools, asked for what they know. */

import { spawnSync } from 'node:child_process';

const COMMAND_TIMEOUT_MS = 5_000;

/** Exit status, or undefined when the tool is missing or did not end. */
export function run(
  command: string,
  args: readonly string[],
): { status: number | undefined; stdout: string; stderr: string } {
  const ended = spawnSync(command, args, { encoding: 'utf8', timeout: COMMAND_TIMEOUT_MS });
  return {
    status: ended.status ?? undefined,
    stdout: ended.stdout ?? '',
    stderr: (ended.stderr ?? '').trim(),
  };
}
