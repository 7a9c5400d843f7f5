/* On which interfaces the boundary is wanted: those of the configuration, and those that somebody
 * has asked for since.  One that is not there, or cannot carry it, keeps nothing else from being
 * protected: it is shown with its reason, and taken when it appears, under whatever index.
 */

import { SystemError } from '../../libc/errno.js';
import type { MissingView } from '../view/view.js';

interface Want {
  gateway: boolean | undefined;
  /** Why the boundary is not on it; undefined: it is. */
  why: string | undefined;
}

export interface WantedOptions {
  /** Throws SystemError. */
  attach: (name: string, gateway: boolean | undefined) => void;
  warn: (message: string, error: Error) => void;
}

/* These concern the process, not the interface: it cannot go on. */
const FATAL = ['EPERM', 'EACCES'];

export class Wanted {
  readonly #o: WantedOptions;
  readonly #wants = new Map<string, Want>();

  constructor(o: WantedOptions) {
    this.#o = o;
  }

  /** Attaches it, now or when it can be. */
  add(name: string, gateway: boolean | undefined): void {
    const want: Want = { gateway, why: undefined };
    this.#wants.set(name, want);
    this.#try(name, want);
  }

  /** Somebody has attached it otherwise. */
  attached(name: string, gateway: boolean | undefined): void {
    this.#wants.set(name, { gateway, why: undefined });
  }

  /** Nobody wants it any more; undefined: any. */
  forget(name: string | undefined): void {
    if (name === undefined) this.#wants.clear();
    else this.#wants.delete(name);
  }

  /** An interface has come: perhaps under the name of one that went. */
  appeared(name: string): void {
    const want = this.#wants.get(name);
    if (want !== undefined) this.#try(name, want);
  }

  /** An interface has gone. */
  vanished(name: string): void {
    const want = this.#wants.get(name);
    if (want !== undefined) want.why = 'it is gone';
  }

  /** Tries those again that are missing. */
  retry(): void {
    for (const [name, want] of this.#wants) if (want.why !== undefined) this.#try(name, want);
  }

  missing(): MissingView[] {
    return [...this.#wants].flatMap(([name, { gateway, why }]) =>
      why === undefined ? [] : { name, gateway: gateway ?? false, why },
    );
  }

  #try(name: string, want: Want): void {
    const before = want.why;
    try {
      this.#o.attach(name, want.gateway);
      want.why = undefined;
    } catch (error) {
      if (!(error instanceof SystemError) || FATAL.includes(error.code)) throw error;
      want.why = error.message;
      if (before !== want.why) this.#o.warn(`${name} is not protected: ${error.message}`, error);
    }
  }
}
