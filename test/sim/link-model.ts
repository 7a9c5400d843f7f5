/*
 * The network between the hosts: delays (and so reorders), duplicates and drops, all from one
 * seed, until it heals.  Whoever owns an address gets what is sent to it.
 */
import type { Clock } from '../../src/sync/clock.js';
import type { Address } from '../../src/wire/address.js';
import type { Packet } from '../../src/wire/packet.js';
import type { Random } from './random.js';

export interface Hostility {
  drop: number;
  duplicate: number;
  /** Milliseconds. */
  delay: [number, number];
  /** How often a packet is delayed by `late` instead. */
  straggler: number;
  late: [number, number];
}

export const FRIENDLY: Hostility = {
  drop: 0,
  duplicate: 0,
  delay: [10, 10],
  straggler: 0,
  late: [0, 0],
};

export class LinkModel {
  readonly #receivers = new Map<Address, (p: Packet) => void>();
  /** Sees every packet that is sent from where it says. */
  onSend: (p: Packet) => void = () => undefined;
  /** Sees every packet when it arrives somewhere. */
  onArrival: (p: Packet) => void = () => undefined;
  /** A middlebox on the way that does not let everything through. */
  passes: (p: Packet) => boolean = () => true;

  constructor(
    private readonly clock: Clock,
    private readonly random: Random,
    public hostility: Hostility,
  ) {}

  plug(address: Address, receive: (p: Packet) => void): void {
    this.#receivers.set(address, receive);
  }

  unplug(address: Address): void {
    this.#receivers.delete(address);
  }

  owns(address: Address): boolean {
    return this.#receivers.has(address);
  }

  /** Lost if the sender does not own the source address: ingress filtering (RFC 2827). */
  send(p: Packet): void {
    if (!this.owns(p.source)) return;
    this.onSend(p);
    this.transmit(p);
  }

  /** As send, by an attacker on the path, who may use any source address. */
  transmit(p: Packet): void {
    const { hostility: h, random } = this;
    if (!this.passes(p)) return;
    const copies = random.chance(h.drop) ? 0 : random.chance(h.duplicate) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      const [low, high] = random.chance(h.straggler) ? h.late : h.delay;
      this.clock.setTimer(random.between(low, high), () => this.#arrive(p));
    }
  }

  #arrive(p: Packet): void {
    const receive = this.#receivers.get(p.destination);
    if (receive === undefined) return;
    this.onArrival(p);
    receive(p);
  }
}
