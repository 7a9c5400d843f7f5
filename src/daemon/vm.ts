/* One VM of this hypervisor, as the boundary on its tap: where it is, what is done in its guest's
 * stead, its flows when they come and when they go.
 *
 *   attached ── export ──► (elsewhere)        the source of a migration
 *   settle ── adopt ── synchronize ── announce    its destination, in this order
 *
 * What must survive the daemon is in the data plane (flows, place) and in a file (the guest).
 */

import { FLOW_FLAG, type Flow, type Place, REASON } from '../boundary/abi.gen.js';
import type { Boundary } from '../boundary/boundary.js';
import { packLuggage, unpackLuggage } from '../boundary/transfer.js';
import { GuestCare } from '../guest/guest-care.js';
import type { GuestState } from '../guest/identity.js';
import type { Outside } from '../guest/place.js';
import { SystemError } from '../libc/errno.js';
import type { SyncAgent } from '../sync/agent.js';
import type { Clock } from '../sync/clock.js';
import { type Address, address, family } from '../wire/address.js';
import { type Mac, macBytes, macFromBytes } from '../wire/ethernet.js';
import { type Tuple, tupleText } from '../wire/tuple.js';
import { monotonicNs } from './clock.js';
import { flowIsOver } from './flow-views.js';
import type { Emit } from './monitor-events.js';
import type { AddressMove, OutsideAddresses } from './moved-hook.js';
import { DAEMON_MAC, type DaemonOutlet, type TapSender } from './outlet.js';
import { RequestError } from './request-error.js';
import { farewell, provocation } from './stranded.js';
import type { ExportView, GuestPlaceView, ImportView, SynchronizeView, TapView } from './view.js';
import type { VmFlows } from './vm-flows.js';
import {
  atHome,
  isAway,
  nowhere,
  outsideName,
  withGateway,
  withGuest,
  withOutside,
} from './vm-place.js';
import { forgetRecord, type VmRecord, writeRecord } from './vm-record.js';

const SILENT = 'nothing is known of its guest, which has not sent anything yet (give its MAC)';

/** Flags of flows that do not go as their mapping says, or of which nobody knows yet. */
const UNSETTLED = FLOW_FLAG.HELD | FLOW_FLAG.UNPROVEN;

/* So many attempts may another machine have made for a flow before it comes back to us. */
const EPOCHS_ELSEWHERE = 64;

export interface VmOptions {
  name: string;
  tap: number;
  runDir: string;
  boundary: Boundary;
  sender: TapSender;
  outlet: DaemonOutlet;
  agent: Pick<SyncAgent, 'kick'>;
  flows: VmFlows;
  clock: Clock;
  random32: () => number;
  mtu: () => number;
  /** Where an address that an operator gives may lead from here. */
  gateways4: () => Address[];
  emit: Emit;
  /** The VM is called otherwise from now on: addresses that were, addresses that are. */
  moved: (vm: Vm, from: Address[], to: Address[]) => void;
}

export class Vm {
  readonly name: string;
  readonly tap: number;
  readonly #o: VmOptions;
  #care: GuestCare | undefined;
  #request: string[] = [];
  /** Its names at the place that it came from: its legacy peers know it by these. */
  #former: Address[] = [];
  /** Its flows have been packed: it lives elsewhere, or comes back with other epochs. */
  #left = false;

  constructor(o: VmOptions) {
    this.#o = o;
    this.name = o.name;
    this.tap = o.tap;
  }

  /** Begins with a tap of which nothing is known, or whose place is pinned.  */
  open(mac: Mac | undefined, record: VmRecord | undefined): void {
    const { boundary } = this.#o;
    const place = boundary.place(this.tap) ?? nowhere();
    boundary.setPlace(this.tap, mac === undefined ? place : { ...place, guestMac: macBytes(mac) });
    if (record === undefined) return;
    this.#request = record.request;
    this.#former = record.former.map(address);
    this.#careOf()?.restore(record.guest);
    // The lease is asked for again, and is the same; until then the place is as it was.
    if (record.request.length > 0) void this.#settleAgain();
  }

  get mac(): Mac | undefined {
    const place = this.#o.boundary.place(this.tap);
    return place?.guestMac.some((byte) => byte !== 0) ? macFromBytes(place.guestMac) : undefined;
  }

  view(): TapView {
    const place = this.#o.boundary.place(this.tap) ?? nowhere();
    const flows = this.#flows().filter(([, flow]) => !flowIsOver(flow));
    const state = this.#care?.state();
    return {
      name: this.name,
      mac: this.mac ?? null,
      place: isAway(place) ? 'away' : 'home',
      inside: [place.inside4, place.inside6].filter((a) => a !== '::'),
      outside: this.outside(),
      gateway: this.#care?.outside?.outside4?.gateway ?? state?.inside4?.gateway ?? null,
      flows: {
        protected: flows.length,
        moving: flows.filter(([, flow]) => flow.flags & UNSETTLED).length,
        moved: flows.filter(([, flow]) => flow.moves > 0).length,
        legacy: this.#plain().length,
      },
    };
  }

  /** By what the VM is reached at this place: addresses, and the prefix of its IPv6 ones. */
  outside(): Address[] {
    const place = this.#o.boundary.place(this.tap) ?? nowhere();
    return [place.outside4, place.outside6].filter((a) => a !== '::');
  }

  /** What the network makes of a tuple of the guest. */
  outsideTuple(inside: Tuple): Tuple {
    const place = this.#o.boundary.place(this.tap) ?? nowhere();
    const name = family(inside.local) === 4 ? place.outside4 : place.outside6;
    if (!isAway(place) || name === '::') return inside;
    return { ...inside, local: outsideName(name, inside.local) };
  }

  /** What the data plane has handed up. */
  packet(p: { etherType: number; fromGuest: boolean; packet: Uint8Array }): void {
    const { etherType, fromGuest, packet } = p;
    this.#careOf()?.packet({ etherType, from: fromGuest ? 'guest' : 'network', packet });
  }

  /** All that is known of the guest; asks its home's servers for what is not. */
  async guest(): Promise<GuestState> {
    const care = this.#careOf();
    if (care === undefined) throw new RequestError(409, 'guest-unknown', `${this.name}: ${SILENT}`);
    const { boundary } = this.#o;
    const place = boundary.place(this.tap) ?? nowhere();
    await this.#askHome(care, place);
    for (const own of place.own6) if (own !== '::') care.uses(own);
    if (!isAway(place)) boundary.setPlace(this.tap, atHome(place, care.state()));
    this.#save();
    return care.state();
  }

  /* What nobody answers is what the guest says of itself. */
  async #askHome(care: GuestCare, place: Place): Promise<void> {
    if (isAway(place)) return;
    const { inside4, inside6 } = care.state();
    const own = place.inside4 === '::' ? undefined : place.inside4;
    const knows = inside4 !== null && (own === undefined || inside4.address === own);
    const [informed] = await Promise.all([
      knows || care.inform(own),
      inside6 !== null || !this.#speaks6(place) || care.solicit(),
    ]);
    if (!informed && own !== undefined)
      care.assume({ address: own, prefixLength: 32, gateway: null });
  }

  /* A guest without IPv6 is not asked about for 3 s. */
  #speaks6(place: Place): boolean {
    return place.own6.some((a) => a !== '::');
  }

  /** Gets outside addresses at this place.  Throws PlaceError. */
  async settle(guest: GuestState, request: string[]): Promise<GuestPlaceView> {
    const { boundary } = this.#o;
    const before = boundary.place(this.tap) ?? nowhere();
    boundary.setPlace(this.tap, withGuest({ ...before, guestMac: macBytes(guest.mac) }, guest));
    const care = this.#careOf();
    care?.restore(guest);
    this.#request = request;
    const outside = await care?.settle(request, { gateways4: this.#o.gateways4() });
    if (outside === undefined)
      throw new RequestError(409, 'guest-unknown', `${this.name}: ${SILENT}`);
    this.#be(outside);
    this.#save();
    return { version: 1, outside: this.outside(), gateway: outside.outside4?.gateway ?? null };
  }

  /** Holds the flows, and packs them with what is known of the guest. */
  async export(): Promise<ExportView> {
    const { boundary } = this.#o;
    for (const [kernel] of this.#flows()) boundary.command({ verb: 'hold', kernel });
    const luggage = { flows: this.#flows(), plain: this.#plain() };
    const flows = Buffer.from(packLuggage(luggage, monotonicNs())).toString('base64');
    const guest = await this.guest();
    this.#left = true;
    return { version: 1, guest, outside: this.outside(), flows };
  }

  /** Takes in flows that another hypervisor has packed; held until they are synchronized. */
  import(o: { flows: string; outside: Address[] }): ImportView {
    const { boundary, tap } = { ...this.#o };
    const nowNs = monotonicNs();
    const { flows, plain } = unpackLuggage(Buffer.from(o.flows, 'base64'), { tap, nowNs });
    const place = boundary.place(tap) ?? nowhere();
    boundary.setPlace(tap, { ...place, since: nowNs });
    this.#former = o.outside;
    for (const [tuple, why] of plain) boundary.setPlain(tuple, why);
    let refused = 0;
    for (const [kernel, flow] of flows) {
      if (boundary.adopt(kernel, { ...flow, flags: flow.flags | FLOW_FLAG.HELD })) continue;
      // As good as legacy: both its ends are told.
      boundary.setPlain(kernel, { since: flow.created, reason: REASON.LEGACY_TABLE_FULL });
      refused += 1;
    }
    this.#save();
    return { version: 1, imported: flows.length - refused, refused };
  }

  /**
   * Moves the flows that are held to where the VM is now.  `moved` false: it has not been anywhere
   * else, so that they go on as they are.
   */
  async synchronize(withinMs: number, moved: boolean): Promise<SynchronizeView> {
    const { boundary, agent, flows, mtu } = this.#o;
    const unsettled = this.#flows().filter(
      ([, flow]) => flow.flags & UNSETTLED && !flowIsOver(flow),
    );
    if (!moved || this.#isWhereItWas()) {
      for (const [kernel] of unsettled) {
        boundary.command({ verb: 'release', kernel });
        agent.kick(kernel);
      }
      this.#left = false;
      return { version: 1, moved: unsettled.length, failed: 0, pending: 0, failures: [] };
    }
    const epochAbove = this.#left ? EPOCHS_ELSEWHERE : 0;
    this.#left = false;
    flows.begin(this.tap, unsettled, { mtu: mtu(), epochAbove });
    return flows.settled(this.tap, withinMs);
  }

  /** The VM runs here: tells its neighbours, its guest, and the ends of what stayed behind. */
  announce(): void {
    const { boundary, emit } = this.#o;
    const place = boundary.place(this.tap) ?? nowhere();
    // At home the guest answers for itself, now that it runs.
    if (!isAway(place)) boundary.setPlace(this.tap, { ...place, flags: 0 });
    this.#care?.announce();
    const former = this.#former;
    const now = this.outside();
    if (former.length > 0 && former.join() !== now.join()) this.#o.moved(this, former, now);
    for (const a of now) emit({ event: 'vm-announced', interface: this.name, address: a });
    for (const [tuple, { since }] of this.#plain()) {
      if (since <= place.since) this.#o.outlet.toKernel(provocation(tuple), tuple);
    }
  }

  /**
   * The guest's segment of a connection that has stayed behind: its peer is told in the name of the
   * former address, and the guest in its peer's.
   */
  stranded(tuple: Tuple, packet: Uint8Array): void {
    const { boundary, outlet, emit } = this.#o;
    const former = this.#former.find((a) => family(a) === family(tuple.local));
    const told = farewell(packet, former && outsideName(former, tuple.local));
    boundary.deletePlain(tuple);
    if (told === undefined) return;
    outlet.toKernel(told.toGuest, tuple);
    for (const each of told.toPeer) outlet.toWireVerbatim(each, this.tap);
    emit({ event: 'flow-reset', kernel: tupleText(tuple), reason: 'stranded' });
  }

  /** Ends what is done here; `release`: and gives up the addresses. */
  async close(o: { release: boolean }): Promise<void> {
    if (!o.release) {
      this.#care?.close();
      return;
    }
    const { boundary, flows, runDir } = this.#o;
    if (this.#left) this.#care?.surrender();
    await this.#care?.release();
    this.#care?.close();
    for (const [kernel] of this.#flows()) {
      boundary.command({ verb: 'forget', kernel });
      flows.ended(kernel);
    }
    for (const [tuple] of this.#plain()) boundary.deletePlain(tuple);
    boundary.deletePlace(this.tap);
    forgetRecord(runDir, this.name);
  }

  #isWhereItWas(): boolean {
    const now = this.outside();
    return this.#former.length > 0 && this.#former.join() === now.join();
  }

  #flows(): Array<[Tuple, Flow]> {
    return this.#o.boundary.flows().filter(([kernel]) => kernel.tap === this.tap);
  }

  #plain() {
    return this.#o.boundary.plain().filter(([tuple]) => tuple.tap === this.tap);
  }

  #be(outside: Outside): void {
    const { boundary } = this.#o;
    const care = this.#care;
    const place = boundary.place(this.tap);
    if (place === undefined || care === undefined) return;
    const here = withOutside(place, outside);
    boundary.setPlace(this.tap, here);
    if (isAway(here)) care.away();
    else care.home();
  }

  async #settleAgain(): Promise<void> {
    try {
      const { outside4 } = this.#o.boundary.place(this.tap) ?? nowhere();
      const outside = await this.#care?.settle(this.#request, {
        gateways4: this.#o.gateways4(),
        ...(outside4 !== '::' && { wish4: outside4 }),
      });
      if (outside !== undefined) this.#be(outside);
    } catch (error) {
      this.#o.emit({ event: 'vm-lease-lost', interface: this.name, reason: String(error) });
    }
  }

  #careOf(): GuestCare | undefined {
    const mac = this.mac;
    if (this.#care !== undefined || mac === undefined) return this.#care;
    const { sender, clock, random32, boundary, emit } = this.#o;
    this.#care = new GuestCare({
      port: {
        toGuest: (frame) => trySend(() => sender.toGuest(this.tap, frame)),
        toNetwork: (frame) => trySend(() => sender.toNetwork(this.tap, frame)),
      },
      ...{ clock, mac, random: random32, standIn: macFromBytes(DAEMON_MAC) },
      onState: () => this.#save(),
      onOutside: (outside) => {
        const before = this.outside();
        this.#be(outside);
        this.#former = before;
        void this.synchronizeAll();
      },
      onGatewayMac: (which, gateway) => {
        const place = boundary.place(this.tap);
        if (place) boundary.setPlace(this.tap, withGateway(place, which, gateway));
      },
      onLost: (lost, why) => {
        emit({ event: 'vm-lease-lost', interface: this.name, address: lost, reason: why });
      },
    });
    return this.#care;
  }

  /** The VM is called otherwise at the same place: all its flows move. */
  async synchronizeAll(): Promise<void> {
    for (const [kernel] of this.#flows()) this.#o.boundary.command({ verb: 'hold', kernel });
    await this.synchronize(0, true);
    this.announce();
  }

  #save(): void {
    const guest = this.#care?.state();
    if (guest === undefined) return;
    const [request, former] = [this.#request, this.#former];
    writeRecord(this.#o.runDir, {
      version: 1,
      name: this.name,
      tap: this.tap,
      guest,
      request,
      former,
    });
  }
}

/* The tap's queue is full, or the tap is gone: as good as lost on the way. */
function trySend(send: () => void): void {
  try {
    send();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
  }
}

/** As the operator's hook is told it. */
export function addressMove(vm: Vm, from: Address[], to: Address[]): AddressMove {
  const byFamily = (all: Address[]): OutsideAddresses =>
    Object.fromEntries(all.map((a) => [family(a), a]));
  return { vm: vm.name, mac: vm.mac ?? '', old: byFamily(from), new: byFamily(to) };
}
