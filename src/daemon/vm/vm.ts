/* One VM of this hypervisor, as the boundary on its tap: where it is, what is done in its guest's
 * stead, its flows when they come and when they go.
 *
 *   attached ── export ──► (elsewhere)        the source of a migration
 *   settle ── adopt ── synchronize ── announce    its destination, in this order
 *
 * What must survive the daemon is in the data plane (flows, place) and in a file (the guest).
 */

import type { Flow } from '../../boundary/abi.gen.js';
import type { Boundary } from '../../boundary/boundary.js';
import { GuestCare } from '../../guest/guest-care.js';
import type { GuestState } from '../../guest/identity.js';
import type { Outside } from '../../guest/place.js';
import { PlaceError, parseRequest } from '../../guest/request.js';
import { attempt } from '../../libc/guard.js';
import { monotonicNs } from '../../libc/monotonic.js';
import type { SyncAgent } from '../../sync/agent.js';
import type { Clock } from '../../sync/clock.js';
import { type Address, family } from '../../wire/address.js';
import { type Mac, macBytes, macFromBytes } from '../../wire/ethernet.js';
import { type Tuple, tupleText } from '../../wire/tuple.js';
import { DAEMON_MAC, type DaemonOutlet, type TapSender, trySend } from '../flows/outlet.js';
import { flowIsAlive } from '../view/flow-views.js';
import type { Emit } from '../view/monitor-events.js';
import { RequestError } from '../view/request-error.js';
import type {
  ExportView,
  GuestPlaceView,
  ImportView,
  SynchronizeView,
  TapView,
} from '../view/view.js';
import { askHome } from './ask-home.js';
import { provoke, tellEnds } from './left-behind.js';
import { flowsOf, packFlows, plainOf, takeInFlows } from './luggage.js';
import {
  atHome,
  isAway,
  nowhere,
  outsideName,
  withGateway,
  withGuest,
  withOutside,
} from './place.js';
import { forgetRecord, type VmRecord, writeRecord } from './record.js';
import { outsideOf, tapView, UNSETTLED } from './view.js';
import type { VmFlows } from './vm-flows.js';

const SILENT = 'nothing is known of its guest, which has not sent anything yet (give its MAC)';

/* So many attempts may another machine have made for a flow before it comes back to us. */
const EPOCHS_ELSEWHERE = 256;

const SAVE_EVERY_MS = 1000;

/* Servers come back, and the lease of the former daemon is good for longer than this. */
const SETTLE_AGAIN_MS = 30_000;

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
  /** Counts requests for a place: the last one counts. */
  #requests = 0;
  #again: unknown;
  #resting: unknown;
  #closing = false;
  #unsaved = false;

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
    const care = this.#careOf();
    // Of another guest: somebody has put another VM on the tap.
    if (record === undefined || care === undefined || record.guest.mac !== this.mac) return;
    this.#request = record.request;
    this.#former = record.former;
    this.#left = record.left;
    care.restore(record.guest);
    if (isAway(place)) care.away();
    else care.home();
  }

  /** Goes on where the former daemon ended. */
  resume(): void {
    const { boundary } = this.#o;
    if (this.#care === undefined) return;
    const away = isAway(boundary.place(this.tap) ?? nowhere());
    // The lease is asked for again, and is the same; until then the place is as it was.
    if (away && this.#request.length > 0) void this.#settleAgain();
    // Those of a VM that has left are held until somebody says what became of it.
    if (!this.#left && this.#former.length > 0) void this.synchronize(0, true);
  }

  /** The guest's hardware address, from who knows.  Throws RequestError if it is another's. */
  isOf(mac: Mac): void {
    const { boundary } = this.#o;
    if (this.mac === undefined) {
      const place = boundary.place(this.tap) ?? nowhere();
      boundary.setPlace(this.tap, { ...place, guestMac: macBytes(mac) });
      return;
    }
    if (this.mac === mac) return;
    const what = `the guest behind ${this.name} is ${this.mac}, not ${mac}`;
    throw new RequestError(409, 'other-guest', `${what} (take the boundary off and on again)`);
  }

  /** It is being detached. */
  get closing(): boolean {
    return this.#closing;
  }

  get mac(): Mac | undefined {
    const place = this.#o.boundary.place(this.tap);
    return place?.guestMac.some((byte) => byte !== 0) ? macFromBytes(place.guestMac) : undefined;
  }

  view(): TapView {
    return tapView({
      name: this.name,
      mac: this.mac,
      place: this.#o.boundary.place(this.tap) ?? nowhere(),
      gateway: this.#care?.outside?.outside4?.gateway,
      homeGateway: this.#care?.state().inside4?.gateway,
      flows: this.#flows().map(([, flow]) => flow),
      legacy: this.#plain().length,
    });
  }

  /** By what the VM is reached at this place: addresses, and the prefix of its IPv6 ones. */
  outside(): Address[] {
    const place = this.#o.boundary.place(this.tap) ?? nowhere();
    return outsideOf(place);
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
    await askHome(care, boundary.place(this.tap) ?? nowhere());
    this.#refuseIfGone();
    // As it is now: the data plane has learned meanwhile.
    const place = boundary.place(this.tap) ?? nowhere();
    for (const own of place.own6) if (own !== '::') care.uses(own);
    if (!isAway(place)) boundary.setPlace(this.tap, atHome(place, care.state()));
    this.#save();
    return care.state();
  }

  /**
   * Gets outside addresses at this place.  Throws PlaceError, after which it is where it was; and
   * RequestError if somebody has asked for another place meanwhile.
   */
  async settle(guest: GuestState, request: string[]): Promise<GuestPlaceView> {
    const { boundary } = this.#o;
    parseRequest(request, guest);
    this.isOf(guest.mac);
    const care = this.#careOf();
    if (care === undefined) throw new RequestError(409, 'guest-unknown', `${this.name}: ${SILENT}`);
    this.#requests += 1;
    const mine = this.#requests;
    const before = boundary.place(this.tap) ?? nowhere();
    boundary.setPlace(this.tap, withGuest(before, guest));
    care.restore(guest);
    const outside = await care.settle(request, this.#hints()).catch((error: unknown) => {
      if (mine === this.#requests && !this.#closing) boundary.setPlace(this.tap, before);
      throw error;
    });
    this.#refuseIfGone();
    if (mine !== this.#requests)
      throw new RequestError(409, 'superseded', `${this.name}: another place was asked for`);
    this.#request = request;
    this.#be(outside);
    this.#save();
    return { version: 1, outside: this.outside(), gateway: outside.outside4?.gateway ?? null };
  }

  /** Holds the flows, and packs them with what is known of the guest. */
  async export(): Promise<ExportView> {
    const { boundary } = this.#o;
    // First, so that nothing is held for a guest of whom nothing can be told.
    const guest = await this.guest();
    this.#left = true;
    this.#save();
    const flows = packFlows(boundary, this.tap, monotonicNs());
    return { version: 1, guest, outside: this.outside(), flows };
  }

  /** Takes in flows that another hypervisor has packed; held until they are synchronized. */
  import(o: { flows: string; outside: Address[] }): ImportView {
    const { boundary, tap } = this.#o;
    const nowNs = monotonicNs();
    const view = takeInFlows(boundary, o.flows, { tap, nowNs });
    const place = boundary.place(tap) ?? nowhere();
    boundary.setPlace(tap, { ...place, since: nowNs });
    this.#former = o.outside;
    this.#save();
    return view;
  }

  /**
   * Moves the flows that are held to where the VM is now.  `moved` false: it has not been anywhere
   * else, so that they go on as they are.
   */
  async synchronize(withinMs: number, moved: boolean): Promise<SynchronizeView> {
    const { boundary, agent, flows, mtu } = this.#o;
    const alive = this.#flows().filter(([, flow]) => flowIsAlive(flow));
    const unsettled = alive.filter(([, flow]) => flow.flags & UNSETTLED);
    if (!moved || this.#isWhereItWas()) {
      const frozen = alive.filter(([, flow]) => flow.frozenUntil > monotonicNs());
      for (const [kernel] of new Set([...unsettled, ...frozen])) {
        boundary.command({ verb: 'release', kernel });
        agent.kick(kernel);
      }
      this.#left = false;
      this.#save();
      return { version: 1, moved: unsettled.length, failed: 0, pending: 0, failures: [] };
    }
    const epochAbove = this.#left ? EPOCHS_ELSEWHERE : 0;
    this.#left = false;
    this.#save();
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
    provoke(this.#o, place.since);
  }

  /**
   * The guest's segment of a connection that has stayed behind: its peer is told in the name of the
   * former address, and the guest in its peer's.
   */
  stranded(tuple: Tuple, packet: Uint8Array): void {
    const former = this.#former.find((a) => family(a) === family(tuple.local));
    if (!tellEnds(this.#o, { tuple, packet, former })) return;
    this.#o.emit({ event: 'flow-reset', kernel: tupleText(tuple), reason: 'stranded' });
  }

  /** Ends what is done here; `release`: and gives up the addresses. */
  async close(o: { release: boolean }): Promise<void> {
    this.save();
    this.#closing = true;
    if (o.release) {
      if (this.#left) this.#care?.surrender();
      else this.#resetMoved();
      await this.#care?.release();
      this.forget();
    }
    for (const timer of [this.#again, this.#resting]) {
      if (timer !== undefined) this.#o.clock.clearTimer(timer);
    }
    this.#care?.close();
  }

  /* What has moved lives on the boundary: without it the guest would wait for ever. */
  #resetMoved(): void {
    for (const [kernel, flow] of this.#flows()) {
      if (flow.moves > 0 && flowIsAlive(flow)) this.#o.flows.tell(kernel, flow);
    }
  }

  /** Nothing of it is left here. */
  forget(): void {
    this.#closing = true;
    const { boundary, flows, runDir } = this.#o;
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
    return flowsOf(this.#o.boundary, this.tap);
  }

  #plain() {
    return plainOf(this.#o.boundary, this.tap);
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

  #hints(): { gateways4: Address[] } {
    return { gateways4: this.#o.gateways4() };
  }

  async #settleAgain(): Promise<void> {
    const { clock, emit } = this.#o;
    this.#again = undefined;
    const mine = this.#requests;
    try {
      const { outside4 } = this.#o.boundary.place(this.tap) ?? nowhere();
      const wish = outside4 === '::' ? {} : { wish4: outside4 };
      const outside = await this.#care?.settle(this.#request, { ...this.#hints(), ...wish });
      if (outside === undefined || this.#closing || mine !== this.#requests) return;
      this.#beCalled(outside);
    } catch (error) {
      if (!(error instanceof PlaceError)) throw error;
      if (this.#closing || mine !== this.#requests) return;
      emit({ event: 'vm-lease-lost', interface: this.name, reason: error.message });
      this.#again = clock.setTimer(SETTLE_AGAIN_MS, () => void this.#settleAgain());
    }
  }

  /* At the same place: if its addresses are others than before, all its flows move. */
  #beCalled(outside: Outside): void {
    const { boundary } = this.#o;
    const before = this.outside();
    this.#be(outside);
    if (this.outside().join() === before.join()) return;
    this.#former = before;
    const place = boundary.place(this.tap);
    if (place) boundary.setPlace(this.tap, { ...place, since: monotonicNs() });
    this.#save();
    void this.synchronizeAll();
  }

  #refuseIfGone(): void {
    if (this.#closing) throw new RequestError(404, 'no-such-tap', `${this.name} has been detached`);
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
      onState: () => this.#saveSoon(),
      onOutside: (outside) => this.#beCalled(outside),
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

  /** Writes down what the next daemon has to know, if the last time failed. */
  save(): void {
    if (this.#unsaved) this.#save();
  }

  /* What a guest says of itself may change with each of its frames: so often only it is written. */
  #saveSoon(): void {
    this.#unsaved = true;
    if (this.#resting !== undefined) return;
    this.#save();
    this.#resting = this.#o.clock.setTimer(SAVE_EVERY_MS, () => {
      this.#resting = undefined;
      if (this.#unsaved) this.#saveSoon();
    });
  }

  /* The disk may be full: the guest is served all the same. */
  #save(): void {
    this.#unsaved = !attempt(() => this.#write());
  }

  #write(): void {
    const guest = this.#care?.state();
    if (guest === undefined || this.#closing) return;
    const [request, former, left] = [this.#request, this.#former, this.#left];
    writeRecord(this.#o.runDir, {
      version: 1,
      name: this.name,
      tap: this.tap,
      guest,
      request,
      former,
      left,
    });
  }
}
