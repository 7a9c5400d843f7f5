/* Legacy connections whose address is gone: nothing can move them, so their programs are told
 * once the machine has been reachable elsewhere for `give_up`, instead of after the 15 minutes
 * that the kernel would go on trying.
 */

import type { Boundary } from '../../boundary/boundary.js';
import { after, attempt } from '../../libc/guard.js';
import { monotonicMs } from '../../libc/monotonic.js';
import { destroySocket, tcpSockets } from '../../link/sockets.js';
import type { Netlink } from '../../netlink/netlink.js';
import { type Address, family } from '../../wire/address.js';
import { tupleText } from '../../wire/tuple.js';
import { type LegacyConnection, legacyConnections } from '../view/flow-views.js';
import type { Emit } from '../view/monitor-events.js';

export interface OrphansOptions {
  boundary: Pick<Boundary, 'flow' | 'plain'>;
  netlink: Pick<Netlink, 'request'>;
  giveUpMs: number;
  emit: Emit;
  /** Whether this kernel can end sockets: else programs hear of it from TCP, in its own time. */
  canDestroy: boolean;
}

export class Orphans {
  #boundary: OrphansOptions['boundary'];
  #netlink: OrphansOptions['netlink'];
  #giveUpMs: number;
  #canDestroy: boolean;
  #emit: Emit;
  /** Since when there is another address, by address that is gone. */
  #gone = new Map<Address, number>();
  #timer: NodeJS.Timeout | undefined;

  constructor(o: OrphansOptions) {
    this.#boundary = o.boundary;
    this.#netlink = o.netlink;
    this.#giveUpMs = o.giveUpMs;
    this.#emit = o.emit;
    this.#canDestroy = o.canDestroy;
  }

  /** To be called when addresses have changed.  `configured`: those of the interfaces now. */
  update(configured: ReadonlySet<Address>): void {
    if (!this.#canDestroy) return;
    const gone = new Set(this.#orphans(configured).map(({ kernel }) => kernel.local));
    for (const address of this.#gone.keys()) if (!gone.has(address)) this.#gone.delete(address);
    for (const address of gone) {
      const elsewhere = [...configured].some((other) => family(other) === family(address));
      if (!elsewhere) this.#gone.delete(address);
      else if (!this.#gone.has(address)) this.#gone.set(address, monotonicMs());
    }
    this.#arm(configured);
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #orphans(configured: ReadonlySet<Address>): LegacyConnection[] {
    return legacyConnections(this.#boundary, tcpSockets(this.#netlink)).filter(
      ({ kernel }) => !configured.has(kernel.local),
    );
  }

  #arm(configured: ReadonlySet<Address>): void {
    clearTimeout(this.#timer);
    if (this.#gone.size === 0) return;
    // Not Math.min(...): its arguments are on the stack, and there may be any number.
    let first = Number.POSITIVE_INFINITY;
    for (const since of this.#gone.values()) first = Math.min(first, since);
    const dueMs = first + this.#giveUpMs - monotonicMs();
    this.#timer = after(Math.max(0, dueMs), () => this.#giveUp(configured));
  }

  #giveUp(configured: ReadonlySet<Address>): void {
    const due = monotonicMs() - this.#giveUpMs;
    for (const { kernel, reason } of this.#orphans(configured)) {
      const since = this.#gone.get(kernel.local);
      if (since === undefined || since > due) continue;
      if (!attempt(() => destroySocket(this.#netlink, kernel))) continue;
      this.#emit({ event: 'flow-reset', kernel: tupleText(kernel), reason });
    }
    for (const [address, since] of this.#gone) if (since <= due) this.#gone.delete(address);
    this.#arm(configured);
  }
}
