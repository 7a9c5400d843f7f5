/* Performs what the DHCP client of lease.ts wants: sends, waits, has addresses checked. */
import type { Clock } from '../sync/clock.js';
import type { Address } from '../wire/address.js';
import { type DhcpMessage, EVERYBODY, encodeDhcp } from '../wire/dhcp.js';
import { BROADCAST_MAC, ETHERTYPE, type Mac } from '../wire/ethernet.js';
import {
  type ClientIdentity,
  type Lease,
  type LeaseClient,
  type LeaseContext,
  type LeaseEffect,
  type LeaseEvent,
  newLeaseClient,
  releaseOf,
  step,
} from './lease.js';
import type { Random32, SendAsGuest } from './port.js';

export interface LeaseKeeperOptions {
  clock: Clock;
  random: Random32;
  identity: ClientIdentity;
  send: SendAsGuest;
  /** Whether somebody else has the address. */
  isTaken: (address: Address) => Promise<boolean>;
  /** The hardware address of a host of this link or, for one that is not, of the gateway. */
  resolve: (address: Address) => Promise<Mac | undefined>;
  /** A lease that was renewed, or another one after a loss; not for the first. */
  onGained: (lease: Lease) => void;
  onLost: (lease: Lease, why: 'expired' | 'refused') => void;
}

export class LeaseKeeper {
  #o: LeaseKeeperOptions;
  #client: LeaseClient;
  #timer: unknown;
  #acquired: ((lease: Lease | undefined) => void) | undefined;
  #closed = false;

  constructor(o: LeaseKeeperOptions) {
    this.#o = o;
    this.#client = newLeaseClient(this.#context());
  }

  /** The first lease; undefined if there is none within 10 s.  To be called once. */
  acquire(): Promise<Lease | undefined> {
    return new Promise((resolve) => {
      this.#acquired = resolve;
      this.#happen({ event: 'timer' });
    });
  }

  /** A DHCP message that the network has sent to the guest. */
  receive(message: DhcpMessage): void {
    this.#happen({ event: 'message', message });
  }

  /** Gives the address back, if there is one, even if it is still being checked, and ends. */
  async release(): Promise<void> {
    const client = this.#client;
    const lease = 'lease' in client ? client.lease : undefined;
    this.close();
    if (lease !== undefined) await this.#send(releaseOf(lease, this.#context()), lease.server);
  }

  /** Ends, and leaves the lease to whoever has the address. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#o.clock.clearTimer(this.#timer);
    this.#settle(undefined);
  }

  #settle(lease: Lease | undefined): boolean {
    const settle = this.#acquired;
    this.#acquired = undefined;
    settle?.(lease);
    return settle !== undefined;
  }

  #context(): LeaseContext {
    const { clock, random, identity } = this.#o;
    return { nowMs: clock.now(), random, identity };
  }

  #happen(event: LeaseEvent): void {
    if (this.#closed) return;
    const { next, effects } = step(this.#client, event, this.#context());
    this.#client = next;
    for (const effect of effects) this.#perform(effect);
  }

  #perform(e: LeaseEffect): void {
    switch (e.effect) {
      case 'send':
        void this.#send(e.message, e.to);
        return;
      case 'arm':
        this.#o.clock.clearTimer(this.#timer);
        this.#timer = this.#o.clock.setTimer(e.ms, () => this.#happen({ event: 'timer' }));
        return;
      case 'check':
        this.#o.clock.clearTimer(this.#timer);
        void this.#check(e.address);
        return;
      case 'gained':
        if (!this.#settle(e.lease)) this.#o.onGained(e.lease);
        return;
      case 'lost':
        this.#o.onLost(e.lease, e.why);
        return;
      case 'failed':
        this.#settle(undefined);
        return;
    }
  }

  async #check(address: Address): Promise<void> {
    this.#happen({ event: 'checked', taken: await this.#o.isTaken(address) });
  }

  /* By unicast where the server is meant: one whose hardware address nobody tells is sent an
   * Ethernet broadcast, which is better than nothing.
   */
  async #send(message: DhcpMessage, to: 'everybody' | Address): Promise<void> {
    const everybody = to === 'everybody';
    const destination = everybody ? EVERYBODY : to;
    const packet = encodeDhcp({ source: message.ciaddr, destination, message });
    const mac = everybody ? undefined : await this.#o.resolve(to);
    this.#o.send(ETHERTYPE.IPV4, packet, mac ?? BROADCAST_MAC);
  }
}
