/*
 * The hardware address of a host of the link, in the guest's name: found out by ARP or neighbour
 * solicitation, and kept fresh.
 *
 *   asking: 0, 250, 500, 1000, 1000 … ms ──answer──► known ──30 s──► asking
 *
 * The data plane writes the gateway's address into every frame of a guest that is away, so it must be
 * right; the guest itself cannot tell.  What anybody says of that host unasked counts as well: a
 * gateway that fails over announces itself.
 */
import type { Clock } from '../sync/clock.js';
import { type Address, family } from '../wire/address.js';
import { arpRequest } from '../wire/arp.js';
import { BROADCAST_MAC, ETHERTYPE, type Mac, multicastMac } from '../wire/ethernet.js';
import { encodeNeighbour, solicitedNode, sourceMacOption } from '../wire/neighbour.js';
import type { SendAsGuest } from './port.js';

const RETRY_MS = 250;
const RETRY_MS_MAX = 1000;
const FRESH_MS = 30_000;

export interface NeighbourWatchOptions {
  clock: Clock;
  send: SendAsGuest;
  /** In whose name: the guest's hardware address, and its address at this place. */
  mac: Mac;
  own: Address;
  target: Address;
  /** Known now, or another one than before. */
  onChange: (mac: Mac) => void;
}

export class NeighbourWatch {
  #o: NeighbourWatchOptions;
  #mac: Mac | undefined;
  #timer: unknown;
  #waiting = new Set<(mac: Mac | undefined) => void>();
  #closed = false;

  /** `known`: what is believed already; it is asked for all the same. */
  constructor(o: NeighbourWatchOptions, known?: Mac) {
    this.#o = o;
    this.#mac = known === o.mac ? undefined : known;
    this.#ask(RETRY_MS);
  }

  get target(): Address {
    return this.#o.target;
  }

  get mac(): Mac | undefined {
    return this.#mac;
  }

  /** `address` is at this hardware address. */
  heard(address: Address, mac: Mac): void {
    if (this.#closed || address !== this.#o.target || mac === this.#o.mac) return;
    this.#arm(FRESH_MS, RETRY_MS);
    for (const end of [...this.#waiting]) end(mac);
    if (mac === this.#mac) return;
    this.#mac = mac;
    this.#o.onChange(mac);
  }

  /** Once it is known; undefined: not within `ms`, or closed before. */
  whenKnown(ms: number): Promise<Mac | undefined> {
    if (this.#mac !== undefined) return Promise.resolve(this.#mac);
    return new Promise((resolve) => {
      const end = (mac: Mac | undefined) => {
        this.#o.clock.clearTimer(timer);
        this.#waiting.delete(end);
        resolve(mac);
      };
      const timer = this.#o.clock.setTimer(ms, () => end(undefined));
      this.#waiting.add(end);
    });
  }

  close(): void {
    this.#closed = true;
    for (const end of [...this.#waiting]) end(undefined);
    this.#o.clock.clearTimer(this.#timer);
  }

  #ask(againMs: number): void {
    const { send, mac, own, target } = this.#o;
    this.#arm(againMs, Math.min(2 * againMs, RETRY_MS_MAX));
    if (family(target) === 4) {
      send(ETHERTYPE.ARP, arpRequest(mac, own, target), BROADCAST_MAC);
      return;
    }
    const destination = solicitedNode(target);
    const options = [sourceMacOption(mac)];
    const message = { kind: 'neighbour-solicitation' as const, target, options };
    const packet = encodeNeighbour({ source: own, destination, message });
    send(ETHERTYPE.IPV6, packet, multicastMac(destination));
  }

  #arm(ms: number, againMs: number): void {
    this.#o.clock.clearTimer(this.#timer);
    this.#timer = this.#o.clock.setTimer(ms, () => this.#ask(againMs));
  }
}
