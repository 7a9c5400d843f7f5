/* Which flows are sent by a detour (link/detour.ts): those whose peer has moved away from an
 * address where the kernel's own choice does not lead to the boundary.
 *
 *   the kernel's way to the old address     what the boundary could do       detour
 *   by a gateway, same interface            sends it to another next hop     no
 *   on-link: nobody, or a stranger, there   never sees it                    yes
 *   by another interface, or none           never sees it                    yes
 */

import type { Flow } from '../../boundary/abi.gen.js';
import { SystemError } from '../../libc/errno.js';
import type { DetourTable, NextHop } from '../../link/detour.js';
import type { SyncBoundary } from '../../sync/agent.js';
import { wireOf } from '../../sync/handshake.js';
import type { Address } from '../../wire/address.js';
import { type Tuple, tupleKey } from '../../wire/tuple.js';
import type { Emit } from '../view/monitor-events.js';
import type { Ends, Routes } from './routes.js';

export interface DetoursOptions {
  table: Pick<DetourTable, 'refresh' | 'destinations' | 'set'>;
  routes: Pick<Routes, 'from'>;
  /** Whether a boundary is attached there: elsewhere a flow would leave untranslated. */
  attached: (interfaceName: string) => boolean;
  emit: Emit;
}

interface Detoured {
  kernel: Tuple;
  via: NextHop;
  /** Not the peer itself. */
  byGateway: boolean;
}

export class Detours {
  #o: DetoursOptions;
  /** By old address and kernel tuple. */
  #flows = new Map<Address, Map<string, Detoured>>();
  #anyPeerMoved = false;

  constructor(o: DetoursOptions) {
    this.#o = o;
  }

  /** Whether a change of routes may ask for another detour. */
  get dependOnRoutes(): boolean {
    return this.#anyPeerMoved;
  }

  /** The old addresses that have a detour now. */
  addresses(): Address[] {
    return this.#o.table.destinations();
  }

  /** Makes detours for just these flows; what others, or a former daemon, left goes. */
  update(flows: Array<[Tuple, Flow]>): void {
    this.#flows.clear();
    this.#anyPeerMoved = false;
    for (const [kernel, flow] of flows) this.#place(kernel, wireOf(kernel, flow));
    if (!this.#anyPeerMoved && this.addresses().length === 0) return;
    this.#o.table.refresh();
    for (const address of new Set([...this.addresses(), ...this.#flows.keys()])) {
      this.#apply(address);
    }
  }

  /** To be called when a flow is carried between these from now on, before anything is sent. */
  mapped(kernel: Tuple, wire: Ends): void {
    if (this.#place(kernel, wire)) this.#apply(kernel.remote);
  }

  /** To be called when a flow is no more. */
  ended(kernel: Tuple): void {
    this.mapped(kernel, kernel);
  }

  /* Whether it changed anything for the old address. */
  #place(kernel: Tuple, wire: Ends): boolean {
    if (wire.remote !== kernel.remote) this.#anyPeerMoved = true;
    const way = this.#wayRound(kernel, wire);
    const there = this.#flows.get(kernel.remote);
    if (way === undefined) {
      const had = there?.delete(tupleKey(kernel)) ?? false;
      if (there?.size === 0) this.#flows.delete(kernel.remote);
      return had;
    }
    const detoured = there ?? new Map<string, Detoured>();
    detoured.set(tupleKey(kernel), { kernel, ...way });
    this.#flows.set(kernel.remote, detoured);
    return true;
  }

  #wayRound(kernel: Ends, wire: Ends): Omit<Detoured, 'kernel'> | undefined {
    if (kernel.remote === wire.remote) return undefined;
    const own = this.#o.routes.from(kernel.local, kernel.remote);
    const wanted = this.#o.routes.from(wire.local, wire.remote);
    if (wanted === undefined) return undefined;
    if (own?.interface === wanted.interface) {
      if (own.gateway !== undefined) return undefined;
    } else if (!this.#o.attached(wanted.interface)) {
      return undefined;
    }
    const via = { interface: wanted.interface, gateway: wanted.gateway ?? wire.remote };
    return { via, byGateway: wanted.gateway !== undefined };
  }

  /* One next hop for all flows from an address: it only has to answer, as the boundary corrects
   * it.  A gateway is likelier to stay than a host is.
   */
  #apply(old: Address): void {
    const flows = [...(this.#flows.get(old)?.values() ?? [])];
    const [first] = flows;
    const via = (flows.find((flow) => flow.byGateway) ?? first)?.via;
    const ports = flows.map(({ kernel: { localPort, remotePort } }) => ({ localPort, remotePort }));
    const had = this.addresses().includes(old);
    try {
      this.#o.table.set(old, via === undefined ? undefined : { via, flows: ports });
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      // The flow may still get through: the neighbour may answer.
      this.#o.emit({ event: 'detour-failed', address: old, reason: error.message });
      return;
    }
    if (had !== (via !== undefined)) {
      this.#o.emit({ event: had ? 'detour-removed' : 'detour-added', address: old });
    }
  }
}

/**
 * A boundary whose flows are on their detour when a map command returns: right behind it the
 * kernel is made to send.
 */
export function withDetours(boundary: SyncBoundary, detours: Detours): SyncBoundary {
  return {
    flow: (kernel) => boundary.flow(kernel),
    tupleOfHalf: (half) => boundary.tupleOfHalf(half),
    wire: (wire) => boundary.wire(wire),
    setWire: (wire, entry) => boundary.setWire(wire, entry),
    deleteWire: (wire) => boundary.deleteWire(wire),
    command: (c) => {
      const done = boundary.command(c);
      if (c.verb === 'map' && done.result === 'ok') detours.mapped(c.kernel, c.mapping.wire);
      return done;
    },
  };
}
