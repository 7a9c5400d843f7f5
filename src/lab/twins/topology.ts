/**
 * The topology `twins`: a machine with other software on it, and its twin without tiflow.
 *
 *     host ── eth0 ──┐              ┌── peer    192.0.2.10     2001:db8:a::10   (tiflow)
 *                    netA ─ router ─┤
 *     twin ── eth0 ──┘ netB         └── plain   198.51.100.10  2001:db8:b::10   (none)
 *
 * netA and netB are two switches of the router, each a subnet with a DHCP server and router
 * advertisements if wanted. Each machine's cable is plugged in at netA first. Sources are
 * filtered, as everywhere: what comes from a subnet or a machine that the router would not reach
 * there is not forwarded.
 */
import { createNamespace, ipBatch, runInside, writeSysctls } from '../namespace.js';
import type { Family } from '../topology.js';

export const TWINS_HOSTS = ['host', 'twin', 'router', 'peer', 'plain'] as const;
export type TwinsHost = (typeof TWINS_HOSTS)[number];
export type MachineName = 'host' | 'twin';
export type Far = 'peer' | 'plain';
export type Net = 'A' | 'B';
export type Uplink = 'eth0' | 'eth1';
export const NETS: readonly Net[] = ['A', 'B'];
export const FAMILIES: readonly Family[] = [4, 6];

export interface NetParts {
  bridge: string;
  prefix4: string;
  prefix6: string;
  router: Record<Family, string>;
}

const net = (name: Net, number: 1 | 2): NetParts => ({
  bridge: `net${name}`,
  prefix4: `10.${number}.0`,
  prefix6: `2001:db8:${number}:`,
  router: { 4: `10.${number}.0.1`, 6: `2001:db8:${number}::1` },
});

export const NET: Record<Net, NetParts> = { A: net('A', 1), B: net('B', 2) };

export const FAR: Record<Far, Record<Family, string> & { router: Record<Family, string> }> = {
  peer: { 4: '192.0.2.10', 6: '2001:db8:a::10', router: { 4: '192.0.2.1', 6: '2001:db8:a::1' } },
  plain: {
    ...{ 4: '198.51.100.10', 6: '2001:db8:b::10' },
    router: { 4: '198.51.100.1', 6: '2001:db8:b::1' },
  },
};

export const LENGTH: Record<Family, number> = { 4: 24, 6: 64 };
/** Of one host. */
export const FULL: Record<Family, number> = { 4: 32, 6: 128 };

const LAST: Record<MachineName, number> = { host: 5, twin: 6 };
const UPLINK_NUMBER: Record<Uplink, number> = { eth0: 1, eth1: 2 };

export const macOf = (machine: MachineName, uplink: Uplink): string =>
  `02:00:00:00:0${UPLINK_NUMBER[uplink]}:0${LAST[machine]}`;

/** What a machine is called at a net: by reservation, by SLAAC, or given by hand. */
export function addressAt(o: {
  machine: MachineName;
  net: Net;
  family: Family;
  uplink?: Uplink;
}): string {
  const { prefix4, prefix6 } = NET[o.net];
  const [last, uplink] = [LAST[o.machine], UPLINK_NUMBER[o.uplink ?? 'eth0']];
  if (o.family === 4) return `${prefix4}.${uplink === 1 ? '' : uplink}${last}`;
  return `${prefix6}:ff:fe00:${uplink}0${last}`;
}

/** The port of the router that the far end of an uplink's cable is. */
export const portOf = (machine: MachineName, uplink: Uplink): string =>
  `${machine}${uplink.slice(3)}`;

export function buildTwins(names: Record<TwinsHost, string>): void {
  for (const host of TWINS_HOSTS) furnish(names[host], host);
  for (const { bridge, router } of Object.values(NET)) {
    // With an address of its own: else it takes that of its lowest port, and changes with it.
    const mac = `02:00:00:00:0${bridge === 'netA' ? 'a' : 'b'}:01`;
    ipBatch(names.router, [
      `link add ${bridge} address ${mac} type bridge stp_state 0 forward_delay 0`,
      ...FAMILIES.map((f) => `addr add ${router[f]}/${LENGTH[f]} dev ${bridge}`),
      `link set ${bridge} up`,
    ]);
  }
  for (const far of ['peer', 'plain'] as const) connectFar(names, far);
  for (const machine of ['host', 'twin'] as const) makeCable(names, machine, 'eth0');
  runInside(names.router, ['nft', '-f', '-'], FILTERED_SOURCES);
}

const FILTERED_SOURCES = `table inet sources {
  chain forward {
    type filter hook forward priority 0;
    iifname { "netA", "netB" } fib saddr . iif oif missing counter drop
  }
}
`;

/* Duplicate address detection would keep every new IPv6 address unusable for a second. */
function furnish(namespace: string, host: TwinsHost): void {
  createNamespace(namespace);
  const forward = { 'ipv4/ip_forward': '1', 'ipv6/conf/all/forwarding': '1' };
  writeSysctls(namespace, {
    'ipv6/conf/all/accept_dad': '0',
    'ipv6/conf/default/accept_dad': '0',
    ...(host === 'router' ? forward : {}),
  });
}

function connectFar(names: Record<TwinsHost, string>, far: Far): void {
  const { router } = FAR[far];
  const add = (f: Family, address: string, dev: string) =>
    `addr add ${address}/${LENGTH[f]} dev ${dev}`;
  ipBatch(names.router, [
    `link add ${far}0 type veth peer name eth0 netns ${names[far]}`,
    ...FAMILIES.map((f) => add(f, router[f], `${far}0`)),
    `link set ${far}0 up`,
  ]);
  ipBatch(names[far], [
    ...FAMILIES.map((f) => add(f, FAR[far][f], 'eth0')),
    'link set eth0 up',
    ...FAMILIES.map((f) => `route add default via ${router[f]} dev eth0`),
  ]);
}

/** A new interface of a machine; its cable ends at the router, not plugged in. */
export function makeCable(
  names: Record<TwinsHost, string>,
  machine: MachineName,
  uplink: Uplink,
): void {
  const port = portOf(machine, uplink);
  const mac = macOf(machine, uplink);
  ipBatch(names[machine], [
    `link add ${uplink} address ${mac} type veth peer name ${port} netns ${names.router}`,
    `link set ${uplink} up`,
  ]);
}
