/* Tells the operator's own systems that a VM has other addresses on the network now: runs the
 * command of the configuration, such as one that updates DNS (etc/nsupdate-hook).
 *
 * Moves of one VM are told one after the other, so that the last one stands; while one is being
 * told the next ones wait as one.  Nobody waits for the command, and it can fail nothing.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Logger } from 'pino';
import { after, onEvent } from '../../libc/guard.js';
import type { Address, Family } from '../../wire/address.js';

/* An update of DNS that is answered at all is answered within seconds. */
const TIMEOUT_MS = 30_000;

/* Of one run; the rest is read away. */
const LINES_MAX = 50;

/** The addresses of a VM on the network, at most one of each family. */
export type OutsideAddresses = Partial<Record<Family, Address>>;

export interface AddressMove {
  /** Name of its tap. */
  vm: string;
  mac: string;
  old: OutsideAddresses;
  new: OutsideAddresses;
}

export interface MovedHookOptions {
  /** For `sh -c`; undefined: nobody wants to know. */
  command: string | undefined;
  log: Logger;
  timeoutMs?: number;
}

export class MovedHook {
  #o: MovedHookOptions;
  /** VMs whose move is being told, and what is to be told next. */
  #telling = new Map<string, AddressMove | undefined>();

  constructor(o: MovedHookOptions) {
    this.#o = o;
  }

  /** A VM has come to other addresses; no-op if they are those it had. */
  moved(move: AddressMove): void {
    if (this.#o.command === undefined || sameAddresses(move)) return;
    if (!this.#telling.has(move.vm)) {
      this.#tell(move, this.#o.command);
      return;
    }
    const waiting = this.#telling.get(move.vm);
    this.#telling.set(move.vm, waiting === undefined ? move : { ...move, old: waiting.old });
  }

  #tell(move: AddressMove, command: string): void {
    this.#telling.set(move.vm, undefined);
    const child = spawn('sh', ['-c', command], {
      env: { ...process.env, ...environment(move) },
      stdio: ['ignore', 'pipe', 'pipe'],
      // A process group of its own, so that all of it can be ended.
      detached: true,
    });
    child.unref();
    const log = this.#o.log.child({ vm: move.vm, hook: 'moved' });
    let lines = 0;
    for (const stream of [child.stdout, child.stderr]) {
      eachLine(stream, (line) => {
        lines += 1;
        if (lines <= LINES_MAX) log.info(line);
      });
    }
    const timeoutMs = this.#o.timeoutMs ?? TIMEOUT_MS;
    const timer = after(timeoutMs, () => endGroup(child)).unref();
    const over = (how: string | undefined): void => {
      clearTimeout(timer);
      if (how !== undefined) log.warn({ command }, `vm.moved failed: ${how}`);
      const next = this.#telling.get(move.vm);
      this.#telling.delete(move.vm);
      if (next !== undefined) this.moved(next);
    };
    onEvent(child, 'error', (error: Error) => over(error.message));
    onEvent(child, 'exit', (code: number | null, signal: NodeJS.Signals | null) =>
      over(howItEnded(code, signal, timeoutMs)),
    );
  }
}

/* What is not there is empty, not unset: hooks run under `set -u`. */
function environment(move: AddressMove): Record<string, string> {
  return {
    TIFLOW_VM: move.vm,
    TIFLOW_MAC: move.mac,
    TIFLOW_OLD4: move.old[4] ?? '',
    TIFLOW_NEW4: move.new[4] ?? '',
    TIFLOW_OLD6: move.old[6] ?? '',
    TIFLOW_NEW6: move.new[6] ?? '',
  };
}

const sameAddresses = (move: AddressMove): boolean =>
  move.old[4] === move.new[4] && move.old[6] === move.new[6];

function howItEnded(
  code: number | null,
  signal: NodeJS.Signals | null,
  timeoutMs: number,
): string | undefined {
  if (code === 0) return undefined;
  if (signal === 'SIGKILL') return `killed, as it took longer than ${timeoutMs} ms`;
  return code === null ? `ended by ${signal}` : `exit code ${code}`;
}

/* Something that it left in the background may hold on to the pipes: they keep nobody alive. */
function eachLine(stream: Readable, onLine: (line: string) => void): void {
  (stream as Readable & { unref?(): void }).unref?.();
  onEvent(createInterface({ input: stream }), 'line', onLine);
}

function endGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
