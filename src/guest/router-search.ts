/*
 * Looks for a router that offers a prefix, in the guest's name (RFC 4861, section 6.3.7): asks
 * at 0, 250, 750, 1750 … ms, and gives up after 3 s, for there may be no IPv6 at a place.
 */
import type { Clock } from '../sync/clock.js';
import type { Address } from '../wire/address.js';
import { ETHERTYPE, type Mac, multicastMac } from '../wire/ethernet.js';
import {
  ALL_ROUTERS,
  encodeNeighbour,
  linkLayerAddress,
  type NeighbourPacket,
  type RouterAdvertisement,
  sourceMacOption,
  UNSPECIFIED,
} from '../wire/neighbour.js';
import { advertisedPrefix } from './identity.js';
import type { SendAsGuest } from './port.js';

export interface Router {
  address: Address;
  mac: Mac | undefined;
  /** A /64. */
  prefix: Address;
}

/** What a router offers; undefined: no prefix that would be of use. */
export function offeredBy(p: NeighbourPacket<RouterAdvertisement>): Router | undefined {
  const prefix = advertisedPrefix(p.message);
  return prefix && { address: p.source, mac: linkLayerAddress(p.message), prefix };
}

const RETRY_MS = 250;
const SEARCH_MS = 3000;

export class RouterSearch {
  #timers: unknown[] = [];
  #resolve: ((router: Router | undefined) => void) | undefined;

  constructor(
    private readonly o: { clock: Clock; send: SendAsGuest; mac: Mac; linkLocal: Address },
  ) {}

  /** The first router that offers a prefix; undefined: none did.  To be called once. */
  find(): Promise<Router | undefined> {
    return new Promise((resolve) => {
      this.#resolve = resolve;
      this.#timers.push(this.o.clock.setTimer(SEARCH_MS, () => this.end(undefined)));
      this.#ask(RETRY_MS, this.o.linkLocal);
    });
  }

  /** An advertisement has come. */
  heard(p: NeighbourPacket<RouterAdvertisement>): void {
    const router = offeredBy(p);
    if (router !== undefined) this.end(router);
  }

  end(router: Router | undefined): void {
    for (const timer of this.#timers) this.o.clock.clearTimer(timer);
    this.#resolve?.(router);
    this.#resolve = undefined;
  }

  /* In turn from the link-local address, which is answered at once, and from nobody's, which must
   * be answered by multicast (RFC 4861, section 6.2.6): a router that first asks where the guest is
   * asks a paused machine.
   */
  #ask(againMs: number, source: Address): void {
    const { clock, send, mac, linkLocal } = this.o;
    const other = source === UNSPECIFIED ? linkLocal : UNSPECIFIED;
    this.#timers.push(clock.setTimer(againMs, () => this.#ask(2 * againMs, other)));
    // Section 4.1: nobody has no hardware address.
    const options = source === UNSPECIFIED ? [] : [sourceMacOption(mac)];
    const message = { kind: 'router-solicitation' as const, options };
    const packet = encodeNeighbour({ source, destination: ALL_ROUTERS, message });
    send(ETHERTYPE.IPV6, packet, multicastMac(ALL_ROUTERS));
  }
}
