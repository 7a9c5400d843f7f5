/**
 * The topology `gateway`: untouched hosts behind gateways.
 *
 *     inner ───── gw ──up0──┬── router ──┬── peer                 203.0.113.10  2001:db8:a::10
 *     10.1.0.10    └───up1──┘            └──up0── gw2 ── inner2   10.2.0.10
 *     2001:db8:c1::10                                             2001:db8:c2::10
 *
 * gw is 192.0.2.10 on up0 and, if it has a second uplink, 198.51.100.10 on up1; gw2 is 198.18.2.10.
 * The router knows the way to both inner subnets by the gateways' first addresses, so without NAT
 * inner hosts are reached as what they are.  The links of the router carry a second subnet each,
 * where peer and the gateways can get another address.
 *
 * The gateways are strict: reverse paths are filtered, and what conntrack finds invalid is dropped.
 * Routes by an uplink without a carrier do not count.
 */
import { createNamespace, ipBatch, runInside, writeSysctls } from '../namespace.js';
import type { Family } from '../topology.js';

export const GATEWAY_HOSTS = ['inner', 'gw', 'router', 'peer', 'gw2', 'inner2'] as const;
export type GatewayHost = (typeof GATEWAY_HOSTS)[number];
export type Movable = 'gw' | 'peer' | 'gw2' | 'inner';
export type Place = 'first' | 'second';

/** A host's network at one place: its prefix, its own address there and its router's. */
type Network = Record<Family, { prefix: string; address: string; router: string }>;

const network = (prefix4: string, prefix6: string, host = 10): Network => ({
  4: { prefix: `${prefix4}.0/24`, address: `${prefix4}.${host}`, router: `${prefix4}.1` },
  6: { prefix: `${prefix6}::/64`, address: `${prefix6}::${host}`, router: `${prefix6}::1` },
});

const FAMILIES: readonly Family[] = [4, 6];
const LENGTH: Record<Family, number> = { 4: 24, 6: 64 };

/** By which link they are at the router, and what they are called there. */
const MOVABLE: Record<
  Exclude<Movable, 'inner'>,
  { link: string; routerLink: string } & Record<Place, Network>
> = {
  gw: {
    link: 'up0',
    routerLink: 'gw0',
    first: network('192.0.2', '2001:db8:1'),
    second: network('198.18.0', '2001:db8:4'),
  },
  peer: {
    link: 'eth0',
    routerLink: 'peer0',
    first: network('203.0.113', '2001:db8:a'),
    second: network('198.18.1', '2001:db8:b'),
  },
  gw2: {
    link: 'up0',
    routerLink: 'gw20',
    first: network('198.18.2', '2001:db8:5'),
    second: network('198.18.3', '2001:db8:6'),
  },
};

/** Of the second uplink of gw. */
const UP1 = network('198.51.100', '2001:db8:2');

const INNER: Record<'inner' | 'inner2', { gateway: 'gw' | 'gw2' } & Network> = {
  inner: { gateway: 'gw', ...network('10.1.0', '2001:db8:c1') },
  inner2: { gateway: 'gw2', ...network('10.2.0', '2001:db8:c2') },
};
/** The same subnet. */
const INNER_SECOND = network('10.1.0', '2001:db8:c1', 20);

export function addressOf(host: GatewayHost, place: Place, f: Family): string {
  if (host === 'router') return UP1[f].router;
  return host === 'inner2' ? INNER[host][f].address : networkOf(host, place)[f].address;
}

function networkOf(host: Movable, place: Place): Network {
  if (host === 'inner') return place === 'first' ? INNER.inner : INNER_SECOND;
  return MOVABLE[host][place];
}

export function buildGateways(names: Record<GatewayHost, string>, o: { uplinks: 1 | 2 }): void {
  const { router } = names;
  for (const host of GATEWAY_HOSTS) furnish(names[host], host);
  for (const host of ['gw', 'peer', 'gw2'] as const) {
    const { link, routerLink, first, second } = MOVABLE[host];
    connect(names[host], link, router, routerLink);
    for (const each of [first, second]) own(router, routerLink, each, 'router');
    settle(names[host], link, first);
  }
  for (const host of ['inner', 'inner2'] as const) {
    const gateway = INNER[host].gateway;
    connect(names[host], 'eth0', names[gateway], 'in0');
    own(names[gateway], 'in0', INNER[host], 'router');
    settle(names[host], 'eth0', INNER[host]);
    const via = MOVABLE[gateway].first;
    const way = (f: Family) => `route add ${INNER[host][f].prefix} via ${via[f].address}`;
    ipBatch(router, FAMILIES.map(way));
  }
  if (o.uplinks === 1) return;
  connect(names.gw, 'up1', router, 'gw1');
  own(router, 'gw1', UP1, 'router');
  settle(names.gw, 'up1', UP1, 200);
}

/* Duplicate address detection would keep every new IPv6 address unusable for a second. */
function furnish(namespace: string, host: GatewayHost): void {
  createNamespace(namespace);
  writeSysctls(namespace, {
    'ipv6/conf/all/accept_dad': '0',
    'ipv6/conf/default/accept_dad': '0',
  });
  if (host === 'peer' || host === 'inner' || host === 'inner2') return;
  writeSysctls(namespace, {
    'ipv4/ip_forward': '1',
    'ipv6/conf/all/forwarding': '1',
    'ipv4/conf/all/rp_filter': '1',
    'ipv4/conf/default/rp_filter': '1',
    // A route by an uplink without a carrier is none.
    'ipv4/conf/all/ignore_routes_with_linkdown': '1',
    'ipv6/conf/all/ignore_routes_with_linkdown': '1',
  });
}

function connect(a: string, aLink: string, b: string, bLink: string): void {
  ipBatch(a, [`link add ${aLink} type veth peer name ${bLink} netns ${b}`, `link set ${aLink} up`]);
  ipBatch(b, [`link set ${bLink} up`]);
}

function own(namespace: string, link: string, n: Network, which: 'address' | 'router'): void {
  const add = (f: Family) => `addr add ${n[f][which]}/${LENGTH[f]} dev ${link}`;
  ipBatch(namespace, FAMILIES.map(add));
}

function settle(namespace: string, link: string, n: Network, metric = 100): void {
  own(namespace, link, n, 'address');
  const way = (f: Family) =>
    `route replace default via ${n[f].router} dev ${link} metric ${metric}`;
  ipBatch(namespace, FAMILIES.map(way));
}

/** Gives a host other addresses on the link that it is on. */
export function renumber(namespace: string, host: Movable, place: Place): void {
  const link = host === 'inner' ? 'eth0' : MOVABLE[host].link;
  ipBatch(namespace, [`addr flush dev ${link} scope global`]);
  settle(namespace, link, networkOf(host, place));
}

/** Has a gateway translate addresses: nft statements, in place of those before. */
export function translate(namespace: string, family: Family, rules: readonly string[]): void {
  const table = `table ${family === 4 ? 'ip' : 'ip6'} nat`;
  const before = rules.filter((rule) => rule.includes(' dnat '));
  const after = rules.filter((rule) => !before.includes(rule));
  const chains = [
    ...['chain before {', 'type nat hook prerouting priority dstnat;', ...before, '}'],
    ...['chain after {', 'type nat hook postrouting priority srcnat;', ...after, '}'],
  ];
  const text = [table, `delete ${table}`, `${table} {`, ...chains, '}'].join('\n');
  runInside(namespace, ['nft', '-f', '-'], `${text}\n`);
}

/** A firewall that lets nothing pass that conntrack does not take for part of a connection. */
export function guard(namespace: string): void {
  const chain = (hook: string): string[] => [
    ...[`chain ${hook} {`, `type filter hook ${hook} priority filter;`],
    ...['ct state invalid counter drop', '}'],
  ];
  const text = ['table inet guard {', ...chain('input'), ...chain('forward'), '}'].join('\n');
  runInside(namespace, ['nft', '-f', '-'], `${text}\n`);
}
