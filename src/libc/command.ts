/*
 * Runs the system's own network tools without keeping the event loop waiting.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { ERRNO, SystemError } from './errno.js';
import { onEvent } from './guard.js';

const TIMEOUT_MS = 20_000;
const LAST_WORDS_MS = 100;
const STDERR_SHOWN = 300;

/** Runs a command to its end; what it wrote to stdout.  Throws SystemError if it fails. */
export async function run(
  attempted: string,
  argv: readonly [string, ...string[]],
): Promise<string> {
  const [program, ...rest] = argv;
  const child = spawn(program, rest, {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let stderr = '';
  onEvent(child.stdout.setEncoding('utf8'), 'data', (text: string) => {
    stdout += text;
  });
  onEvent(child.stderr.setEncoding('utf8'), 'data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_SHOWN);
  });
  const closed = once(child, 'close').catch(() => undefined);
  let ended: unknown[];
  try {
    ended = await once(child, 'exit');
    // Its last words come after it.  But a client that goes to the background keeps our pipes.
    await Promise.race([closed, sleep(LAST_WORDS_MS)]);
  } catch (cause) {
    throw notStarted(attempted, program, cause);
  } finally {
    child.stdout.destroy();
    child.stderr.destroy();
  }
  const [code, signal] = ended as [number | null, string | null];
  if (code === 0) return stdout;
  const how = code === null ? `ended by ${signal}` : `exit code ${code}`;
  const hint = [`${argv.join(' ')}: ${how}`, stderr.trim()].filter(Boolean).join(': ');
  throw new SystemError(attempted, ERRNO.EIO ?? 5, { hint });
}

/** Starts a program that lives on without us.  Failures to start show in its absence only. */
export function start(attempted: string, argv: readonly [string, ...string[]]): void {
  const [program, ...rest] = argv;
  const child = spawn(program, rest, { stdio: 'ignore', detached: true });
  onEvent(child, 'error', (cause: Error) => {
    process.emitWarning(notStarted(attempted, program, cause));
  });
  child.unref();
}

function notStarted(attempted: string, program: string, cause: unknown): SystemError {
  const { errno = 0 } = cause as NodeJS.ErrnoException;
  return new SystemError(`${attempted}: start ${program}`, Math.abs(errno), { cause });
}
