/* Which addresses are this machine's, and which were.  Whether one is local now is the kernel's word,
 * wherever it comes from: an interface, a service address on lo, `ip route add local`.  Whether it
 * ever was one that the boundary guards is what has been seen on the interfaces that have it.
 *
 *   seen on an attached interface ──► not local any more ──► gone: its connections are lost
 *   never seen there (a tunnel's, a transparent proxy's) ──► none of ours to judge
 */

import type { Address } from '../../wire/address.js';

/* Some years of daily renumbering. */
const SEEN_MAX = 1024;

export interface OwnAddressesOptions {
  /** Whether the kernel delivers to it. */
  isLocal: (a: Address) => boolean;
  /** Whether it is that of transparent sockets, which need no address of this machine's. */
  isForeign: (a: Address) => boolean;
  /** Those that interfaces with a boundary have now. */
  attached: () => readonly Address[];
  /** Those of connections that the boundary knows from before. */
  former: readonly Address[];
}

export class OwnAddresses {
  readonly #o: OwnAddressesOptions;
  /** In the order of when they were last there. */
  readonly #seen = new Set<Address>();
  readonly #former: Set<Address>;

  constructor(o: OwnAddressesOptions) {
    this.#o = o;
    this.#former = new Set(o.former);
  }

  /** Those that were guarded here and are not local any more, by what the kernel says now. */
  gone(): Address[] {
    const there = this.#look();
    const known = new Set([...this.#seen, ...this.#former]);
    return [...known].filter((a) => !there.has(a) && !this.#o.isLocal(a));
  }

  /** Whether it is here, on an interface or not. */
  isLocal(a: Address): boolean {
    return this.#o.isLocal(a);
  }

  /** Whether it never was this machine's, and connections have it all the same. */
  isForeign(a: Address): boolean {
    this.#look();
    return !this.#seen.has(a) && this.#o.isForeign(a);
  }

  #look(): ReadonlySet<Address> {
    const there = new Set(this.#o.attached());
    for (const a of there) {
      this.#seen.delete(a);
      this.#seen.add(a);
    }
    for (const a of this.#seen) {
      if (this.#seen.size <= SEEN_MAX) break;
      this.#seen.delete(a);
    }
    return there;
  }

  /** Nothing is left that had this address. */
  forget(a: Address): void {
    this.#seen.delete(a);
    this.#former.delete(a);
  }
}
