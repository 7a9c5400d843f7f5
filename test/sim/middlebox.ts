/*
 * A NAT or firewall on the way that may lose its state at any moment: what it knew gets through no more,
 * and a SYN makes it known again.
 */
import type { Packet } from '../../src/wire/packet.js';
import { tupleText } from '../../src/wire/tuple.js';
import { incoming, outgoing } from './boundary-model.js';

export class Middlebox {
  readonly #known = new Set<string>();
  readonly #forgotten = new Set<string>();

  passes(p: Packet): boolean {
    const ways = [tupleText(outgoing(p)), tupleText(incoming(p))];
    const isSyn = p.flags.startsWith('S') && !p.flags.includes('A');
    for (const way of ways) {
      this.#known.add(way);
      if (isSyn) this.#forgotten.delete(way);
    }
    return !ways.some((way) => this.#forgotten.has(way));
  }

  forget(): void {
    for (const way of this.#known) this.#forgotten.add(way);
  }
}
