/*
 * A link as a guest's stand-in meets it: a DHCP server, a router, other hosts.  Time is a fake
 * clock's; every frame takes a millisecond.
 *
 *   GuestCare ── port ──┬── DHCP server and gateway  .1  02:…:01   fe80::1
 *                       └── others: address → MAC
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { GuestPacket } from '../../src/guest/port.js';
import { type Address, address, addressBytes, addressFromBytes } from '../../src/wire/address.js';
import { decodeArp, encodeArp } from '../../src/wire/arp.js';
import {
  addressOption,
  addressOptionOf,
  DHCP_OPTION,
  type DhcpMessage,
  type DhcpOption,
  type DhcpPacket,
  type DhcpType,
  decodeDhcp,
  EVERYBODY,
  encodeDhcp,
  NOBODY,
  secondsOptionOf,
  typeOf,
  typeOption,
} from '../../src/wire/dhcp.js';
import { decodeFrame, ETHERTYPE, type Frame, type Mac, mac } from '../../src/wire/ethernet.js';
import {
  ALL_NODES,
  decodeNeighbour,
  encodeNeighbour,
  prefixOption,
  sourceMacOption,
  targetMacOption,
} from '../../src/wire/neighbour.js';
import type { FakeClock } from '../sim/fake-clock.js';

export const GUEST = mac('02:00:00:00:00:0a');
export const ROUTER_LL = address('fe80::1');

/** Runs what is due, one after the other, and promises in between, for `ms`. */
export async function pass(clock: FakeClock, ms: number): Promise<void> {
  let over = false;
  clock.setTimer(ms, () => {
    over = true;
  });
  while (!over) {
    let taken = 0;
    clock.run({ atMost: Number.POSITIVE_INFINITY, until: () => taken++ > 0 });
    await turn();
  }
}

/** What a promise comes to, with the clock running for at most `ms`. */
export async function outcome<T>(clock: FakeClock, promise: Promise<T>, ms = 20_000): Promise<T> {
  let settled = false;
  promise.then(
    () => {
      settled = true;
    },
    () => {
      settled = true;
    },
  );
  const endMs = clock.now() + ms;
  await turn();
  while (!settled) {
    if (clock.now() >= endMs) throw new Error(`not settled after ${ms} ms`);
    await pass(clock, 1);
  }
  return promise;
}

export interface Site {
  prefix4: string;
  prefix6: string;
  gatewayMac: Mac;
}

export const ATHOS: Site = {
  prefix4: '192.0.2',
  prefix6: '2001:db8:1::',
  gatewayMac: mac('02:00:00:00:01:01'),
};
export const PORTHOS: Site = {
  prefix4: '198.51.100',
  prefix6: '2001:db8:2::',
  gatewayMac: mac('02:00:00:00:02:01'),
};

/** The server's answer to a DISCOVER or REQUEST, that a test may replace; undefined: silence. */
export type Answer = { type: DhcpType; yiaddr?: Address; extra?: DhcpOption[] } | undefined;

export class Lan {
  readonly gateway: Address;
  /** All that the guest's stand-in has sent. */
  readonly frames: Frame[] = [];
  readonly dhcp: DhcpMessage[] = [];
  /** Hosts other than the gateway. */
  readonly others = new Map<Address, Mac>();
  leaseS = 3600;
  offered: Address;
  gatewayMac: Mac;
  prefix6: Address;
  ipv6 = true;
  /** The router asks where a guest is before it answers it; nobody knows while that is paused. */
  asksBack = false;
  silent = false;
  answer: (m: DhcpMessage) => Answer = (m) => this.usual(m);

  constructor(
    readonly clock: FakeClock,
    readonly site: Site,
    private readonly deliver: (p: GuestPacket) => void,
  ) {
    this.gateway = address(`${site.prefix4}.1`);
    this.offered = address(`${site.prefix4}.10`);
    this.gatewayMac = site.gatewayMac;
    this.prefix6 = address(site.prefix6);
  }

  usual(m: DhcpMessage): Answer {
    switch (typeOf(m)) {
      case 'discover':
        return { type: 'offer', yiaddr: this.offered };
      case 'request':
        return { type: 'ack', yiaddr: m.ciaddr === NOBODY ? this.offered : m.ciaddr };
      case 'inform':
        return { type: 'ack', yiaddr: NOBODY };
      default:
        return undefined;
    }
  }

  /** How many DHCP messages of this type the server has got. */
  count = (type: DhcpType): number => this.dhcp.filter((m) => typeOf(m) === type).length;

  receive(bytes: Uint8Array): void {
    const frame = decodeFrame(bytes);
    if ('error' in frame) throw new Error(frame.error);
    this.frames.push(frame);
    if (this.silent) return;
    if (frame.etherType === ETHERTYPE.ARP) this.#arp(frame.payload);
    if (frame.etherType === ETHERTYPE.IPV4) this.#dhcp(frame.payload);
    if (frame.etherType === ETHERTYPE.IPV6) this.#neighbour(frame.payload);
  }

  send(etherType: number, packet: Uint8Array): void {
    this.clock.setTimer(1, () => this.deliver({ etherType, from: 'network', packet }));
  }

  /** An answer that has not been asked for as well. */
  say(sender: Address, senderMac: Mac): void {
    const said = { operation: 'reply' as const, senderMac, sender, targetMac: GUEST };
    this.send(ETHERTYPE.ARP, encodeArp({ ...said, target: this.offered }));
  }

  advertise(o: { routerLifetimeS?: number; preferredS?: number } = {}): void {
    this.send(ETHERTYPE.IPV6, this.advertisement(o));
  }

  advertisement({ routerLifetimeS = 1800, preferredS = 1800 } = {}): Uint8Array {
    const prefix = prefixOption({
      prefix: this.prefix6,
      prefixLength: 64,
      onLink: true,
      autonomous: true,
      validS: 7200,
      preferredS,
    });
    const rdnss = { type: 25, bytes: Uint8Array.of(0, 0, 0, 0, 0, 60, ...addressBytes(ROUTER_LL)) };
    return encodeNeighbour({
      source: ROUTER_LL,
      destination: ALL_NODES,
      message: {
        kind: 'router-advertisement',
        hopLimit: 64,
        flags: 0,
        routerLifetimeS,
        reachableMs: 0,
        retransMs: 0,
        options: [sourceMacOption(this.gatewayMac), prefix, rdnss],
      },
    });
  }

  reply(m: DhcpMessage, answer: Answer, server = this.gateway): void {
    if (answer !== undefined) this.send(ETHERTYPE.IPV4, encodeDhcp(this.packet(m, answer, server)));
  }

  packet(m: DhcpMessage, answer: NonNullable<Answer>, server = this.gateway): DhcpPacket {
    const { type, yiaddr = NOBODY, extra = [] } = answer;
    const leased = yiaddr === NOBODY ? [] : [secondsOptionOf(DHCP_OPTION.LEASE_TIME, this.leaseS)];
    const given = [
      { code: DHCP_OPTION.SUBNET_MASK, bytes: Uint8Array.of(255, 255, 255, 0) },
      addressOptionOf(DHCP_OPTION.ROUTER, this.gateway),
      { code: 119, bytes: Uint8Array.of(1, 0x78, 0) },
    ];
    return {
      source: server,
      destination: EVERYBODY,
      message: {
        ...m,
        op: 'reply',
        yiaddr,
        options: [
          typeOption(type),
          addressOptionOf(DHCP_OPTION.SERVER, server),
          ...(type === 'nak' ? [] : [...leased, ...given]),
          ...extra,
        ],
      },
    };
  }

  #arp(bytes: Uint8Array): void {
    const arp = decodeArp(bytes);
    if ('error' in arp || arp.operation !== 'request') return;
    const found = arp.target === this.gateway ? this.gatewayMac : this.others.get(arp.target);
    if (found !== undefined) this.say(arp.target, found);
  }

  #dhcp(bytes: Uint8Array): void {
    const packet = decodeDhcp(bytes);
    if ('error' in packet) throw new Error(packet.error);
    const { message } = packet;
    this.dhcp.push(message);
    const chosen = addressOption(message, DHCP_OPTION.SERVER);
    if (chosen === undefined || chosen === this.gateway) this.reply(message, this.answer(message));
  }

  #neighbour(bytes: Uint8Array): void {
    const packet = decodeNeighbour(bytes);
    if ('error' in packet) throw new Error(packet.error);
    const { message } = packet;
    if (!this.ipv6) return;
    if (message.kind === 'router-solicitation' && (!this.asksBack || packet.source === '::')) {
      this.advertise();
    }
    if (message.kind !== 'neighbour-solicitation') return;
    const { target } = message;
    const found = target === ROUTER_LL ? this.gatewayMac : this.others.get(target);
    if (found === undefined) return;
    const answer = {
      source: target,
      destination: packet.source === '::' ? ALL_NODES : packet.source,
      message: {
        kind: 'neighbour-advertisement' as const,
        router: true,
        solicited: true,
        override: true,
        target,
        options: [targetMacOption(found)],
      },
    };
    this.send(ETHERTYPE.IPV6, encodeNeighbour(answer));
  }
}

/** An address of a /64 with the identifier of the guest's MAC. */
export const guestAddress6 = (site: Site): Address =>
  addressFromBytes(
    Uint8Array.of(
      ...addressBytes(address(site.prefix6)).subarray(0, 8),
      0,
      0,
      0,
      0xff,
      0xfe,
      0,
      0,
      10,
    ),
  );
