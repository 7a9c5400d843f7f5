/* The VMs of this hypervisor: those on whose tap the boundary is.  Finds the one that a request, a
 * packet or a flow is about; forgets those whose tap is gone.
 */

import type { BoundaryEvent } from '../../boundary/boundary.js';
import { ERRNO, SystemError } from '../../libc/errno.js';
import { guarded } from '../../libc/guard.js';
import { interfaceIndex, interfaces } from '../../libc/socket.js';
import { type Mac, mac } from '../../wire/ethernet.js';
import type { Tuple } from '../../wire/tuple.js';
import { RequestError } from '../view/request-error.js';
import { keepRecords, readRecord } from './record.js';
import { Vm, type VmOptions } from './vm.js';

export type VmsOptions = Omit<VmOptions, 'name' | 'tap' | 'mtu'> & {
  /** Of an interface, bytes. */
  mtuOf: (name: string) => number;
};

/* A hook that runs over ssh takes its time. */
const KEPT_MS = 60_000;

export class Vms {
  readonly #o: VmsOptions;
  readonly #byName = new Map<string, Vm>();
  readonly #byTap = new Map<number, Vm>();

  /** VMs whose tap is gone, and what forgets them. */
  readonly #gone = new Map<Vm, unknown>();

  /** Finds the VMs of a former daemon again. */
  constructor(o: VmsOptions) {
    this.#o = o;
    for (const name of o.boundary.attached('tap')) {
      const tap = interfaceIndex(name);
      if (tap !== undefined) this.#add(name, tap, undefined);
    }
    for (const tap of this.#tapsInTables()) if (!this.#byTap.has(tap)) this.#forgetTap(tap);
    keepRecords(o.runDir, [...this.#byName.keys()]);
  }

  /** They go on where the former daemon ended.  To be called when packets can come. */
  resume(): void {
    for (const vm of this.all()) vm.resume();
  }

  /** Writes down what could not be written when it changed. */
  save(): void {
    for (const vm of this.all()) vm.save();
  }

  all(): Vm[] {
    return [...this.#byName.values()];
  }

  /** Throws RequestError if there is no boundary on this tap. */
  get(name: string): Vm {
    const vm = this.#byName.get(name);
    if (vm !== undefined && !vm.closing) return vm;
    const known = [...this.#byName.keys()].join(', ') || 'none';
    throw new RequestError(404, 'no-such-tap', `no boundary on tap ${name} (there is: ${known})`);
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  /** Puts the boundary on a tap.  `guestMac`: if it is known already.  No-op if it is there. */
  attach(name: string, guestMac?: string): Vm {
    const parsed = guestMac === undefined ? undefined : mac(guestMac);
    const tap = interfaceIndex(name);
    const known = this.#byName.get(name);
    if (known?.closing) {
      throw new RequestError(409, 'busy', `${name} is being detached: try again`);
    }
    if (known !== undefined && known.tap === tap) {
      if (parsed !== undefined) known.isOf(parsed);
      return known;
    }
    // Made anew under the same name, and nobody has told us yet.
    if (known !== undefined) this.#forget(known);
    // Whatever is known of a tap of this index is of one that is gone.
    if (tap !== undefined) this.#forgetTap(tap);
    this.#o.boundary.attach(name, 'tap');
    keepRecords(this.#o.runDir, [...this.#byName.keys()]);
    return this.#add(name, tap ?? 0, parsed);
  }

  /** Takes it off; the VM's flows are forgotten, its addresses here given back. */
  async detach(name: string): Promise<void> {
    const vm = this.get(name);
    await vm.close({ release: true });
    if (this.#byName.get(name) !== vm) return; // vanished meanwhile
    this.#remove(vm);
    if (interfaceIndex(name) === vm.tap) this.#o.boundary.detach(name, 'tap');
  }

  /**
   * Takes leave of a VM whose tap nobody wants any more; no-op if it is going already.  Throws SystemError
   * if it is away from home, where it has no network without us.
   */
  leave(name: string, left: () => void): void {
    const vm = this.#byName.get(name);
    if (vm === undefined || vm.closing) return;
    if (vm.view().place === 'away') {
      throw new SystemError(`detach boundary from ${name}`, ERRNO.EBUSY, {
        hint: 'its VM is away from home and would have no network: migrate it home, or `tiflow down --force`',
      });
    }
    this.detach(name).then(
      guarded(left),
      guarded((error: unknown) => {
        if (!(error instanceof RequestError)) throw error;
      }),
    );
  }

  /** Of the VM behind this tap; undefined: our own, or gone. */
  of(tuple: Tuple): Vm | undefined {
    return tuple.tap === undefined ? undefined : this.#byTap.get(tuple.tap);
  }

  /** An event of the data plane about a guest. */
  event(event: BoundaryEvent): void {
    const vm = this.#byTap.get(event.ifindex);
    if (event.type === 'guest') vm?.packet(event);
    if (event.type === 'stranded') vm?.stranded(event.tuple, event.packet);
  }

  /**
   * Links have come or gone: a tap goes with its QEMU.  What is known of the VM is kept for a while:
   * some managers ask for its flows only after its QEMU has ended (etc/libvirt-hook).
   */
  linksChanged(): void {
    const present = new Set(interfaces().map(({ index }) => index));
    for (const vm of this.all()) {
      if (present.has(vm.tap) || this.#gone.has(vm)) continue;
      this.#o.emit({ event: 'detached', interface: vm.name });
      this.#gone.set(
        vm,
        this.#o.clock.setTimer(KEPT_MS, () => this.#forget(vm)),
      );
    }
  }

  /** Ends without a change: the next daemon goes on. */
  close(): void {
    for (const timer of this.#gone.values()) this.#o.clock.clearTimer(timer);
    for (const vm of this.all()) void vm.close({ release: false });
  }

  #add(name: string, tap: number, guestMac: Mac | undefined): Vm {
    const { mtuOf, ...shared } = this.#o;
    const vm = new Vm({ ...shared, name, tap, mtu: () => mtuOf(name) });
    this.#byName.set(name, vm);
    this.#byTap.set(tap, vm);
    vm.open(guestMac, readRecord(shared.runDir, name, tap));
    return vm;
  }

  /* Nobody to say goodbye to: its cable is gone. */
  #forget(vm: Vm): void {
    this.#remove(vm);
    vm.forget();
    void vm.close({ release: false });
  }

  #remove(vm: Vm): void {
    const timer = this.#gone.get(vm);
    if (timer !== undefined) this.#o.clock.clearTimer(timer);
    this.#gone.delete(vm);
    this.#byName.delete(vm.name);
    this.#byTap.delete(vm.tap);
  }

  #tapsInTables(): Set<number> {
    const { boundary } = this.#o;
    const tuples = [...boundary.flows(), ...boundary.plain()].map(([tuple]) => tuple.tap);
    return new Set([...boundary.taps(), ...tuples.flatMap((tap) => tap ?? [])]);
  }

  #forgetTap(tap: number): void {
    const { boundary } = this.#o;
    for (const [kernel] of boundary.flows()) {
      if (kernel.tap === tap) boundary.command({ verb: 'forget', kernel });
    }
    for (const [tuple] of boundary.plain()) if (tuple.tap === tap) boundary.deletePlain(tuple);
    boundary.deletePlace(tap);
  }
}
