/* A VM at a site: what cares for it, the link outside, and what it has been sent. */
import { GuestCare, type GuestCareOptions } from '../../src/guest/guest-care.js';
import type { Outside } from '../../src/guest/place.js';
import { type Address, address } from '../../src/wire/address.js';
import {
  DHCP_OPTION,
  type DhcpMessage,
  type DhcpOption,
  type DhcpPacket,
  type DhcpType,
  EVERYBODY,
  encodeDhcp,
  NOBODY,
  typeOption,
} from '../../src/wire/dhcp.js';
import { decodeFrame, ETHERTYPE, type Frame, mac } from '../../src/wire/ethernet.js';
import { ALL_ROUTERS, encodeNeighbour } from '../../src/wire/neighbour.js';
import { FakeClock } from '../sim/fake-clock.js';
import { GUEST, Lan, type Site } from './lan.js';

export const STAND_IN = mac('02:ff:00:00:00:01');
const CLIENT_ID = Uint8Array.of(1, 2, 0, 0, 0, 0, 10);

export class Guest {
  readonly clock: FakeClock;
  readonly lan: Lan;
  readonly care: GuestCare;
  /** All that it got, of its stand-in. */
  readonly received: Frame[] = [];
  /** What the care has told, in words. */
  readonly told: string[] = [];
  #random = 1;

  constructor(site: Site, o: { clock?: FakeClock; care?: Partial<GuestCareOptions> } = {}) {
    this.clock = o.clock ?? new FakeClock();
    this.lan = new Lan(this.clock, site, (p) => this.care.packet(p));
    this.care = new GuestCare({
      clock: this.clock,
      random: () => this.#random++,
      mac: GUEST,
      standIn: STAND_IN,
      port: {
        toNetwork: (frame) => this.lan.receive(frame),
        toGuest: (bytes) => {
          const frame = decodeFrame(bytes);
          if ('error' in frame) throw new Error(frame.error);
          this.received.push(frame);
        },
      },
      onOutside: (outside) => this.told.push(`outside ${words(outside)}`),
      onGatewayMac: (family, m) => this.told.push(`gateway${family} ${m}`),
      onLost: (a, why) => this.told.push(`lost ${a} ${why}`),
      ...o.care,
    });
  }

  /** The guest sends a DHCP message. */
  sends(type: DhcpType, o: Partial<DhcpMessage> & { extra?: DhcpOption[] } = {}): DhcpMessage {
    const { extra = [], ...fields } = o;
    const message = dhcpOf(type, extra, fields);
    const destination = message.ciaddr === NOBODY ? EVERYBODY : this.lan.gateway;
    const packet: DhcpPacket = { source: message.ciaddr, destination, message };
    this.care.packet({ etherType: ETHERTYPE.IPV4, from: 'guest', packet: encodeDhcp(packet) });
    return message;
  }

  /** At home: what the guest and the server say to each other passes. */
  learnsHome(): void {
    const request = this.sends('request', {
      extra: [{ code: DHCP_OPTION.HOST_NAME, bytes: Buffer.from('vm') }],
    });
    const ack = this.lan.packet(request, { type: 'ack', yiaddr: this.lan.offered });
    this.care.packet({ etherType: ETHERTYPE.IPV4, from: 'network', packet: encodeDhcp(ack) });
    this.care.packet({
      etherType: ETHERTYPE.IPV6,
      from: 'network',
      packet: this.lan.advertisement(),
    });
  }

  solicits(source: Address = address('fe80::ff:fe00:a')): void {
    const message = { kind: 'router-solicitation' as const, options: [] };
    const packet = encodeNeighbour({ source, destination: ALL_ROUTERS, message });
    this.care.packet({ etherType: ETHERTYPE.IPV6, from: 'guest', packet });
  }
}

export const dhcpOf = (
  type: DhcpType,
  extra: DhcpOption[] = [],
  fields: Partial<DhcpMessage> = {},
): DhcpMessage => ({
  op: 'request',
  xid: 0xabcdef,
  secs: 0,
  broadcast: false,
  ciaddr: NOBODY,
  yiaddr: NOBODY,
  siaddr: NOBODY,
  chaddr: GUEST,
  options: [typeOption(type), { code: DHCP_OPTION.CLIENT_ID, bytes: CLIENT_ID }, ...extra],
  ...fields,
});

/** One line, both families, `-` for what is missing. */
export function words({ outside4, outside6, gatewayMac4, gatewayMac6 }: Outside): string {
  const four = outside4 && `${outside4.address}/${outside4.prefixLength} via ${outside4.gateway}`;
  const six = outside6 && `${outside6.prefix}/${outside6.prefixLength} via ${outside6.gateway}`;
  return [four, gatewayMac4, six, gatewayMac6].map((each) => each ?? '-').join(' | ');
}
