/*
 * Addresses that are gone from the interfaces, kept for the sockets that live on them.
 *
 * A retained address must do three things at once: let its sockets send, let packets that the
 * boundary has rewritten for it in, and leave everything else to whoever owns it now.  What comes
 * in for it by an interface with a boundary is a flow's, or nobody's; what this machine itself
 * sends to it is for its owner.  So it is local for what comes in there only.  For ADDR, with table
 * T (measured in test/kernel: retained, stranger, address-gone, kick):
 *
 *   rule   99     iif IF ipproto tcp lookup T    in, for each interface with a boundary, and the
 *                                          same for ICMP: behind `local` (0), as ADDR is not there
 *   rule   99     oif lo lookup T          the daemon's own packets into the own kernel, by
 *                                          sockets that are bound to lo
 *   rule   99     ipproto 255 lookup T     the same for hosts behind a gateway, by raw sockets
 *                                          that are bound to nothing
 *   rule   33000  from ADDR lookup T       out: behind `main`, so only if there is no route
 *   route  T      local ADDR dev lo
 *   route  T      default dev lo hoplimit 1    a black hole that looks like a sent packet; on
 *                                          a host that forwards, it would turn 64 times
 *   IPv4:  address ADDR peer 127.84.73.1/8 on lo, scope host, and its route taken out of table
 *          `local`: the kernel sends from no IPv4 address that no interface has.  IPv6 needs none.
 *
 * The rules of priority 99 pass over the default of T (suppress_prefixlength 0).
 *
 * Why by protocol: the kernel answers ARP for what a look-up without one finds to be local.
 *
 * Why no mark: it is everybody's.  `CONNMARK --restore-mark`, `meta mark set ct mark` overwrite it
 * between the boundary and the route.
 *
 * Why that peer: it makes the address a secondary one of 127.0.0.0/8, which no routing daemon
 * announces, as they would a /32 (test/link/redistribution.test.ts), and says that it is ours.
 *
 * Why the black hole: without any route IPv4 keeps new data unsent in the zero-window probe
 * timer, which an ICMP kick cannot end, and IPv6 shows the program ENETUNREACH in SO_ERROR.
 *
 * Rejected: see decision 18.
 *
 * Everything is tagged with a protocol number, or that peer, so that whoever looks knows it for
 * ours.  Nothing is remembered: what is wanted minus what is there are the steps.  Pure.
 */
import { type Address, address, family } from '../wire/address.js';
import { type KernelObject, type Step, steps } from './kernel-objects.js';
import { ROUTE_TYPE, type RuleRecord, SCOPE, type Version } from './rtnetlink.js';
import type { AddressChange, RouteChange } from './rtnetlink-request.js';

/* Linux has lo as 1 in every network namespace. */
export const LOOPBACK = 1;

/** RTPROT_… of our own: 'T'.  Free in /etc/iproute2/rt_protos and in rtnetlink.h. */
export const RETAINED_PROTOCOL = 84;

/** "TI": the peer of retained IPv4 addresses on lo. */
export const RETAINED_PEER = { address: address('127.84.73.1'), prefixLength: 8 } as const;

const PRIORITY_IN = 99;
const PRIORITY_OUT = 33000;
const IPPROTO = { TCP: 6, ICMP: { 4: 1, 6: 58 }, RAW: 255 } as const;
const NOT_THE_DEFAULT = 0;

/** What there should be. */
export interface Wanted {
  /** None that the kernel calls local for another reason. */
  addresses: readonly Address[];
  /** Those with a boundary, by name: a rule outlives its interface, and finds the next of the name. */
  interfaces: readonly string[];
  /** Whether some of them are gateways. */
  forwards: boolean;
  table: number;
}

/** What there is of ours. */
export interface Observed {
  objects: readonly KernelObject[];
  /** Routes in table `local` that the kernel has made because of our addresses on lo. */
  shadows: readonly KernelObject[];
}

/** What has to be done so that there is what should be.  Empty: nothing. */
export function planRetained(wanted: Wanted, observed: Observed): Step[] {
  const kept = new Set(wanted.addresses);
  const shadowing = observed.shadows.filter(
    (shadow) => shadow.kind === 'route' && kept.has(shadow.route.destination as Address),
  );
  const because = { add: 'flows live on it', remove: 'no flow needs it' };
  const changes = steps(objectsOf(wanted), observed.objects, because);
  return [
    ...changes,
    ...shadowing.map((object): Step => {
      return { verb: 'remove', object, because: 'whoever has the address now is to be reached' };
    }),
  ];
}

/** Everything that these addresses need, in the order in which it is made. */
function objectsOf({ addresses, interfaces, forwards, table }: Wanted): KernelObject[] {
  const versions = ([4, 6] as const).filter((v) => addresses.some((a) => family(a) === v));
  const ours: Selector[] = [
    { outInterface: 'lo' },
    ...(forwards ? [{ ipProtocol: IPPROTO.RAW }] : []),
  ];
  const selectorsOf = (version: Version): Selector[] => [
    ...interfaces.flatMap((inInterface) =>
      [IPPROTO.TCP, IPPROTO.ICMP[version]].map((ipProtocol) => ({ inInterface, ipProtocol })),
    ),
    ...ours,
  ];
  return [
    ...versions.map((version) => routeObject(blackHole(version, table))),
    ...addresses.map((a) => routeObject(localRoute(a, table))),
    ...versions.flatMap((version) =>
      selectorsOf(version).map((selector) => ruleObject(ruleIn(version, table, selector))),
    ),
    ...addresses.map((a) => ruleObject(ruleOut(a, table))),
    ...addresses.filter((a) => family(a) === 4).map((a) => addressObject(onLoopback(a))),
  ];
}

type Selector = Pick<RuleRecord, 'inInterface' | 'outInterface' | 'ipProtocol'>;

const ruleIn = (version: Version, table: number, selector: Selector): RuleRecord => ({
  ...{ version, table, protocol: RETAINED_PROTOCOL, priority: PRIORITY_IN },
  ...{ from: undefined, to: undefined, mark: 0, suppressPrefixLength: NOT_THE_DEFAULT },
  ...selector,
});

const ruleOut = (from: Address, table: number): RuleRecord => ({
  ...{ version: family(from), table, protocol: RETAINED_PROTOCOL, priority: PRIORITY_OUT },
  ...{ from, to: undefined, mark: 0 },
});

const localRoute = (destination: Address, table: number): RouteChange => ({
  ...{ version: family(destination), destination, index: LOOPBACK },
  ...{ prefixLength: family(destination) === 4 ? 32 : 128, table, protocol: RETAINED_PROTOCOL },
  ...{ scope: SCOPE.HOST, type: ROUTE_TYPE.LOCAL },
});

/** What takes what has no other way. */
export const blackHole = (version: Version, table: number): RouteChange => ({
  ...{ version, prefixLength: 0, index: LOOPBACK, table, protocol: RETAINED_PROTOCOL },
  ...{ scope: SCOPE.LINK, type: ROUTE_TYPE.UNICAST, hopLimit: 1 },
});

/* Host scope: never chosen as the source of something else. */
const onLoopback = (a: Address): AddressChange => ({
  ...{ address: a, index: LOOPBACK, scope: SCOPE.HOST },
  ...{ prefixLength: RETAINED_PEER.prefixLength, peer: RETAINED_PEER.address },
});

export function ruleObject(rule: RuleRecord): KernelObject {
  const { priority, version, from, to, mark, inInterface, outInterface, ipProtocol, table } = rule;
  const span = ([first, last]: readonly [number, number]) =>
    first === last ? `${first}` : `${first}-${last}`;
  const words = [
    from && `from ${from}`,
    to && `to ${to}`,
    mark !== 0 && `fwmark 0x${mark.toString(16)}`,
    inInterface && `iif ${inInterface}`,
    outInterface && `oif ${outInterface}`,
    ipProtocol !== undefined && `ipproto ${ipProtocol}`,
    rule.sourcePorts && `sport ${span(rule.sourcePorts)}`,
    rule.destinationPorts && `dport ${span(rule.destinationPorts)}`,
    actionText(rule.action) ?? `lookup ${table}`,
    rule.suppressPrefixLength !== undefined && `suppress_prefixlength ${rule.suppressPrefixLength}`,
  ];
  const text = `IPv${version} rule ${priority}: ${words.filter(Boolean).join(' ')}`;
  return { kind: 'rule', rule, text };
}

function actionText(action: RuleRecord['action']): string | undefined {
  if (action === undefined || action === 'nop') return action;
  return `goto ${action.goto}`;
}

export function routeObject(route: RouteChange): KernelObject {
  const { version, destination, table, type } = route;
  const kind = type === ROUTE_TYPE.LOCAL ? 'local ' : '';
  const text = `IPv${version} route ${kind}${destination ?? 'default'} dev lo table ${table}`;
  return { kind: 'route', route, text };
}

export function addressObject(change: AddressChange): KernelObject {
  const peer = change.peer === undefined ? '' : ` peer ${change.peer}`;
  const text = `address ${change.address}${peer}/${change.prefixLength} dev lo`;
  return { kind: 'address', address: change, text };
}
