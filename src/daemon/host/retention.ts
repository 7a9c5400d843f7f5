/* Which addresses are kept for flows that began on them: retained while such a flow lives and no
 * interface has the address, released otherwise.
 */

import type { Flow } from '../../boundary/abi.gen.js';
import { attempt } from '../../libc/guard.js';
import type { RetainedAddresses } from '../../link/retained.js';
import type { Address } from '../../wire/address.js';
import type { Tuple } from '../../wire/tuple.js';
import { flowIsAlive } from '../view/flow-views.js';
import type { Emit } from '../view/monitor-events.js';

export class Retention {
  #retained: RetainedAddresses;
  #emit: Emit;
  readonly #kept = new Set<Address>();
  /** Of the former daemon: retained again when needed, as somebody may have removed a part. */
  readonly #former: Set<Address>;

  /** Knows what a former daemon has retained. */
  constructor(retained: RetainedAddresses, emit: Emit) {
    this.#retained = retained;
    this.#emit = emit;
    this.#former = new Set(retained.list());
  }

  /** The addresses that are retained now. */
  addresses(): Address[] {
    return [...this.#former, ...this.#kept];
  }

  /** To be called when routes have changed, before anything is sent by them. */
  routesChanged(): void {
    if (this.addresses().length > 0) this.#retained.routesChanged();
  }

  /** Retains and releases, so that just what these flows need is kept.  `configured`: whether an
   * interface has the address; `routed`: it is another host's, and only routed to this gateway.
   */
  update(
    flows: Array<[Tuple, Flow]>,
    configured: (address: Address) => boolean,
    routed: (flow: Flow, address: Address) => boolean,
  ): void {
    const needed = new Set<Address>();
    for (const [kernel, flow] of flows) {
      if (flowIsAlive(flow) && !routed(flow, kernel.local)) needed.add(kernel.local);
    }
    // One that the kernel refuses (IPv6 was switched off) does not keep the others from it.
    for (const address of needed) if (!configured(address)) attempt(() => this.#keep(address));
    for (const address of this.addresses()) {
      if (!needed.has(address) || configured(address)) attempt(() => this.#release(address));
    }
  }

  #keep(address: Address): void {
    if (this.#kept.has(address)) return;
    this.#retained.retain(address);
    this.#kept.add(address);
    if (this.#former.delete(address)) return;
    this.#emit({ event: 'address-retained', address });
  }

  #release(address: Address): void {
    this.#retained.release(address);
    this.#kept.delete(address);
    this.#former.delete(address);
    this.#emit({ event: 'address-released', address });
  }
}
