/* What the last daemon knew of the links, so that the next one notices a cable that was changed
 * between the two: the kernel counts how often the carrier came or went.
 *
 * A count is remembered only when all that follows a change has had its time; who starts before
 * that does it again, and finds the same or a better address.
 */

import { z } from 'zod';
import { after, attempt } from '../../libc/guard.js';
import { linkMemoryPath } from '../config/run-directory.js';
import { readState, writeState } from '../config/state-file.js';

/* A verification, a renewal and the last router solicitation, 8 s after the carrier. */
const SETTLED_MS = 10_000;

const shape = z.record(z.string(), z.object({ index: z.number(), carrierChanges: z.number() }));

export type LinkCounts = z.output<typeof shape>;

export class LinkMemory {
  #path: string;
  #look: () => LinkCounts;
  #timer: NodeJS.Timeout | undefined;

  /** `look`: the links that carry a boundary now. */
  constructor(runDir: string, look: () => LinkCounts) {
    this.#path = linkMemoryPath(runDir);
    this.#look = look;
  }

  /** Links whose carrier came or went since a daemon remembered them.  A new link is none. */
  changed(): string[] {
    const before = this.#read();
    return Object.entries(this.#look())
      .filter(([name, link]) => {
        const known = before[name];
        return known?.index === link.index && known.carrierChanges !== link.carrierChanges;
      })
      .map(([name]) => name);
  }

  /** To be called at the start, and when a link has changed or is a new one. */
  remember(): void {
    attempt(() => this.#write({ ...this.#look(), ...this.#read() }));
    clearTimeout(this.#timer);
    this.#timer = after(SETTLED_MS, () => this.#write(this.#look()));
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #write(counts: LinkCounts): void {
    writeState(this.#path, counts);
  }

  #read(): LinkCounts {
    return readState(this.#path, shape) ?? {}; // the first daemon here
  }
}
