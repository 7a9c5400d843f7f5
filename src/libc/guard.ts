/*
 * The one guard around everything that the world calls: readable descriptors, timers, events of
 * sockets and children.  What one such call sets off is a *round*.
 *
 * What the world refuses in it (a firewall's EPERM, a full file system, an interface that is gone
 * since) is one failed round: told, and over.  Whoever called calls again, and the daemon tries
 * all that can be done again (daemon/failed-rounds.ts).  Our own mistakes go through and end the
 * process; the pinned data plane keeps forwarding.
 *
 * Nothing else in the daemon may call setTimeout() and the like: test/daemon/sources.test.ts looks.
 * Rejected: a handler of uncaughtException, which would need no such rule, but ends the round of
 * everybody who was to be told of the same event, and cannot let one of a thousand flows fail alone.
 */
import { SystemError } from './errno.js';

/** Tells of a failed round. */
export type OnFailure = (error: Error) => void;

let onFailure: OnFailure | undefined;

/** From now on failures of the world are told, not thrown.  Comes back with what ends that. */
export function guardRounds(told: OnFailure): () => void {
  onFailure = told;
  return () => {
    if (onFailure === told) onFailure = undefined;
  };
}

/** Runs one round, or a part of one that must not take the rest with it; false: it failed. */
export function attempt(round: () => void): boolean {
  try {
    round();
    return true;
  } catch (error) {
    if (onFailure === undefined || !isOfWorld(error)) throw error;
    onFailure(error);
    return false;
  }
}

/** The same for a callback. */
export const guarded =
  <A extends unknown[]>(round: (...args: A) => void): ((...args: A) => void) =>
  (...args) => {
    attempt(() => round(...args));
  };

/** setTimeout, setInterval and setImmediate. */
export const after = (ms: number, round: () => void): NodeJS.Timeout =>
  setTimeout(guarded(round), ms);
export const every = (ms: number, round: () => void): NodeJS.Timeout =>
  setInterval(guarded(round), ms);
export const soon = (round: () => void): NodeJS.Immediate => setImmediate(guarded(round));

/** emitter.on(). */
export function onEvent(
  emitter: NodeJS.EventEmitter,
  event: string,
  round: (...args: never[]) => void,
): void {
  emitter.on(event, guarded(round as (...args: unknown[]) => void));
}

/* Descriptors and memory are ours: the world cannot make them wrong. */
const OWN_MISTAKES = ['EBADF', 'EFAULT', 'ENOTSOCK'];

/** Whether the world refused something: an error with an errno's name. */
export function isOfWorld(error: unknown): error is Error & { code: string } {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') {
    return false;
  }
  if (OWN_MISTAKES.includes(error.code)) return false;
  // Node's own complaints about arguments are called ERR_…
  return error instanceof SystemError || /^E[A-Z0-9]+$/.test(error.code);
}
