/*
 * Whether an interface is still where its addresses are good: asked, and nothing given up for it.
 * Pure; verifier.ts performs it.
 *
 *   asked                                     an answer               means
 *   the gateway, by ARP at the hardware       it answers              same
 *   address known so far (RFC 4436)
 *   DHCP servers, what they would offer       our address             same
 *   (DISCOVER)                                another                 (asked for our address next)
 *                                             one of another subnet   other, unless the gateway is there
 *   DHCP servers, for our address             ACK                     same
 *   (INIT-REBOOT, RFC 2131, section 3.2)      NAK                     other
 *   routers (RS)                              our prefix              same
 *                                             others only, for 1.5 s  other
 *   nobody answers for 4 s                                            unknown
 *
 * An offer comes first as it binds nobody.  To ask for the address itself is for those whom the gateway
 * has not answered: an ACK extends the lease, and a server may take the client's name for changed.
 * A DHCP server goes before a gateway (RFC 4436, section 2.1): a router that serves both networks has
 * one hardware address in both, and Linux answers for all its addresses in each.  But only if it was asked
 * with the identifier that the lease is under, or offers another subnet: else a NAK may mean just that.
 */
import type { Address } from '../wire/address.js';
import type { Arp } from '../wire/arp.js';
import {
  addressOptionOf,
  DHCP_OPTION,
  type DhcpMessage,
  type DhcpType,
  NOBODY,
  typeOf,
  typeOption,
} from '../wire/dhcp.js';
import { type Mac, macBytes } from '../wire/ethernet.js';
import { prefixInformation, type RouterAdvertisement } from '../wire/neighbour.js';
import { prefixOf } from './learned.js';

/** What is to be verified on an interface. */
export interface Claim {
  mac: Mac;
  v4: { address: Address; prefixLength: number; gateways: Gateway[] } | undefined;
  /** Those that came from routers or servers. */
  v6: Address[];
}

export interface Gateway {
  address: Address;
  mac: Mac;
}

/** Under which name the servers know the lease. */
export interface LeaseIdentity {
  /** Option 61; 'hardware': the address, as such; undefined: none. */
  clientId: Uint8Array | 'hardware' | undefined;
  certain: boolean;
}

export type Verdict = 'same' | 'other' | 'unknown';

export type VerificationEvent =
  | { event: 'timer' }
  /** The address is a lease, by now known whose. */
  | { event: 'lease'; identity: LeaseIdentity }
  | { event: 'arp'; arp: Arp }
  | { event: 'dhcp'; message: DhcpMessage }
  | { event: 'advertisement'; message: RouterAdvertisement };

export type VerificationEffect =
  | { effect: 'arp'; arp: Arp }
  | { effect: 'dhcp'; message: DhcpMessage }
  | { effect: 'solicit' }
  /** Replaces the timer that runs. */
  | { effect: 'arm'; ms: number }
  /** At most two of a family: a server may contradict the gateway. */
  | { effect: 'verdict'; family: 4 | 6; verdict: Verdict }
  | { effect: 'end' };

export interface Verification {
  claim: Claim;
  xid: number;
  sinceMs: number;
  round: number;
  identity: LeaseIdentity | undefined;
  gatewayAnswered: boolean;
  /** What servers have said so far: of our address, of others of its subnet, of other subnets. */
  servers: { grant: boolean; refuse: boolean; offerAnother: boolean; offerElsewhere: boolean };
  otherPrefixes: boolean;
  said: { 4: Verdict | undefined; 6: Verdict | undefined };
  ended: boolean;
}

type Step = { next: Verification; effects: VerificationEffect[] };

/* A port that has just come up may lose the first; a connection waits for the answer. */
const ROUNDS_MS = [0, 50, 150, 350, 750, 1550, 2550] as const;
const DISCOVER_ROUNDS = [0, 3, 5];
const REQUEST_ROUNDS = [1, 4, 6];
const SOLICIT_ROUNDS = [0, 2, 4, 6];
/** Long enough for a gateway that answers at all. */
const GATEWAY_MS = 750;
/** A router may answer 0.5 s late (RFC 4861), and there may be several; so may servers. */
const LATE_MS = 1_500;
export const VERIFICATION_MS = 4_000;

/** It asks as soon as its first timer event comes. */
export const newVerification = (claim: Claim, nowMs: number, xid: number): Verification => ({
  ...{ claim, xid, sinceMs: nowMs, round: 0, identity: undefined },
  ...{ gatewayAnswered: false, otherPrefixes: false, ended: false },
  servers: { grant: false, refuse: false, offerAnother: false, offerElsewhere: false },
  said: { 4: undefined, 6: undefined },
});

export function step(v: Verification, e: VerificationEvent, nowMs: number): Step {
  if (v.ended) return { next: v, effects: [] };
  switch (e.event) {
    case 'timer':
      return tick(v, nowMs);
    case 'lease':
      return learnLease({ ...v, identity: e.identity });
    case 'arp':
      return judge(hearArp(v, e.arp), v, nowMs);
    case 'dhcp':
      return hearServer(v, e.message, nowMs);
    case 'advertisement':
      return judge(hearRouter(v, e.message), v, nowMs);
  }
}

function tick(v: Verification, nowMs: number): Step {
  const elapsedMs = nowMs - v.sinceMs;
  const { next: judged, effects } = judge(v, v, nowMs);
  if (judged.ended) return { next: judged, effects };
  if (elapsedMs >= VERIFICATION_MS) return giveUp(judged, effects);
  const { round } = judged;
  const atMs = ROUNDS_MS[round];
  const isDue = atMs !== undefined && elapsedMs >= atMs;
  const next = isDue ? { ...judged, round: round + 1 } : judged;
  const againMs = Math.min(
    ROUNDS_MS[next.round] ?? VERIFICATION_MS,
    ...[GATEWAY_MS, LATE_MS].filter((ms) => ms > elapsedMs),
  );
  const asked = isDue ? questions(judged, round) : [];
  return { next, effects: [...effects, ...asked, { effect: 'arm', ms: againMs - elapsedMs }] };
}

function questions(v: Verification, round: number): VerificationEffect[] {
  const effects: VerificationEffect[] = [];
  const { v4, v6 } = v.claim;
  if (v4 !== undefined && !v.gatewayAnswered && v.said[4] === undefined) {
    for (const gateway of v4.gateways) effects.push(arpTo(v.claim.mac, v4.address, gateway));
  }
  const { refuse, offerAnother, offerElsewhere } = v.servers;
  const asksServers = v4 !== undefined && v.identity !== undefined && !refuse;
  if (asksServers && !offerAnother && !offerElsewhere && DISCOVER_ROUNDS.includes(round)) {
    effects.push(dhcp('discover', v));
  }
  if (asksServers && v.said[4] === undefined && REQUEST_ROUNDS.includes(round)) {
    effects.push(dhcp('request', v));
  }
  const asksRouters = v6.length > 0 && v.said[6] === undefined;
  if (asksRouters && SOLICIT_ROUNDS.includes(round)) effects.push({ effect: 'solicit' });
  return effects;
}

/* RFC 4436, section 4.1: the sender address is the one in question; by unicast it misleads nobody. */
const arpTo = (senderMac: Mac, sender: Address, { address, mac }: Gateway): VerificationEffect => ({
  effect: 'arp',
  arp: { operation: 'request', senderMac, sender, targetMac: mac, target: address },
});

function learnLease(v: Verification): Step {
  if (v.claim.v4 === undefined) return { next: v, effects: [] };
  return { next: v, effects: v.round > 0 ? [dhcp('discover', v)] : [] };
}

function hearArp(v: Verification, arp: Arp): Verification {
  const isAnswer =
    arp.operation === 'reply' &&
    arp.target === v.claim.v4?.address &&
    v.claim.v4.gateways.some(({ address, mac }) => arp.sender === address && arp.senderMac === mac);
  return isAnswer ? { ...v, gatewayAnswered: true } : v;
}

function hearRouter(v: Verification, message: RouterAdvertisement): Verification {
  const prefixes = prefixInformation(message);
  if (prefixes.length === 0) return v;
  const isOurs = prefixes.some(({ prefix, prefixLength }) =>
    v.claim.v6.some((a) => prefixOf(a, prefixLength) === prefixOf(prefix, prefixLength)),
  );
  return isOurs ? { ...v, said: { ...v.said, 6: 'same' } } : { ...v, otherPrefixes: true };
}

function hearServer(v: Verification, m: DhcpMessage, nowMs: number): Step {
  const { v4, mac } = v.claim;
  const isAnswer = m.op === 'reply' && m.xid === v.xid && m.chaddr === mac;
  if (v4 === undefined || !isAnswer) return { next: v, effects: [] };
  const heard = (more: Partial<Verification['servers']>): Step =>
    judge({ ...v, servers: { ...v.servers, ...more } }, v, nowMs);
  const type = typeOf(m);
  if (type === 'nak') return heard({ refuse: true });
  if (type !== 'offer' && type !== 'ack') return { next: v, effects: [] };
  if (m.yiaddr === v4.address) return heard({ grant: true });
  if (type === 'ack') return { next: v, effects: [] };
  const isNear = prefixOf(m.yiaddr, v4.prefixLength) === prefixOf(v4.address, v4.prefixLength);
  const { next, effects } = heard(isNear ? { offerAnother: true } : { offerElsewhere: true });
  // Our address may have been given to somebody else meanwhile: is it refused?
  const asked = v.servers.offerAnother || v.servers.offerElsewhere;
  const asks = asked || next.ended ? [] : [dhcp('request', v)];
  return { next, effects: [...effects, ...asks] };
}

/** What can be said by now that could not be said `before`; ends when nothing more is to be heard. */
function judge(v: Verification, before: Verification, nowMs: number): Step {
  const said = {
    4: v.claim.v4 === undefined ? undefined : (verdict4(v, nowMs) ?? v.said[4]),
    6: v.said[6] ?? verdict6(v, nowMs),
  };
  const families = [4, 6] as const;
  const effects: VerificationEffect[] = families.flatMap((of) => {
    const verdict = said[of];
    if (verdict === undefined || verdict === before.said[of]) return [];
    return { effect: 'verdict', family: of, verdict };
  });
  const next = { ...v, said };
  const ended = isOver4(next, nowMs) && (v.claim.v6.length === 0 || said[6] !== undefined);
  if (ended) effects.push({ effect: 'end' });
  return { next: { ...next, ended }, effects };
}

function verdict4(v: Verification, nowMs: number): Verdict | undefined {
  const { grant, refuse, offerElsewhere } = v.servers;
  if (grant) return 'same';
  if (refuse && (v.identity?.certain || offerElsewhere)) return 'other';
  if (v.gatewayAnswered) return 'same';
  const waited = v.claim.v4?.gateways.length === 0 || nowMs - v.sinceMs >= GATEWAY_MS;
  return (refuse || offerElsewhere) && waited ? 'other' : undefined;
}

function verdict6(v: Verification, nowMs: number): Verdict | undefined {
  return v.otherPrefixes && nowMs - v.sinceMs >= LATE_MS ? 'other' : undefined;
}

/* After the gateway's word that of the servers may still come. */
function isOver4(v: Verification, nowMs: number): boolean {
  if (v.claim.v4 === undefined) return true;
  if (v.said[4] === undefined) return false;
  const { grant, refuse } = v.servers;
  return grant || refuse || !v.gatewayAnswered || nowMs - v.sinceMs >= LATE_MS;
}

function giveUp(v: Verification, before: VerificationEffect[]): Step {
  const families = [4, 6] as const;
  const unsaid = families.filter((of) => {
    const isAsked = of === 4 ? v.claim.v4 !== undefined : v.claim.v6.length > 0;
    return isAsked && v.said[of] === undefined;
  });
  const effects = unsaid.map(
    (of) => ({ effect: 'verdict', family: of, verdict: 'unknown' }) as const,
  );
  return { next: { ...v, ended: true }, effects: [...before, ...effects, { effect: 'end' }] };
}

function dhcp(type: DhcpType, v: Verification): VerificationEffect {
  const { mac, v4 } = v.claim;
  const id = v.identity?.clientId;
  // RFC 2132, section 9.14: the type of hardware first.
  const clientId = id === 'hardware' ? Uint8Array.of(1, ...macBytes(mac)) : id;
  const address = addressOptionOf(DHCP_OPTION.REQUESTED_ADDRESS, v4?.address ?? NOBODY);
  const parameters = Uint8Array.of(DHCP_OPTION.SUBNET_MASK, DHCP_OPTION.ROUTER);
  const message: DhcpMessage = {
    ...{ op: 'request', xid: v.xid, secs: 0, broadcast: false },
    ...{ ciaddr: NOBODY, yiaddr: NOBODY, siaddr: NOBODY, chaddr: mac },
    options: [
      typeOption(type),
      ...(clientId === undefined ? [] : [{ code: DHCP_OPTION.CLIENT_ID, bytes: clientId }]),
      address,
      { code: DHCP_OPTION.PARAMETERS, bytes: parameters },
    ],
  };
  return { effect: 'dhcp', message };
}
