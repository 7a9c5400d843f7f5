/*
 * A DHCP client in the guest's name (RFC 2131, section 4.4): its MAC, its client identifier, so
 * that the server of a place knows it again.  Pure: time and random numbers come in, messages
 * and timers go out as effects; lease-keeper.ts performs them.
 *
 *       ┌──────────── NAK, no answer, conflict: DECLINE ────────────┐
 *       ▼                                                           │
 *   selecting ──OFFER──► requesting ──ACK──► checking ──free──► bound ──T1──► renewing ──T2──► rebinding
 *       │  ▲                 │                                   ▲  ▲           │ ACK             │ ACK
 *       │  │                 │                                   │  └───────────┘                 │
 *       │  │                 │                                   └────────────────────────────────┘
 *       │  └── NAK, lease over: lost ─────────────────────────────────────────────────────────────┘
 *       └────── deadline ────┴──► failed
 *
 * Quicker at first than the 4 s of section 4.1: a paused machine waits.  After a loss it goes on
 * asking without a deadline, for a place without an address is of no use.
 */
import type { Address } from '../wire/address.js';
import {
  addressOption,
  addressOptionOf,
  DHCP_OPTION,
  type DhcpMessage,
  type DhcpOption,
  type DhcpType,
  INFINITE_S,
  NOBODY,
  prefixLengthOf,
  secondsOption,
  typeOf,
  typeOption,
} from '../wire/dhcp.js';
import type { Mac } from '../wire/ethernet.js';
import type { Random32 } from './port.js';

export interface Lease {
  address: Address;
  prefixLength: number;
  gateway: Address | null;
  server: Address;
  leaseS: number;
  /** T1, T2 and the end, on the driver's clock; Infinity: for ever. */
  renewAtMs: number;
  rebindAtMs: number;
  endsAtMs: number;
}

/** In whose name, and which address would be welcome. */
export interface ClientIdentity {
  mac: Mac;
  /** Options that the guest itself sends: client identifier, host name, vendor class. */
  options: DhcpOption[];
  /** What it asks for (option 55). */
  parameters: Uint8Array;
  wish: Address | undefined;
}

interface Asking {
  xid: number;
  sinceMs: number;
  retries: number;
  /** Of the whole acquisition. */
  deadlineMs: number;
}

export type LeaseClient =
  | ({ state: 'selecting' } & Asking)
  | ({ state: 'requesting'; address: Address; server: Address; sentMs: number } & Asking)
  | { state: 'checking'; lease: Lease; deadlineMs: number }
  | { state: 'bound'; lease: Lease }
  | { state: 'renewing' | 'rebinding'; lease: Lease; xid: number; sentMs: number }
  | { state: 'failed' };

export type LeaseEvent =
  | { event: 'timer' }
  | { event: 'message'; message: DhcpMessage }
  /** Whether somebody else has the address that was to be checked. */
  | { event: 'checked'; taken: boolean };

export type LeaseEffect =
  | { effect: 'send'; message: DhcpMessage; to: 'everybody' | Address }
  /** Replaces the timer that runs. */
  | { effect: 'arm'; ms: number }
  | { effect: 'check'; address: Address }
  /** New, or renewed. */
  | { effect: 'gained'; lease: Lease }
  | { effect: 'lost'; lease: Lease; why: 'expired' | 'refused' }
  | { effect: 'failed' };

export interface LeaseContext {
  nowMs: number;
  random: Random32;
  identity: ClientIdentity;
}

type Step = { next: LeaseClient; effects: LeaseEffect[] };

export const ACQUIRE_MS = 10_000;
const RETRY_MS = 250;
/** RFC 2131, section 4.1. */
const RETRY_MS_MAX = 64_000;
/** Some 4 s: whoever has offered and then is silent is not asked any longer. */
const REQUESTS_MAX = 4;
/** Section 3.1, point 5 has 10 s after a DECLINE, which would be all the time there is. */
const AFTER_DECLINE_MS = 500;
/** Section 4.4.5. */
const RENEW_RETRY_MS_MIN = 60_000;
/** Timers of JavaScript have 31 bits. */
const TIMER_MS_MAX = 24 * 3600 * 1000;
/** Shorter ones would be over before anything has moved to them, and asked for all the time. */
const LEASE_S_MIN = 30;

/** The options without which a lease is of no use to us. */
const NEEDED = [
  DHCP_OPTION.SUBNET_MASK,
  DHCP_OPTION.ROUTER,
  DHCP_OPTION.LEASE_TIME,
  DHCP_OPTION.SERVER,
  DHCP_OPTION.RENEWAL_TIME,
  DHCP_OPTION.REBINDING_TIME,
];
const MESSAGE_BYTES_MAX = 1500;

/** A client that asks as soon as its first timer event comes. */
export const newLeaseClient = (c: LeaseContext, withinMs = ACQUIRE_MS): LeaseClient =>
  select(c, c.nowMs + withinMs);

const select = (c: LeaseContext, deadlineMs: number): LeaseClient => ({
  state: 'selecting',
  xid: c.random(),
  sinceMs: c.nowMs,
  retries: 0,
  deadlineMs,
});

export function step(client: LeaseClient, e: LeaseEvent, c: LeaseContext): Step {
  switch (client.state) {
    case 'selecting':
      if (e.event === 'timer') return discover(client, c);
      return e.event === 'message' ? considerOffer(client, e.message, c) : stay(client);
    case 'requesting':
      if (e.event === 'timer') return requestAgain(client, c);
      return e.event === 'message' ? takeAnswer(client, e.message, c) : stay(client);
    case 'checking':
      return e.event === 'checked' ? judge(client, e.taken, c) : stay(client);
    case 'bound':
    case 'renewing':
    case 'rebinding':
      if (e.event === 'timer') return extend(client, c);
      return e.event === 'message' ? takeExtension(client, e.message, c) : stay(client);
    case 'failed':
      return stay(client);
  }
}

const stay = (next: LeaseClient): Step => ({ next, effects: [] });

function discover(client: LeaseClient & { state: 'selecting' }, c: LeaseContext): Step {
  if (c.nowMs >= client.deadlineMs) return fail();
  const wish = c.identity.wish;
  const options = wish ? [addressOptionOf(DHCP_OPTION.REQUESTED_ADDRESS, wish)] : [];
  const message = messageOf('discover', { ...client, options }, c);
  return {
    next: { ...client, retries: client.retries + 1 },
    effects: [{ effect: 'send', message, to: 'everybody' }, arm(retryMs(client, c))],
  };
}

const fail = (): Step => ({ next: { state: 'failed' }, effects: [{ effect: 'failed' }] });

const retryMs = ({ retries, deadlineMs }: Asking, c: LeaseContext): number =>
  Math.min(RETRY_MS * 2 ** Math.min(retries, 10), RETRY_MS_MAX, deadlineMs - c.nowMs);

const arm = (ms: number): LeaseEffect => ({
  effect: 'arm',
  ms: Math.max(0, Math.min(ms, TIMER_MS_MAX)),
});

/* The first offer that will do.  The others hear of it from the REQUEST, which names the server. */
function considerOffer(
  client: LeaseClient & { state: 'selecting' },
  m: DhcpMessage,
  c: LeaseContext,
): Step {
  if (!isAnswer(m, client.xid, c) || typeOf(m) !== 'offer') return stay(client);
  const lease = leaseOf(m, c.nowMs);
  if (lease === undefined) return stay(client);
  const { address, server } = lease;
  const { xid, sinceMs, deadlineMs } = client;
  const asking = { xid, sinceMs, deadlineMs, retries: 0, sentMs: c.nowMs };
  return requestAgain({ state: 'requesting', address, server, ...asking }, c);
}

function requestAgain(client: LeaseClient & { state: 'requesting' }, c: LeaseContext): Step {
  if (c.nowMs >= client.deadlineMs) return fail();
  if (client.retries >= REQUESTS_MAX) return again(client.deadlineMs, c);
  const options = [
    addressOptionOf(DHCP_OPTION.REQUESTED_ADDRESS, client.address),
    addressOptionOf(DHCP_OPTION.SERVER, client.server),
  ];
  const message = messageOf('request', { ...client, options }, c);
  return {
    next: { ...client, retries: client.retries + 1, sentMs: c.nowMs },
    effects: [{ effect: 'send', message, to: 'everybody' }, arm(retryMs(client, c))],
  };
}

/** Discovery from the beginning, with a new transaction. */
function again(deadlineMs: number, c: LeaseContext): Step {
  return { next: select(c, deadlineMs), effects: [arm(0)] };
}

function takeAnswer(
  client: LeaseClient & { state: 'requesting' },
  m: DhcpMessage,
  c: LeaseContext,
): Step {
  const server = addressOption(m, DHCP_OPTION.SERVER);
  if (!isAnswer(m, client.xid, c) || server !== client.server) return stay(client);
  if (typeOf(m) === 'nak') {
    // A server that refuses what it has offered shall not make us spin.
    return { next: select(c, client.deadlineMs), effects: [arm(RETRY_MS)] };
  }
  const lease = typeOf(m) === 'ack' ? leaseOf(m, client.sentMs) : undefined;
  if (lease === undefined) return stay(client);
  return {
    next: { state: 'checking', lease, deadlineMs: client.deadlineMs },
    effects: [{ effect: 'check', address: lease.address }],
  };
}

/* Section 3.1, point 5: the client checks, and declines what somebody else has. */
function judge(
  { lease, deadlineMs }: LeaseClient & { state: 'checking' },
  taken: boolean,
  c: LeaseContext,
): Step {
  if (!taken) return bind(lease, c);
  const options = [
    addressOptionOf(DHCP_OPTION.REQUESTED_ADDRESS, lease.address),
    addressOptionOf(DHCP_OPTION.SERVER, lease.server),
  ];
  const asking = { xid: c.random(), sinceMs: c.nowMs, options };
  const message = messageOf('decline', asking, c);
  return {
    next: select(c, deadlineMs),
    effects: [{ effect: 'send', message, to: 'everybody' }, arm(AFTER_DECLINE_MS)],
  };
}

function bind(lease: Lease, c: LeaseContext): Step {
  return {
    next: { state: 'bound', lease },
    effects: [{ effect: 'gained', lease }, arm(lease.renewAtMs - c.nowMs)],
  };
}

type Bound = Extract<LeaseClient, { lease: Lease; state: 'bound' | 'renewing' | 'rebinding' }>;

function extend(client: Bound, c: LeaseContext): Step {
  const { lease } = client;
  if (c.nowMs >= lease.endsAtMs) return lose(lease, 'expired', c);
  if (c.nowMs < lease.renewAtMs) {
    return { next: client, effects: [arm(lease.renewAtMs - c.nowMs)] };
  }
  const state = c.nowMs >= lease.rebindAtMs ? 'rebinding' : 'renewing';
  const xid = 'xid' in client ? client.xid : c.random();
  const untilMs = (state === 'renewing' ? lease.rebindAtMs : lease.endsAtMs) - c.nowMs;
  const asking = { xid, sinceMs: lease.renewAtMs, ciaddr: lease.address, options: [] };
  const message = messageOf('request', asking, c);
  const to = state === 'renewing' ? lease.server : 'everybody';
  return {
    next: { state, lease, xid, sentMs: c.nowMs },
    effects: [
      { effect: 'send', message, to },
      arm(Math.min(untilMs, Math.max(untilMs / 2, RENEW_RETRY_MS_MIN))),
    ],
  };
}

function takeExtension(client: Bound, m: DhcpMessage, c: LeaseContext): Step {
  if (client.state === 'bound' || !isAnswer(m, client.xid, c)) return stay(client);
  if (typeOf(m) === 'nak') return lose(client.lease, 'refused', c);
  const lease = typeOf(m) === 'ack' ? leaseOf(m, client.sentMs) : undefined;
  // Another address than the one that was to be extended: not an answer to that.
  if (lease === undefined || lease.address !== client.lease.address) return stay(client);
  return bind(lease, c);
}

function lose(lease: Lease, why: 'expired' | 'refused', c: LeaseContext): Step {
  return {
    next: select(c, Number.POSITIVE_INFINITY),
    effects: [{ effect: 'lost', lease, why }, arm(RETRY_MS)],
  };
}

/** Gives the address back (section 4.4.6): nobody answers that. */
export const releaseOf = (lease: Pick<Lease, 'address' | 'server'>, c: LeaseContext): DhcpMessage =>
  messageOf(
    'release',
    {
      xid: c.random(),
      sinceMs: c.nowMs,
      ciaddr: lease.address,
      options: [addressOptionOf(DHCP_OPTION.SERVER, lease.server)],
    },
    c,
  );

/** Asks what else there is to know for somebody who has an address (section 4.4.3). */
export const informOf = (own: Address, xid: number, c: LeaseContext): DhcpMessage =>
  messageOf('inform', { xid, sinceMs: c.nowMs, ciaddr: own, options: [] }, c);

const isAnswer = (m: DhcpMessage, xid: number, c: LeaseContext): boolean =>
  m.op === 'reply' && m.xid === xid && m.chaddr === c.identity.mac;

function messageOf(
  type: DhcpType,
  o: { xid: number; sinceMs: number; ciaddr?: Address; options: DhcpOption[] },
  { nowMs, identity }: LeaseContext,
): DhcpMessage {
  const gives = type === 'release' || type === 'decline';
  return {
    op: 'request',
    xid: o.xid,
    secs: Math.min(0xffff, Math.floor((nowMs - o.sinceMs) / 1000)),
    // Nobody answers ARP for the new address yet.
    broadcast: o.ciaddr === undefined,
    ciaddr: o.ciaddr ?? NOBODY,
    yiaddr: NOBODY,
    siaddr: NOBODY,
    chaddr: identity.mac,
    options: [
      typeOption(type),
      ...identity.options,
      ...o.options,
      ...(gives ? [] : asked(identity)),
    ],
  };
}

function asked({ parameters }: ClientIdentity): DhcpOption[] {
  const all = new Set([...parameters, ...NEEDED]);
  const size = Uint8Array.of(MESSAGE_BYTES_MAX >> 8, MESSAGE_BYTES_MAX & 0xff);
  return [
    { code: DHCP_OPTION.MAX_SIZE, bytes: size },
    { code: DHCP_OPTION.PARAMETERS, bytes: Uint8Array.from(all) },
  ];
}

/** What an OFFER or ACK gives, if it is enough to live on; counted from when it was asked for. */
function leaseOf(m: DhcpMessage, sentMs: number): Lease | undefined {
  const server = addressOption(m, DHCP_OPTION.SERVER);
  const prefixLength = prefixLengthOf(m);
  const leaseS = secondsOption(m, DHCP_OPTION.LEASE_TIME);
  if (server === undefined || prefixLength === undefined || leaseS === undefined) return undefined;
  if (m.yiaddr === NOBODY || leaseS < LEASE_S_MIN) return undefined;
  const gateway = addressOption(m, DHCP_OPTION.ROUTER) ?? null;
  const times = leaseTimes(m, leaseS, sentMs);
  return { address: m.yiaddr, prefixLength, gateway, server, leaseS, ...times };
}

/* Section 4.4.5: half and seven eighths unless the server says otherwise, and sensibly. */
function leaseTimes(m: DhcpMessage, leaseS: number, sentMs: number) {
  if (leaseS === INFINITE_S) {
    const never = Number.POSITIVE_INFINITY;
    return { renewAtMs: never, rebindAtMs: never, endsAtMs: never };
  }
  const t1 = secondsOption(m, DHCP_OPTION.RENEWAL_TIME) ?? leaseS / 2;
  const t2 = secondsOption(m, DHCP_OPTION.REBINDING_TIME) ?? (leaseS * 7) / 8;
  const sensible = t1 > 0 && t1 < t2 && t2 < leaseS;
  const [renewS, rebindS] = sensible ? [t1, t2] : [leaseS / 2, (leaseS * 7) / 8];
  return {
    renewAtMs: sentMs + renewS * 1000,
    rebindAtMs: sentMs + rebindS * 1000,
    endsAtMs: sentMs + leaseS * 1000,
  };
}
