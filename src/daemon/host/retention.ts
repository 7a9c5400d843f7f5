/* Which addresses are kept for flows that began on them: retained while such a flow lives and the
 * kernel does not call the address local, released otherwise.  Each look compares what is wanted with
 * what the kernel has: others remove rules and routes that are not their own.
 */

import type { Flow } from '../../boundary/abi.gen.js';
import { attempt } from '../../libc/guard.js';
import type { Step } from '../../link/kernel-objects.js';
import type { RetainedAddresses } from '../../link/retained-kernel.js';
import type { Address } from '../../wire/address.js';
import type { Tuple } from '../../wire/tuple.js';
import { flowIsAlive } from '../view/flow-views.js';
import type { Emit } from '../view/monitor-events.js';
import type { PlanView } from '../view/view.js';

export interface RetentionOptions {
  retained: Pick<RetainedAddresses, 'plan' | 'apply' | 'list' | 'routesChanged'>;
  emit: Emit;
  /** Something that was made before had to be made again. */
  putBack: () => void;
}

export class Retention {
  readonly #o: RetentionOptions;
  /** Those of the last look, or of a former daemon. */
  #kept: ReadonlySet<Address>;
  /** Only to tell what is made anew from what somebody has removed. */
  readonly #made = new Set<string>();
  /** Nobody has looked yet, or something may be there that is not wanted. */
  #isOpen = true;

  /** Knows what a former daemon has retained. */
  constructor(o: RetentionOptions) {
    this.#o = o;
    this.#kept = new Set(o.retained.list());
  }

  /** The addresses that are retained now. */
  addresses(): Address[] {
    return [...this.#kept];
  }

  has(a: Address): boolean {
    return this.#kept.has(a);
  }

  /** What there is to do about what was wanted at the last look. */
  plan(): PlanView['steps'] {
    return this.#o.retained.plan(this.addresses()).map(({ verb, object, because }) => ({
      ...{ do: `${verb} ${object.text}`, because },
      ...{ refused: null, times_refused: 0, again_in_ms: 0 },
    }));
  }

  /** To be called when routes have changed, before anything is sent by them. */
  routesChanged(): void {
    if (this.#kept.size > 0) this.#o.retained.routesChanged();
  }

  /** Retains and releases, so that just what these flows need is kept.  `isHere`: whether the address
   * is the machine's still; `routed`: it is another host's, and only routed to this gateway.
   */
  update(
    flows: Array<[Tuple, Flow]>,
    isHere: (address: Address) => boolean,
    routed: (flow: Flow, address: Address) => boolean,
  ): void {
    const wanted = new Set<Address>();
    for (const [kernel, flow] of flows) {
      if (flowIsAlive(flow) && !routed(flow, kernel.local)) wanted.add(kernel.local);
    }
    for (const address of wanted) if (isHere(address)) wanted.delete(address);
    if (wanted.size === 0 && !this.#isOpen) return;
    attempt(() => this.#keep([...wanted]));
  }

  #keep(wanted: readonly Address[]): void {
    const steps = this.#o.retained.plan(wanted);
    // What the kernel refuses (IPv6 was switched off) does not keep the rest from it.
    const failures = this.#o.retained.apply(steps);
    const refused = new Set(failures.map(({ step }) => step));
    this.#note(steps.filter((step) => !refused.has(step)));
    this.#tell(failures.length === 0 ? wanted : this.#o.retained.list());
    this.#isOpen = wanted.length > 0 || failures.length > 0;
    for (const { error } of failures) {
      attempt(() => {
        throw error;
      });
    }
  }

  #note(steps: readonly Step[]): void {
    let isAgain = false;
    for (const { verb, object } of steps) {
      if (verb === 'remove') this.#made.delete(object.text);
      else if (this.#made.has(object.text)) {
        isAgain = true;
        this.#o.emit({ event: 'put-back', object: object.text });
      } else this.#made.add(object.text);
    }
    if (isAgain) this.#o.putBack();
  }

  #tell(kept: readonly Address[]): void {
    const before = this.#kept;
    this.#kept = new Set(kept);
    for (const address of this.#kept) {
      if (!before.has(address)) this.#o.emit({ event: 'address-retained', address });
    }
    for (const address of before) {
      if (!this.#kept.has(address)) this.#o.emit({ event: 'address-released', address });
    }
  }
}
