/*
 * A guest's stay at one place, on the network's side: its outside addresses, got and kept in its
 * name, and the hardware addresses of the gateways there.
 *
 *   settle ─┬─ IPv4: lease or given, checked ──┬─ gateways' MACs ──► Outside
 *           └─ IPv6: router's prefix, checked ─┘
 *
 * At home the same addresses come out that the guest has anyhow.
 */
import type { Clock } from '../sync/clock.js';
import { type Address, addressBytes, type Family } from '../wire/address.js';
import { DHCP_OPTION, type DhcpMessage } from '../wire/dhcp.js';
import type { Mac } from '../wire/ethernet.js';
import {
  linkLayerAddress,
  type NeighbourPacket,
  prefixInformation,
  type RouterAdvertisement,
} from '../wire/neighbour.js';
import { AddressChecks } from './address-check.js';
import { NeighbourWatch } from './gateway.js';
import {
  type GuestState,
  identifiers6,
  linkLocalOf,
  PREFIX_LENGTH_6,
  within64,
} from './identity.js';
import type { ClientIdentity, Lease } from './lease.js';
import { LeaseKeeper } from './lease-keeper.js';
import type { Random32, SendAsGuest } from './port.js';
import { type Given4, PlaceError, type PlaceRequest } from './request.js';
import { offeredBy, type Router, RouterSearch } from './router-search.js';

export interface Outside4 {
  address: Address;
  prefixLength: number;
  gateway: Address | null;
  /** null: given, for ever. */
  leaseS: number | null;
}

export interface Outside6 {
  prefix: Address;
  prefixLength: typeof PREFIX_LENGTH_6;
  gateway: Address | null;
}

export interface Outside {
  outside4?: Outside4;
  outside6?: Outside6;
  gatewayMac4?: Mac;
  gatewayMac6?: Mac;
}

/** What changes after a guest has settled. */
export interface PlaceChanges {
  /** Other outside addresses, or another gateway: all of them as they are now. */
  onOutside: (outside: Outside) => void;
  onGatewayMac: (family: Family, mac: Mac) => void;
  /** The outside IPv4 address must not be used any more; another one is asked for. */
  onLost: (address: Address, why: 'expired' | 'refused') => void;
}

export interface PlaceOptions {
  clock: Clock;
  random: Random32;
  send: SendAsGuest;
  guest: GuestState;
  request: PlaceRequest;
  /** For an IPv4 address that is given, no server tells: the first of these in its subnet. */
  gateways4?: readonly Address[] | undefined;
  /** The IPv4 address that it had here before; otherwise its inside one is welcome. */
  wish4?: Address | undefined;
  changes: PlaceChanges;
}

/** A neighbour that is there answers within a millisecond, and one question may get lost. */
const RESOLVE_MS = 1000;

export class Place {
  #o: PlaceOptions;
  #checks: AddressChecks;
  #search: RouterSearch;
  #keeper: LeaseKeeper | undefined;
  #outside4: Outside4 | undefined;
  #outside6: Outside6 | undefined;
  #watches: { 4: NeighbourWatch | undefined; 6: NeighbourWatch | undefined };
  #asides = new Set<NeighbourWatch>();
  #settled = false;
  #renumbering = false;
  #closed = false;

  constructor(o: PlaceOptions) {
    const { clock, send, guest } = o;
    this.#o = o;
    this.#watches = { 4: undefined, 6: undefined };
    this.#checks = new AddressChecks({ clock, send, mac: guest.mac });
    const linkLocal = linkLocalOf(guest);
    this.#search = new RouterSearch({ clock, send, mac: guest.mac, linkLocal });
  }

  /** Gets addresses.  To be called once; throws PlaceError, after which the place is closed. */
  async settle(): Promise<Outside> {
    try {
      await Promise.all([this.#settle4(), this.#settle6()]);
      if (this.#closed) throw this.#error('no-lease', 'given up, the guest is not to be here');
      if (this.#outside4 === undefined && this.#outside6 === undefined) {
        throw this.#error('no-lease', 'no router here offers a prefix of 64 bits');
      }
      await Promise.all(([4, 6] as const).map((f) => this.#watches[f]?.whenKnown(RESOLVE_MS)));
      this.#settled = true;
      return this.outside;
    } catch (error) {
      await this.release();
      throw error;
    }
  }

  get outside(): Outside {
    const [mac4, mac6] = [this.#watches[4]?.mac, this.#watches[6]?.mac];
    return {
      ...(this.#outside4 && { outside4: this.#outside4 }),
      ...(this.#outside6 && { outside6: this.#outside6 }),
      ...(mac4 && { gatewayMac4: mac4 }),
      ...(mac6 && { gatewayMac6: mac6 }),
    };
  }

  /** What the guest is reached by here. */
  get addresses(): Address[] {
    const { prefix } = this.#outside6 ?? {};
    return [
      ...(this.#outside4 ? [this.#outside4.address] : []),
      ...(prefix ? identifiers6(this.#o.guest).map((id) => within64(prefix, id)) : []),
    ];
  }

  /** A DHCP answer to the guest's MAC. */
  dhcp(message: DhcpMessage): void {
    this.#keeper?.receive(message);
  }

  /** ARP, or a neighbour advertisement: this address is there; undefined: it does not say where. */
  heard(address: Address, mac: Mac | undefined): void {
    this.#checks.heard(address, mac);
    if (mac === undefined) return;
    for (const watch of [this.#watches[4], this.#watches[6], ...this.#asides]) {
      watch?.heard(address, mac);
    }
  }

  advertised(p: NeighbourPacket<RouterAdvertisement>): void {
    this.#search.heard(p);
    this.heard(p.source, linkLayerAddress(p.message));
    const router = offeredBy(p);
    const present = this.#outside6;
    if (!this.#settled || present === undefined || router === undefined) return;
    if (this.#o.request.ipv6 !== 'advertised' || router.address !== present.gateway) return;
    const live = prefixInformation(p.message).filter((each) => each.preferredS > 0);
    if (!live.some((each) => each.prefix === present.prefix)) void this.#renumber(router);
  }

  /** Gives back what was got here. */
  async release(): Promise<void> {
    const keeper = this.#keeper;
    this.#keeper = undefined;
    await keeper?.release();
    this.close();
  }

  /** Ends.  A lease stays with whoever has the address now: the guest, if this is its home. */
  close(): void {
    this.#closed = true;
    this.#keeper?.close();
    this.#checks.close();
    this.#search.end(undefined);
    for (const watch of [this.#watches[4], this.#watches[6], ...this.#asides]) watch?.close();
  }

  async #settle4(): Promise<void> {
    const { ipv4 } = this.#o.request;
    if (ipv4 === undefined) return;
    if (ipv4 === 'dhcp') return this.#settleLease();
    if (await this.#isTaken(ipv4.address)) {
      throw this.#error('address-refused', `somebody else has ${ipv4.address}`);
    }
    this.#be4({ ...ipv4, gateway: this.#gatewayOf(ipv4), leaseS: null });
  }

  async #settleLease(): Promise<void> {
    const { clock, random, send, guest, wish4, changes } = this.#o;
    const identity = clientIdentity(guest);
    this.#keeper = new LeaseKeeper({
      clock,
      random,
      send,
      identity: wish4 === undefined ? identity : { ...identity, wish: wish4 },
      isTaken: (address) => this.#isTaken(address),
      resolve: (address) => this.#resolve(address),
      onGained: (lease) => this.#gained(lease),
      onLost: (lease, why) => {
        this.#outside4 = undefined;
        changes.onLost(lease.address, why);
      },
    });
    const lease = await this.#keeper.acquire();
    if (lease === undefined) throw this.#error('no-lease', 'no DHCP server gives an address here');
    this.#be4(outsideOf(lease));
  }

  #gained(lease: Lease): void {
    const before = this.#outside4;
    const now = outsideOf(lease);
    this.#be4(now);
    const same =
      before?.address === now.address &&
      before.prefixLength === now.prefixLength &&
      before.gateway === now.gateway;
    if (!same) this.#o.changes.onOutside(this.outside);
  }

  #be4(outside: Outside4): void {
    const before = this.#outside4;
    this.#outside4 = outside;
    const watched = this.#watches[4]?.target === outside.gateway;
    if (watched && before?.address === outside.address) return;
    this.#watch(4, outside.gateway, { own: outside.address });
  }

  /* One that is known from home still counts if it is of the same subnet. */
  #gatewayOf(given: Given4): Address | null {
    if (given.gateway !== undefined) return given.gateway;
    const known = [...(this.#o.gateways4 ?? []), this.#o.guest.inside4?.gateway ?? null];
    const near = known.find((a) => a && sameSubnet(a, given.address, given.prefixLength));
    return near ?? null;
  }

  async #settle6(): Promise<void> {
    const { ipv6 } = this.#o.request;
    if (ipv6 === undefined) return;
    const router = await this.#search.find();
    if (this.#closed || (router === undefined && ipv6 === 'advertised')) return;
    const prefix = ipv6 === 'advertised' ? router?.prefix : ipv6.prefix;
    if (prefix !== undefined) await this.#be6(prefix, router);
  }

  async #be6(prefix: Address, router: Router | undefined): Promise<void> {
    const { guest } = this.#o;
    const addresses = identifiers6(guest).map((id) => within64(prefix, id));
    const taken = await this.#checks.findTaken(addresses);
    if (taken !== undefined) throw this.#error('address-refused', `somebody else has ${taken}`);
    if (this.#closed) return;
    const gateway = router?.address ?? null;
    this.#outside6 = { prefix, prefixLength: PREFIX_LENGTH_6, gateway };
    this.#watch(6, gateway, { own: linkLocalOf(guest), known: router?.mac });
  }

  /* The router has other prefixes than before. */
  async #renumber(router: Router): Promise<void> {
    if (this.#renumbering) return;
    this.#renumbering = true;
    try {
      await this.#be6(router.prefix, router);
      if (!this.#closed) this.#o.changes.onOutside(this.outside);
    } catch (error) {
      // Taken: the next advertisement tries again, and the old prefix is used until it is over.
      if (!(error instanceof PlaceError)) throw error;
    } finally {
      this.#renumbering = false;
    }
  }

  async #isTaken(address: Address): Promise<boolean> {
    return (await this.#checks.findTaken([address])) !== undefined;
  }

  #watch(
    which: Family,
    target: Address | null,
    o: { own: Address; known?: Mac | undefined },
  ): void {
    this.#watches[which]?.close();
    this.#watches[which] = undefined;
    if (target === null || this.#closed) return;
    const { clock, send, guest, changes } = this.#o;
    const onChange = (mac: Mac) => {
      if (this.#settled) changes.onGatewayMac(which, mac);
    };
    const asked = { clock, send, mac: guest.mac, own: o.own, target, onChange };
    this.#watches[which] = new NeighbourWatch(asked, o.known);
  }

  /** A host of this link that is not the gateway is asked for when it is needed. */
  async #ask(target: Address, own: Address): Promise<Mac | undefined> {
    const { clock, send, guest } = this.#o;
    const asked = { clock, send, mac: guest.mac, own, target, onChange: () => undefined };
    const aside = new NeighbourWatch(asked);
    this.#asides.add(aside);
    const mac = await aside.whenKnown(RESOLVE_MS);
    this.#asides.delete(aside);
    aside.close();
    return mac;
  }

  /* RFC 1122, section 3.3.1.1: on the link, or through the gateway. */
  async #resolve(address: Address): Promise<Mac | undefined> {
    const here = this.#outside4;
    const onLink = here !== undefined && sameSubnet(address, here.address, here.prefixLength);
    if (onLink && address !== here.gateway) return this.#ask(address, here.address);
    return this.#watches[4]?.mac;
  }

  #error(code: PlaceError['code'], why: string): PlaceError {
    return new PlaceError(code, `get addresses for ${this.#o.guest.mac}: ${why}`);
  }
}

const outsideOf = (lease: Lease): Outside4 => ({
  address: lease.address,
  prefixLength: lease.prefixLength,
  gateway: lease.gateway,
  leaseS: lease.leaseS,
});

/* RFC 2131 has hosts without an option 60 of their own, so nothing is made up. */
export function clientIdentity(guest: GuestState): ClientIdentity {
  const { client_id, host_name, vendor_class, parameters } = guest.dhcp;
  const said = [
    { code: DHCP_OPTION.CLIENT_ID, hex: client_id },
    { code: DHCP_OPTION.HOST_NAME, hex: host_name },
    { code: DHCP_OPTION.VENDOR_CLASS, hex: vendor_class },
  ];
  return {
    mac: guest.mac,
    options: said.flatMap(({ code, hex }) =>
      hex === undefined ? [] : [{ code, bytes: Buffer.from(hex, 'hex') }],
    ),
    parameters: Buffer.from(parameters ?? '', 'hex'),
    wish: guest.inside4?.address,
  };
}

function sameSubnet(a: Address, b: Address, prefixLength: number): boolean {
  const [left, right] = [addressBytes(a), addressBytes(b)].map((bytes) =>
    Array.from(bytes, (byte) => byte.toString(2).padStart(8, '0')).join(''),
  );
  return left?.slice(0, prefixLength) === right?.slice(0, prefixLength);
}
