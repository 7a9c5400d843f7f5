/* Legacy connections whose address is gone: nothing can move them, so their programs are told
 * once the machine has been reachable elsewhere for `give_up`, instead of after the 15 minutes
 * that the kernel would go on trying.
 *
 * Only those that the boundary guarded, by an address that it has seen here, and that the kernel does
 * not call local any more.  All else is none of ours: a tunnel's that reconnects, a transparent
 * proxy's, those behind this machine's own NAT that have a flow.
 */

import type { Boundary } from '../../boundary/boundary.js';
import { after, attempt } from '../../libc/guard.js';
import { monotonicMs } from '../../libc/monotonic.js';
import type { SocketRecord } from '../../link/inet-diag.js';
import { type Address, family } from '../../wire/address.js';
import { type Tuple, tupleText } from '../../wire/tuple.js';
import type { OwnAddresses } from '../host/own-addresses.js';
import { type LegacyConnection, legacyConnections } from '../view/flow-views.js';
import type { Emit } from '../view/monitor-events.js';

export interface OrphansOptions {
  boundary: Pick<Boundary, 'flow' | 'plain'>;
  own: Pick<OwnAddresses, 'gone' | 'forget'>;
  /** The TCP sockets that have this address. */
  sockets: (local: Address) => readonly SocketRecord[];
  wireOf: (socket: Tuple) => Tuple | undefined;
  destroySocket: (socket: Tuple) => boolean;
  /** Whether the machine has another address of the family, where it can be reached. */
  isElsewhere: (version: 4 | 6) => boolean;
  giveUpMs: number;
  emit: Emit;
  /** Whether this kernel can end sockets: else programs hear of it from TCP, in its own time. */
  canDestroy: boolean;
}

export class Orphans {
  readonly #o: OrphansOptions;
  /** Since when there is another address, by address that is gone; undefined: there is none yet. */
  readonly #gone = new Map<Address, number | undefined>();
  #timer: NodeJS.Timeout | undefined;

  constructor(o: OrphansOptions) {
    this.#o = o;
  }

  /** To be called when addresses have changed. */
  update(): void {
    if (!this.#o.canDestroy) return;
    const gone = new Set(this.#o.own.gone());
    for (const address of this.#gone.keys()) if (!gone.has(address)) this.#gone.delete(address);
    for (const address of gone) {
      if (!this.#gone.has(address) && !this.#isInUse(address)) continue;
      const since = this.#gone.get(address) ?? monotonicMs();
      this.#gone.set(address, this.#o.isElsewhere(family(address)) ? since : undefined);
    }
    this.#arm();
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  /* Asked once: no connection can begin on an address that is gone. */
  #isInUse(gone: Address): boolean {
    const sockets = this.#o.sockets(gone);
    if (sockets.length === 0) this.#o.own.forget(gone);
    return sockets.length > 0;
  }

  #arm(): void {
    clearTimeout(this.#timer);
    // Not Math.min(...): its arguments are on the stack, and there may be any number.
    let first = Number.POSITIVE_INFINITY;
    for (const since of this.#gone.values()) first = Math.min(first, since ?? first);
    if (first === Number.POSITIVE_INFINITY) return;
    const dueMs = first + this.#o.giveUpMs - monotonicMs();
    this.#timer = after(Math.max(0, dueMs), () => this.#giveUp());
  }

  /* What was gone may be here again, without a word. */
  #giveUp(): void {
    const due = monotonicMs() - this.#o.giveUpMs;
    const gone = new Set(this.#o.own.gone());
    for (const [address, since] of this.#gone) {
      if (since === undefined || since > due) continue;
      this.#gone.delete(address);
      // What is left has a flow, or is none of ours.
      if (gone.has(address) && this.#endAll(address)) this.#o.own.forget(address);
    }
    this.#arm();
  }

  /* Whether each of them could be ended. */
  #endAll(gone: Address): boolean {
    const sockets = this.#o.sockets(gone).filter((s) => !s.transparent && !s.freebind);
    const orphans = legacyConnections(this.#o.boundary, sockets, this.#o.wireOf);
    return orphans.filter((each) => !this.#end(each)).length === 0;
  }

  #end({ kernel, reason }: LegacyConnection): boolean {
    const ended = attempt(() => this.#o.destroySocket(kernel));
    if (ended) this.#o.emit({ event: 'flow-reset', kernel: tupleText(kernel), reason });
    return ended;
  }
}
