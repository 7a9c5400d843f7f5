/*
 * What is known of a guest: who it is towards DHCP, and what its home has given to it.
 *
 * It goes with the VM as JSON and is what lets another place ask in the guest's name, and
 * answer the guest in the name of its home.  Learned from what passes; bytes of others are kept
 * as hex, verbatim.  Only what home says is learned as inside: away, the driver hands nothing
 * of the network to `learn`.  IPv6: the /64 of stateless autoconfiguration (RFC 4862).
 */
import { z } from 'zod';
import { type Address, address, addressBytes, addressFromBytes, family } from '../wire/address.js';
import {
  addressOption,
  DHCP_OPTION,
  type DhcpMessage,
  type DhcpOption,
  type DhcpPacket,
  decodeDhcp,
  INFINITE_S,
  NOBODY,
  optionOf,
  prefixLengthOf,
  secondsOption,
  typeOf,
} from '../wire/dhcp.js';
import { ETHERTYPE, linkLocalAddress, type Mac, mac } from '../wire/ethernet.js';
import {
  ALL_NODES,
  decodeNeighbour,
  encodeNeighbour,
  linkLayerAddress,
  type NeighbourPacket,
  prefixInformation,
  type RouterAdvertisement,
} from '../wire/neighbour.js';
import type { GuestPacket } from './port.js';

/** Prefix length of an IPv6 subnet whose interface identifiers stay (RFC 4291, section 2.5.1). */
export const PREFIX_LENGTH_6 = 64;

const canonicalAddress = z.string().transform((text, context): Address => {
  try {
    return address(text);
  } catch {
    context.addIssue({ code: 'custom', message: 'not an IP address' });
    return z.NEVER;
  }
});
const address4 = canonicalAddress.refine((a) => family(a) === 4, 'not an IPv4 address');
const address6 = canonicalAddress.refine((a) => family(a) === 6, 'not an IPv6 address');

const canonicalMac = z.string().transform((text, context): Mac => {
  try {
    return mac(text);
  } catch {
    context.addIssue({ code: 'custom', message: 'not a hardware address' });
    return z.NEVER;
  }
});

/* A DHCP message and an RA both fit into a packet of an Ethernet of today. */
const HEX_MAX = 2 * 9000;
const hex = z
  .string()
  .max(HEX_MAX)
  .regex(/^([0-9a-f]{2})*$/);
const seconds = z.int().min(0).max(INFINITE_S);

/** Far more than a guest has; it tells of them itself, so there is a bound. */
const ADDRESSES_6_MAX = 16;

const guestState = z.strictObject({
  version: z.literal(1),
  mac: canonicalMac,
  /** What the guest says of itself to a DHCP server, for as far as it does. */
  dhcp: z.strictObject({
    client_id: hex.optional(),
    host_name: hex.optional(),
    vendor_class: hex.optional(),
    parameters: hex.optional(),
  }),
  inside4: z
    .strictObject({
      address: address4,
      prefix_length: z.int().min(0).max(32),
      gateway: address4.nullable(),
      /** null: an address that no server has given. */
      server: address4.nullable(),
      lease_s: seconds,
      options: z.array(z.strictObject({ code: z.int().min(1).max(254), hex })).max(254),
    })
    .nullable(),
  inside6: z
    .strictObject({
      prefix: address6,
      prefix_length: z.literal(PREFIX_LENGTH_6),
      router: address6,
      router_mac: canonicalMac.nullable(),
      /** The whole packet, from the IPv6 header on. */
      advertisement: hex,
    })
    .nullable(),
  /** Link-local and global ones that it is known to use, the latter within the prefix. */
  addresses6: z.array(address6).max(ADDRESSES_6_MAX),
});

/** In `snake_case`: it is JSON of the API, and travels between versions. */
export type GuestState = z.infer<typeof guestState>;
export type Inside4 = NonNullable<GuestState['inside4']>;
export type Inside6 = NonNullable<GuestState['inside6']>;

export const unknownGuest = (m: Mac): GuestState => ({
  version: 1,
  mac: m,
  dhcp: {},
  inside4: null,
  inside6: null,
  addresses6: [],
});

/** A state that comes from elsewhere.  Throws TypeError that says all that is wrong with it. */
export function parseGuestState(json: unknown): GuestState {
  const parsed = guestState.safeParse(json);
  if (!parsed.success) {
    throw new TypeError(`not the state of a guest: ${z.prettifyError(parsed.error)}`);
  }
  const { inside6 } = parsed.data;
  if (inside6 !== null && advertisementOf(inside6) === undefined) {
    throw new TypeError('not the state of a guest: its router advertisement is none');
  }
  return parsed.data;
}

/** What its home's router had advertised.  undefined: those bytes are no advertisement. */
export function advertisementOf(
  inside6: Inside6,
): NeighbourPacket<RouterAdvertisement> | undefined {
  const packet = decodeNeighbour(Buffer.from(inside6.advertisement, 'hex'));
  return 'error' in packet ? undefined : asAdvertisement(packet);
}

export function asAdvertisement(
  packet: NeighbourPacket,
): NeighbourPacket<RouterAdvertisement> | undefined {
  const { message } = packet;
  // RFC 4861, section 6.1.2: a router speaks with its link-local address.
  if (message.kind !== 'router-advertisement' || !isLinkLocal(packet.source)) return undefined;
  return { ...packet, message };
}

export const leaseOptions = (inside: Inside4): DhcpOption[] =>
  inside.options.map((o) => ({ code: o.code, bytes: Buffer.from(o.hex, 'hex') }));

/** The guest's link-local address: the one it is known to use, else that of its MAC. */
export const linkLocalOf = (state: GuestState): Address =>
  state.addresses6.find(isLinkLocal) ?? linkLocalAddress(state.mac);

/** Its identifiers, 8 bytes each: at least that of its MAC. */
export function identifiers6(state: GuestState): Uint8Array[] {
  const all = [...state.addresses6, linkLocalAddress(state.mac)];
  const ids = all.map((a) => addressBytes(a).subarray(8));
  return [...new Map(ids.map((id) => [hexOf(id), id])).values()];
}

/** `prefix` with an interface identifier. */
export const within64 = (prefix: Address, identifier: Uint8Array): Address =>
  addressFromBytes(Uint8Array.of(...addressBytes(prefix).subarray(0, 8), ...identifier));

const isLinkLocal = (a: Address): boolean => /^fe[89ab]/.test(a) && family(a) === 6;

const samePrefix = (a: Address, b: Address): boolean =>
  Buffer.compare(addressBytes(a).subarray(0, 8), addressBytes(b).subarray(0, 8)) === 0;

/** The state after a packet that was seen at home, or that the guest has sent anywhere. */
export function learn(state: GuestState, p: GuestPacket): GuestState {
  if (p.etherType === ETHERTYPE.IPV4) {
    const packet = decodeDhcp(p.packet);
    return 'error' in packet ? state : learnDhcp(state, packet, p.from);
  }
  if (p.etherType !== ETHERTYPE.IPV6) return state;
  const packet = decodeNeighbour(p.packet);
  if ('error' in packet) return state;
  if (p.from === 'network') return learnRouter(state, packet);
  const { message } = packet;
  // Duplicate address detection is done from nobody's address, and names the new one.
  const own = message.kind === 'neighbour-solicitation' && packet.source === '::';
  return learnAddress6(state, own ? message.target : packet.source);
}

/** The guest uses this IPv6 address: it counts if it is link-local or of its inside prefix. */
export function learnAddress6(state: GuestState, a: Address): GuestState {
  if (family(a) !== 6 || state.addresses6.includes(a)) return state;
  const inside = state.inside6 !== null && samePrefix(a, state.inside6.prefix);
  if (!inside && !isLinkLocal(a)) return state;
  return { ...state, addresses6: [a, ...state.addresses6].slice(0, ADDRESSES_6_MAX) };
}

function learnDhcp(state: GuestState, p: DhcpPacket, from: GuestPacket['from']): GuestState {
  const { message } = p;
  if (message.chaddr !== state.mac) return state;
  if (from === 'guest' && message.op === 'request') return learnRequest(state, message);
  if (from === 'network' && message.op === 'reply' && typeOf(message) === 'ack') {
    return learnAck(state, message);
  }
  return state;
}

function learnRequest(state: GuestState, m: DhcpMessage): GuestState {
  const { CLIENT_ID, HOST_NAME, VENDOR_CLASS, PARAMETERS } = DHCP_OPTION;
  const said = {
    ...hexOption(m, CLIENT_ID, 'client_id'),
    ...hexOption(m, HOST_NAME, 'host_name'),
    ...hexOption(m, VENDOR_CLASS, 'vendor_class'),
    ...hexOption(m, PARAMETERS, 'parameters'),
  };
  return { ...state, dhcp: { ...state.dhcp, ...said } };
}

function hexOption(m: DhcpMessage, code: number, name: keyof GuestState['dhcp']) {
  const bytes = optionOf(m, code);
  return bytes === undefined ? {} : { [name]: hexOf(bytes) };
}

/* The answer to an INFORM has no address and no lease time: those of before are kept. */
function learnAck(state: GuestState, m: DhcpMessage): GuestState {
  const before = state.inside4;
  const own = m.yiaddr === NOBODY ? m.ciaddr : m.yiaddr;
  const prefixLength = prefixLengthOf(m);
  if (own === NOBODY || prefixLength === undefined) return state;
  const same = before?.address === own ? before : undefined;
  const inside4: Inside4 = {
    address: own,
    prefix_length: prefixLength,
    gateway: addressOption(m, DHCP_OPTION.ROUTER) ?? null,
    server: addressOption(m, DHCP_OPTION.SERVER) ?? null,
    lease_s: secondsOption(m, DHCP_OPTION.LEASE_TIME) ?? same?.lease_s ?? INFORMED_LEASE_S,
    options: mergeOptions(same?.options ?? [], m),
  };
  return { ...state, inside4 };
}

/* The guest has a lease of an unknown time; it must not believe in a much longer one, for the
 * server at home does not.
 */
const INFORMED_LEASE_S = 3600;

/* About the exchange, not about the lease: the client's own identifier is echoed (RFC 6842). */
const OF_THE_EXCHANGE: readonly number[] = [
  DHCP_OPTION.TYPE,
  DHCP_OPTION.REQUESTED_ADDRESS,
  DHCP_OPTION.CLIENT_ID,
];

function mergeOptions(before: Inside4['options'], m: DhcpMessage): Inside4['options'] {
  const merged = new Map(before.map((o) => [o.code, o.hex]));
  for (const { code, bytes } of m.options) {
    if (!OF_THE_EXCHANGE.includes(code)) merged.set(code, hexOf(bytes));
  }
  return Array.from(merged, ([code, each]) => ({ code, hex: each }));
}

function learnRouter(state: GuestState, packet: NeighbourPacket): GuestState {
  const advertisement = asAdvertisement(packet);
  const prefix = advertisement && advertisedPrefix(advertisement.message);
  if (advertisement === undefined || prefix === undefined) return state;
  const { source, message } = advertisement;
  const inside6: Inside6 = {
    prefix,
    prefix_length: PREFIX_LENGTH_6,
    router: source,
    router_mac: linkLayerAddress(message) ?? null,
    advertisement: hexOf(encodeNeighbour({ source, destination: ALL_NODES, message })),
  };
  const addresses6 = state.addresses6.filter((a) => isLinkLocal(a) || samePrefix(a, prefix));
  return { ...state, inside6, addresses6 };
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** The prefix from which hosts make their addresses, if the router offers itself and one. */
export function advertisedPrefix(message: RouterAdvertisement): Address | undefined {
  if (message.routerLifetimeS === 0) return undefined;
  const usable = prefixInformation(message).filter(
    (p) =>
      p.autonomous &&
      p.validS > 0 &&
      p.prefixLength === PREFIX_LENGTH_6 &&
      family(p.prefix) === 6 &&
      !isLinkLocal(p.prefix),
  );
  const [first] = usable.sort((a, b) => b.preferredS - a.preferredS);
  return first && within64(first.prefix, new Uint8Array(8));
}
