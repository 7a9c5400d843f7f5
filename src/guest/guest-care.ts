/*
 * What the daemon does in the stead of one VM's guest, at its tap.
 *
 *   at home ──restore──► elsewhere ──settle──► settled ──away──► away ──release──► elsewhere
 *      ▲ learns from          │                   │ home           answers the guest
 *      │ what passes          │                   ▼
 *      └──────────────────────┴───────────────  at home
 *
 * A driver: the packets are those that the data plane hands up, time and chance come in.  Only at
 * home is anything learned from the network, so nothing of another place gets into the identity.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../sync/clock.js';
import { type Address, type Family, family } from '../wire/address.js';
import { decodeArp } from '../wire/arp.js';
import { type DhcpPacket, decodeDhcp, EVERYBODY, encodeDhcp, typeOf } from '../wire/dhcp.js';
import { BROADCAST_MAC, ETHERTYPE, encodeFrame, type Mac, multicastMac } from '../wire/ethernet.js';
import {
  ALL_NODES,
  decodeNeighbour,
  linkLayerAddress,
  type NeighbourPacket,
} from '../wire/neighbour.js';
import { gatewayFrame, presenceFrames } from './announce.js';
import { answerDhcp, repeatS, standInAdvertisement } from './answer.js';
import {
  advertisementOf,
  asAdvertisement,
  type GuestState,
  identifiers6,
  learn,
  learnAddress6,
  linkLocalOf,
  parseGuestState,
  unknownGuest,
  within64,
} from './identity.js';
import { informOf, releaseOf } from './lease.js';
import { clientIdentity, type Outside, Place, type PlaceChanges } from './place.js';
import type { GuestPacket, GuestPort, Random32 } from './port.js';
import { parseRequest } from './request.js';
import { RouterSearch } from './router-search.js';

export interface GuestCareOptions extends Partial<PlaceChanges> {
  port: GuestPort;
  clock: Clock;
  random: Random32;
  /** The guest's. */
  mac: Mac;
  /** What a guest that is away sees as the hardware address of its gateway and servers. */
  standIn: Mac;
  /** More, or something else, is known of the guest: for who keeps that. */
  onState?: (state: GuestState) => void;
}

const INFORM_RETRIES_MS = [250, 500, 1000];

/** A guest or router that floods is answered this often; a router itself waits for 3 s. */
const ADVERTISE_MS_MIN = 250;

export class GuestCare {
  #o: GuestCareOptions;
  #state: GuestState;
  #place: Place | undefined;
  #atHome = true;
  #away = false;
  /** Of the gateways at home, as found when the guest came back. */
  #homeMacs: { 4?: Mac | undefined; 6?: Mac | undefined } = {};
  #search: RouterSearch | undefined;
  #informs = new Map<number, (answered: boolean) => void>();
  #repeat: unknown;
  #advertisedMs = Number.NEGATIVE_INFINITY;

  constructor(o: GuestCareOptions) {
    this.#o = o;
    this.#state = unknownGuest(o.mac);
  }

  /** What is known of the guest, as JSON. */
  state(): GuestState {
    return this.#state;
  }

  /** The outside addresses, once the guest has settled at a place. */
  get outside(): Outside | undefined {
    return this.#place?.outside;
  }

  /** Takes over what another place knew; nothing more is learned here, unless this turns out
   * to be its home.  Throws TypeError if it is not a state, or another guest's.
   */
  restore(json: unknown): void {
    const state = parseGuestState(json);
    if (state.mac !== this.#o.mac) {
      throw new TypeError(`the state of guest ${state.mac} for guest ${this.#o.mac}`);
    }
    this.#state = state;
    this.#atHome = false;
  }

  /** A guest with an IPv4 address that no server has given. */
  assume(inside: { address: Address; prefixLength: number; gateway: Address | null }): void {
    const { address, prefixLength, gateway } = inside;
    const given = { prefix_length: prefixLength, server: null, lease_s: 0, options: [] };
    this.#learned({ ...this.#state, inside4: { address, gateway, ...given } });
  }

  /** The guest has been seen with this IPv6 address. */
  uses(a: Address): void {
    this.#learned(learnAddress6(this.#state, a));
  }

  #learned(state: GuestState): void {
    if (isDeepStrictEqual(state, this.#state)) return;
    this.#state = state;
    this.#o.onState?.(state);
  }

  /**
   * Asks the DHCP server at home what it has given to a guest that got its lease before anybody
   * watched.  `own`: the guest's IPv4 address, if it is known from elsewhere.  False: there is no
   * address, or nobody answers within 2 s.
   */
  async inform(own = this.#state.inside4?.address): Promise<boolean> {
    if (own === undefined || family(own) !== 4) return false;
    const { clock, random } = this.#o;
    const xid = random();
    const identity = clientIdentity(this.#state);
    const message = informOf(own, xid, { nowMs: clock.now(), random, identity });
    const packet = encodeDhcp({ source: own, destination: EVERYBODY, message });
    for (const ms of INFORM_RETRIES_MS) {
      const answered = this.#answered(xid, ms);
      this.#send(ETHERTYPE.IPV4, packet, BROADCAST_MAC);
      if (await answered) return true;
    }
    return false;
  }

  /** Asks the routers at home, if none has been heard.  False: none answers within 3 s. */
  async solicit(): Promise<boolean> {
    if (this.#state.inside6 !== null || !this.#mayLearn()) return this.#state.inside6 !== null;
    const { clock, mac } = this.#o;
    const search = new RouterSearch({
      ...{ clock, mac, linkLocal: linkLocalOf(this.#state) },
      send: (etherType, packet, to) => this.#send(etherType, packet, to),
    });
    this.#search?.end(undefined);
    this.#search = search;
    return (await search.find()) !== undefined;
  }

  #answered(xid: number, ms: number): Promise<boolean> {
    return new Promise((resolve) => {
      const end = (answered: boolean) => {
        this.#o.clock.clearTimer(timer);
        this.#informs.delete(xid);
        resolve(answered);
      };
      const timer = this.#o.clock.setTimer(ms, () => end(false));
      this.#informs.set(xid, end);
    });
  }

  /**
   * Gets addresses at this place in the guest's name; a former place is left without a release.
   * `request`: see parseRequest; `gateways4`: where one that is given may lead; `wish4`: one that the
   * guest had here before, as when the daemon was restarted.  Throws PlaceError.
   */
  async settle(
    request: readonly string[],
    o: { gateways4?: readonly Address[]; wish4?: Address | undefined } = {},
  ): Promise<Outside> {
    const { clock, random } = this.#o;
    const guest = this.#state;
    const parsed = parseRequest(request, guest);
    this.#place?.close();
    const place = new Place({
      clock,
      random,
      guest,
      request: parsed,
      ...o,
      send: (etherType, packet, to) => this.#send(etherType, packet, to),
      changes: {
        onOutside: (outside) => this.#o.onOutside?.(outside),
        onGatewayMac: (which, mac) => this.#o.onGatewayMac?.(which, mac),
        onLost: (address, why) => this.#o.onLost?.(address, why),
      },
    });
    this.#place = place;
    try {
      return await place.settle();
    } catch (error) {
      if (this.#place === place) this.#place = undefined;
      throw error;
    }
  }

  /** The guest lives at this place now, and is not at home: it is answered in its home's name. */
  away(): void {
    this.#away = true;
    this.#atHome = false;
    this.#advertiseLater();
  }

  /** The guest is at home: its lease here is its own, and so is what the network says. */
  home(): void {
    const { gatewayMac4, gatewayMac6 } = this.#place?.outside ?? {};
    this.#homeMacs = { 4: gatewayMac4, 6: gatewayMac6 };
    this.#stopAnswering();
    this.#place?.close();
    this.#place = undefined;
    this.#atHome = true;
  }

  /** The guest leaves, or will not come: gives the outside addresses back. */
  async release(): Promise<void> {
    const place = this.#place;
    this.#stopAnswering();
    await place?.release();
    if (this.#place === place) this.#place = undefined;
  }

  /** The guest has left its home: gives back what its server there has given.  No-op elsewhere. */
  surrender(): void {
    const { inside4 } = this.#state;
    if (!this.#atHome || inside4 === null || inside4.server === null) return;
    const { address, server } = inside4;
    const { clock, random } = this.#o;
    const identity = clientIdentity(this.#state);
    const message = releaseOf({ address, server }, { nowMs: clock.now(), random, identity });
    const packet = encodeDhcp({ source: address, destination: server, message });
    this.#send(ETHERTYPE.IPV4, packet, this.#homeMacs[4] ?? BROADCAST_MAC);
  }

  /** Tells the neighbours where the guest is and, if this is its home, the guest who its gateway is. */
  announce(): void {
    const { port, mac } = this.#o;
    for (const frame of presenceFrames(mac, this.#addresses())) port.toNetwork(frame);
    if (this.#away) return;
    const { inside4, inside6 } = this.#state;
    this.#introduce(inside4?.gateway, this.#gatewayMac(4));
    this.#introduce(inside6?.router, this.#gatewayMac(6) ?? inside6?.router_mac);
  }

  #gatewayMac(which: Family): Mac | undefined {
    const { gatewayMac4, gatewayMac6 } = this.#place?.outside ?? {};
    return (which === 4 ? gatewayMac4 : gatewayMac6) ?? this.#homeMacs[which];
  }

  #introduce(gateway: Address | null | undefined, mac: Mac | null | undefined): void {
    if (gateway && mac) this.#o.port.toGuest(gatewayFrame(mac, gateway));
  }

  /* By which the guest is reached here. */
  #addresses(): Address[] {
    const linkLocal = linkLocalOf(this.#state);
    if (this.#place !== undefined) return [...this.#place.addresses, linkLocal];
    const { inside4, inside6 } = this.#state;
    const ids = inside6 === null ? [] : identifiers6(this.#state);
    const global = inside6 === null ? [] : ids.map((id) => within64(inside6.prefix, id));
    return [...(inside4 ? [inside4.address] : []), ...global, linkLocal];
  }

  close(): void {
    this.#stopAnswering();
    this.#place?.close();
    this.#place = undefined;
    this.#search?.end(undefined);
    for (const end of [...this.#informs.values()]) end(false);
  }

  #stopAnswering(): void {
    this.#away = false;
    this.#o.clock.clearTimer(this.#repeat);
  }

  /** What the data plane hands up.  Never throws, whatever it is. */
  packet(p: GuestPacket): void {
    if (p.from === 'guest' || this.#mayLearn()) this.#learned(learn(this.#state, p));
    switch (p.etherType) {
      case ETHERTYPE.ARP:
        if (p.from === 'network') this.#hearArp(p.packet);
        return;
      case ETHERTYPE.IPV4: {
        const packet = decodeDhcp(p.packet);
        if ('error' in packet) return;
        if (p.from === 'guest') this.#answerDhcp(packet);
        else this.#hearDhcp(packet);
        return;
      }
      case ETHERTYPE.IPV6: {
        const packet = decodeNeighbour(p.packet);
        if ('error' in packet) return;
        if (p.from === 'network') this.#hearNeighbour(packet);
        else if (packet.message.kind === 'router-solicitation') this.#advertise();
        return;
      }
    }
  }

  #mayLearn(): boolean {
    return this.#atHome && this.#place === undefined;
  }

  #hearArp(bytes: Uint8Array): void {
    const arp = decodeArp(bytes);
    if (!('error' in arp)) this.#place?.heard(arp.sender, arp.senderMac);
  }

  #hearDhcp({ message }: DhcpPacket): void {
    if (message.chaddr !== this.#o.mac || message.op !== 'reply') return;
    this.#place?.dhcp(message);
    if (typeOf(message) === 'ack') this.#informs.get(message.xid)?.(true);
  }

  #hearNeighbour(packet: NeighbourPacket): void {
    const { message } = packet;
    if (message.kind === 'neighbour-advertisement') {
      this.#place?.heard(message.target, linkLayerAddress(message));
    }
    const advertisement = asAdvertisement(packet);
    if (advertisement === undefined) return;
    this.#place?.advertised(advertisement);
    this.#search?.heard(advertisement);
    this.#advertise();
  }

  #answerDhcp(packet: DhcpPacket): void {
    const answer = this.#away ? answerDhcp(this.#state, packet) : undefined;
    if (answer === undefined) return;
    const everybody = answer.destination === EVERYBODY;
    const destination = everybody ? BROADCAST_MAC : this.#o.mac;
    this.#tellGuest(ETHERTYPE.IPV4, encodeDhcp(answer), destination);
  }

  /* Whenever its router at home might: when the guest asks, when a router here does, in time. */
  #advertise(): void {
    const nowMs = this.#o.clock.now();
    if (!this.#away || nowMs - this.#advertisedMs < ADVERTISE_MS_MIN) return;
    const packet = standInAdvertisement(this.#state, this.#o.standIn);
    if (packet === undefined) return;
    this.#advertisedMs = nowMs;
    this.#tellGuest(ETHERTYPE.IPV6, packet, multicastMac(ALL_NODES));
  }

  #advertiseLater(): void {
    const { clock } = this.#o;
    clock.clearTimer(this.#repeat);
    const { inside6 } = this.#state;
    const home = inside6 === null ? undefined : advertisementOf(inside6);
    if (home === undefined) return;
    this.#repeat = clock.setTimer(repeatS(home.message) * 1000, () => {
      this.#advertise();
      this.#advertiseLater();
    });
  }

  #tellGuest(etherType: number, payload: Uint8Array, destination: Mac): void {
    const source = this.#o.standIn;
    this.#o.port.toGuest(encodeFrame({ source, destination, etherType, payload }));
  }

  #send(etherType: number, payload: Uint8Array, destination: Mac): void {
    const source = this.#o.mac;
    this.#o.port.toNetwork(encodeFrame({ source, destination, etherType, payload }));
  }
}
