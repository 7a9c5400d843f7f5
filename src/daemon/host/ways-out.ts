/* By which interface a packet of ours leaves, if a boundary is on it, which then takes it to its next
 * hop past netfilter.  Asked once where a thousand flows want to know at once.
 */

import type { Ends, Routes } from './routes.js';

/* Somebody else may take our programs off at any time. */
const AGE_MAX_MS = 1_000;

export interface WaysOutOptions {
  routes: Pick<Routes, 'from'>;
  /** The names of the interfaces with a boundary. */
  attached: () => readonly string[];
  indexOf: (name: string) => number | undefined;
  nowMs: () => number;
}

export class WaysOut {
  readonly #o: WaysOutOptions;
  #attached = new Set<string>();
  #since = Number.NEGATIVE_INFINITY;

  constructor(o: WaysOutOptions) {
    this.#o = o;
  }

  /** The index of the interface; undefined: the kernel would send it by another one, or not at all. */
  of({ local, remote }: Ends): number | undefined {
    const name = this.#o.routes.from(local, remote)?.interface;
    return name !== undefined && this.#isAttached(name) ? this.#o.indexOf(name) : undefined;
  }

  /** To be called when interfaces were attached or detached, or have come or gone. */
  changed(): void {
    this.#since = Number.NEGATIVE_INFINITY;
  }

  #isAttached(name: string): boolean {
    const nowMs = this.#o.nowMs();
    if (nowMs - this.#since > AGE_MAX_MS) {
      this.#attached = new Set(this.#o.attached());
      this.#since = nowMs;
    }
    return this.#attached.has(name);
  }
}
