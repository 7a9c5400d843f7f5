/* Links whose carrier went: until an address server or a router has spoken on what is behind
 * them now, nobody knows whether their addresses are still any good.  Flows on them stay held: what
 * left in that time would carry an address of another network, its answers would go to whoever has
 * that address now, and the one kick that a backed-off kernel obeys would be wasted.
 */

import type { Clock } from '../../sync/agent.js';
import type { Family } from '../../wire/address.js';

/* A network without DHCP and without a router never speaks. */
const SETTLING_MAX_MS = 4_000;

const FAMILIES: Family[] = [4, 6];

export class Settling {
  readonly #timers = new Map<string, unknown>();

  /** `onSettled`: a link and family has settled. */
  constructor(
    private readonly clock: Clock,
    private readonly onSettled: () => void,
  ) {}

  /** The carrier went or came. */
  begin(interfaceName: string): void {
    for (const family of FAMILIES) {
      const key = keyOf(interfaceName, family);
      this.clock.clearTimer(this.#timers.get(key));
      const end = this.clock.setTimer(SETTLING_MAX_MS, () => this.end(interfaceName, family));
      this.#timers.set(key, end);
    }
  }

  /** It is known by now which addresses of the family are good there.  No-op if it was before. */
  end(interfaceName: string, family: Family): void {
    const key = keyOf(interfaceName, family);
    if (!this.#timers.has(key)) return;
    this.clock.clearTimer(this.#timers.get(key));
    this.#timers.delete(key);
    this.onSettled();
  }

  isSettling(interfaceName: string, family: Family): boolean {
    return this.#timers.has(keyOf(interfaceName, family));
  }

  close(): void {
    for (const timer of this.#timers.values()) this.clock.clearTimer(timer);
  }
}

const keyOf = (interfaceName: string, family: Family): string => `${interfaceName}/${family}`;
