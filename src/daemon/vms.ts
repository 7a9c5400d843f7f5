/* The VMs of this hypervisor: those on whose tap the boundary is.  Finds the one that a request, a
 * packet or a flow is about; forgets those whose tap is gone.
 */

import type { Boundary, BoundaryEvent } from '../boundary/boundary.js';
import { interfaceIndex, interfaces } from '../libc/socket.js';
import { type Mac, mac } from '../wire/ethernet.js';
import type { Tuple } from '../wire/tuple.js';
import { RequestError } from './request-error.js';
import { Vm, type VmOptions } from './vm.js';
import { forgetRecord, readRecord } from './vm-record.js';

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

  /** VMs whose tap is gone, and when they are forgotten. */
  readonly #gone = new Map<Vm, NodeJS.Timeout>();

  /** Finds the VMs of a former daemon again. */
  constructor(o: VmsOptions) {
    this.#o = o;
    const attached = new Set(o.boundary.attached('tap'));
    for (const name of attached) this.#add(name, interfaceIndex(name) ?? 0, undefined);
    for (const tap of o.boundary.taps()) {
      if (!this.#byTap.has(tap)) this.#forgetTap(o.boundary, tap);
    }
  }

  all(): Vm[] {
    return [...this.#byName.values()];
  }

  /** Throws RequestError if there is no boundary on this tap. */
  get(name: string): Vm {
    const vm = this.#byName.get(name);
    if (vm !== undefined) return vm;
    const known = [...this.#byName.keys()].join(', ') || 'none';
    throw new RequestError(404, 'no-such-tap', `no boundary on tap ${name} (there is: ${known})`);
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  /** Puts the boundary on a tap.  `guestMac`: if it is known already.  No-op if it is there. */
  attach(name: string, guestMac?: string): Vm {
    const known = this.#byName.get(name);
    if (known !== undefined && known.tap === interfaceIndex(name)) return known;
    if (known !== undefined) void this.#forget(known);
    const parsed = guestMac === undefined ? undefined : mac(guestMac);
    this.#o.boundary.attach(name, 'tap');
    const tap = interfaceIndex(name) ?? 0;
    // Whatever is on record of a tap of this index is of one that is gone.
    this.#forgetTap(this.#o.boundary, tap);
    return this.#add(name, tap, parsed);
  }

  /** Takes it off; the VM's flows are forgotten, its addresses here given back. */
  async detach(name: string): Promise<void> {
    const vm = this.get(name);
    await this.#forget(vm);
    if (interfaceIndex(name) === vm.tap) this.#o.boundary.detach(name, 'tap');
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
        setTimeout(() => this.#forget(vm), KEPT_MS),
      );
    }
  }

  /** Ends without a change: the next daemon goes on. */
  close(): void {
    for (const timer of this.#gone.values()) clearTimeout(timer);
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

  #forget(vm: Vm): Promise<void> {
    clearTimeout(this.#gone.get(vm));
    this.#gone.delete(vm);
    this.#byName.delete(vm.name);
    this.#byTap.delete(vm.tap);
    return vm.close({ release: true });
  }

  #forgetTap(boundary: Boundary, tap: number): void {
    boundary.deletePlace(tap);
    for (const [kernel] of boundary.flows()) {
      if (kernel.tap === tap) boundary.command({ verb: 'forget', kernel });
    }
    for (const [tuple] of boundary.plain()) if (tuple.tap === tap) boundary.deletePlain(tuple);
    const name = interfaces().find(({ index }) => index === tap)?.name;
    if (name !== undefined) forgetRecord(this.#o.runDir, name);
  }
}
