/*
 * What a guest that is away is told in the name of its home: its own lease, again and again, and its own
 * router's advertisement.  So its address and its default route never end, and it never hears
 * of the place where it is.  Pure.
 *
 * DHCPv4 (RFC 2131, section 4.3) and router advertisements.  Not DHCPv6: addresses that were got by it
 * are not translated at all (identity.ts).
 */
import type { Address } from '../wire/address.js';
import {
  addressOption,
  DHCP_OPTION,
  type DhcpMessage,
  type DhcpOption,
  type DhcpPacket,
  type DhcpType,
  EVERYBODY,
  NOBODY,
  optionOf,
  secondsOptionOf,
  typeOf,
  typeOption,
} from '../wire/dhcp.js';
import type { Mac } from '../wire/ethernet.js';
import {
  encodeNeighbour,
  isSourceMac,
  prefixInformation,
  type RouterAdvertisement,
  sourceMacOption,
} from '../wire/neighbour.js';
import { advertisementOf, type GuestState, type Inside4, leaseOptions } from './identity.js';

/* What the answer says itself. */
const OWN_OPTIONS: readonly number[] = [
  DHCP_OPTION.TYPE,
  DHCP_OPTION.SERVER,
  DHCP_OPTION.LEASE_TIME,
  DHCP_OPTION.CLIENT_ID,
];

/** What the server at home would say; undefined: nothing, as RELEASE and DECLINE want it. */
export function answerDhcp(state: GuestState, p: DhcpPacket): DhcpPacket | undefined {
  const { message } = p;
  const inside = state.inside4;
  if (message.op !== 'request' || message.chaddr !== state.mac || !inside?.server) return undefined;
  const home = { inside, server: inside.server };
  switch (typeOf(message)) {
    case 'discover':
      return grant('offer', home, message);
    case 'request':
      return answerRequest(home, message);
    case 'inform':
      return grant('ack', home, message);
    default:
      return undefined;
  }
}

interface Home {
  inside: Inside4;
  server: Address;
}

/* Selecting names the server, init-reboot the address only, renewing and rebinding have the
 * address already (RFC 2131, section 4.3.2).
 */
function answerRequest(home: Home, m: DhcpMessage): DhcpPacket | undefined {
  const chosen = addressOption(m, DHCP_OPTION.SERVER);
  // It has chosen another server, which is not to be seen from here: soon it asks again.
  if (chosen !== undefined && chosen !== home.server) return undefined;
  const wanted = addressOption(m, DHCP_OPTION.REQUESTED_ADDRESS) ?? m.ciaddr;
  return wanted === home.inside.address ? grant('ack', home, m) : refuse(home, m);
}

function grant(type: 'offer' | 'ack', { inside, server }: Home, m: DhcpMessage): DhcpPacket {
  const informs = typeOf(m) === 'inform';
  const leased = informs ? [] : [secondsOptionOf(DHCP_OPTION.LEASE_TIME, inside.lease_s)];
  const given = leaseOptions(inside).filter((o) => !OWN_OPTIONS.includes(o.code));
  // Section 4.3.5: no times in the answer to an INFORM.
  const times: readonly number[] = [DHCP_OPTION.RENEWAL_TIME, DHCP_OPTION.REBINDING_TIME];
  const options = informs ? given.filter((o) => !times.includes(o.code)) : given;
  return reply(type, server, m, {
    yiaddr: informs ? NOBODY : inside.address,
    options: [...leased, ...options],
  });
}

/* Section 4.3.2: the client has no address that one could send to. */
const refuse = ({ server }: Home, m: DhcpMessage): DhcpPacket =>
  reply('nak', server, { ...m, ciaddr: NOBODY, broadcast: true }, { yiaddr: NOBODY, options: [] });

function reply(
  type: DhcpType,
  server: Address,
  m: DhcpMessage,
  o: { yiaddr: Address; options: DhcpOption[] },
): DhcpPacket {
  const clientId = optionOf(m, DHCP_OPTION.CLIENT_ID);
  const to = m.ciaddr !== NOBODY ? m.ciaddr : m.broadcast ? EVERYBODY : o.yiaddr;
  return {
    source: server,
    destination: to,
    message: {
      op: 'reply',
      xid: m.xid,
      secs: 0,
      broadcast: m.broadcast,
      ciaddr: m.ciaddr,
      yiaddr: o.yiaddr,
      siaddr: NOBODY,
      chaddr: m.chaddr,
      options: [
        typeOption(type),
        { code: DHCP_OPTION.SERVER, bytes: Uint8Array.from(serverBytes(server)) },
        // RFC 6842: echoed, so that it knows that it is meant.
        ...(clientId ? [{ code: DHCP_OPTION.CLIENT_ID, bytes: clientId }] : []),
        ...o.options,
      ],
    },
  };
}

const serverBytes = (server: Address): number[] => server.split('.').map(Number);

/**
 * The advertisement of its home's router, from the IPv6 header on, with its lifetimes as they
 * were at home; `standIn` is the hardware address that it gives.  undefined: none is known.
 */
export function standInAdvertisement(state: GuestState, standIn: Mac): Uint8Array | undefined {
  const home = state.inside6 === null ? undefined : advertisementOf(state.inside6);
  if (home === undefined) return undefined;
  const options = home.message.options.filter((o) => !isSourceMac(o));
  const message = { ...home.message, options: [sourceMacOption(standIn), ...options] };
  return encodeNeighbour({ ...home, message });
}

const REPEAT_S_MAX = 200;
const REPEAT_S_MIN = 3;

/** How often it must be said again so that nothing in it ends: a third of the shortest lifetime. */
export function repeatS(message: RouterAdvertisement): number {
  const prefixes = prefixInformation(message).filter((p) => p.preferredS > 0);
  const lifetimes = [message.routerLifetimeS, ...prefixes.map((p) => p.preferredS)];
  return Math.max(REPEAT_S_MIN, Math.min(REPEAT_S_MAX, Math.min(...lifetimes) / 3));
}
