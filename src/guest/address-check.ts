/*
 * Is an address free at a place?  ARP probes (RFC 5227, section 2.1), duplicate address detection
 * for IPv6 (RFC 4862, section 5.4), both in the guest's name.
 *
 * Short: three questions in 0.3 s instead of up to 7 s, since a paused machine waits; an owner on the same
 * link answers within a millisecond.  An answer with the guest's own hardware address is the
 * guest itself, which may still run at the place that it comes from, on the same link.
 */
import type { Clock } from '../sync/clock.js';
import { type Address, family } from '../wire/address.js';
import { arpProbe } from '../wire/arp.js';
import { BROADCAST_MAC, ETHERTYPE, type Mac, multicastMac } from '../wire/ethernet.js';
import { encodeNeighbour, solicitedNode, UNSPECIFIED } from '../wire/neighbour.js';
import type { SendAsGuest } from './port.js';

const PROBES = 3;
const PROBE_INTERVAL_MS = 100;

interface Check {
  addresses: readonly Address[];
  end: (taken: Address | undefined) => void;
  timer: unknown;
}

export class AddressChecks {
  #running = new Set<Check>();

  constructor(private readonly o: { clock: Clock; mac: Mac; send: SendAsGuest }) {}

  /** The first of these addresses that somebody else has; undefined: all are free. */
  findTaken(addresses: readonly Address[]): Promise<Address | undefined> {
    return new Promise((resolve) => {
      const end = (taken: Address | undefined) => {
        this.o.clock.clearTimer(check.timer);
        this.#running.delete(check);
        resolve(taken);
      };
      const check: Check = { addresses, end, timer: undefined };
      this.#running.add(check);
      this.#probe(check, PROBES);
    });
  }

  /** `address` is at this hardware address: an ARP packet or neighbour advertisement says so. */
  heard(address: Address, mac: Mac | undefined): void {
    if (mac === this.o.mac) return;
    for (const check of [...this.#running]) {
      if (check.addresses.includes(address)) check.end(address);
    }
  }

  /** Whatever is being checked counts as free: nobody waits for it any longer. */
  close(): void {
    for (const check of [...this.#running]) check.end(undefined);
  }

  #probe(check: Check, left: number): void {
    if (left === 0) {
      check.end(undefined);
      return;
    }
    check.timer = this.o.clock.setTimer(PROBE_INTERVAL_MS, () => this.#probe(check, left - 1));
    for (const address of check.addresses) this.#ask(address);
  }

  #ask(target: Address): void {
    const { mac, send } = this.o;
    if (family(target) === 4) {
      send(ETHERTYPE.ARP, arpProbe(mac, target), BROADCAST_MAC);
      return;
    }
    const destination = solicitedNode(target);
    const message = { kind: 'neighbour-solicitation' as const, target, options: [] };
    const packet = encodeNeighbour({ source: UNSPECIFIED, destination, message });
    send(ETHERTYPE.IPV6, packet, multicastMac(destination));
  }
}
