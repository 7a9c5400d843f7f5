/**
 * The network of the paper's case study, built from network namespaces.
 *
 *     aramis ──────── router ──┬── athos    br0 192.0.2.1/24     2001:db8:1::1/64
 *     203.0.113.10             │    └─ vm   (eth0 by DHCP and SLAAC)
 *     2001:db8:a::10           └── porthos  br0 198.51.100.1/24  2001:db8:2::1/64
 *
 * athos and porthos are the two sites: a gateway and a bridge each. The VM's cable is a veth pair:
 * its near end is the VM's eth0, its far end a port of the bridge where it is plugged in. A
 * stranger is one more host that can be plugged in at athos, dartagnan another (dartagnan.ts). With a userspace wire, the link
 * between aramis and router is a pair of TAPs instead (wire.ts).
 *
 * Links and addresses only: programs and daemons are started in lab.ts.
 */
import { createNamespace, ipBatch, writeSysctls } from './namespace.js';

export type Site = 'athos' | 'porthos';
export const SITES: readonly Site[] = ['athos', 'porthos'];
export const HOSTS = [
  'aramis',
  'router',
  'athos',
  'porthos',
  'vm',
  'stranger',
  'dartagnan',
] as const;
export type HostName = (typeof HOSTS)[number];
export type Family = 4 | 6;

/** What a site's DHCP server and router advertisements hand out. */
export interface SiteNetwork {
  gateway4: string;
  gateway6: string;
  /** the network without the host part: '192.0.2', '2001:db8:1:' */
  prefix4: string;
  prefix6: string;
  /** the lease reserved for the VM's MAC address */
  vm4: string;
  /** what SLAAC makes of the prefix and the VM's MAC address */
  vm6: string;
}

export const VM_MAC = '02:00:00:00:00:0a';

export const NETWORKS: Record<Site, SiteNetwork> = {
  athos: {
    gateway4: '192.0.2.1',
    gateway6: '2001:db8:1::1',
    prefix4: '192.0.2',
    prefix6: '2001:db8:1:',
    vm4: '192.0.2.10',
    vm6: '2001:db8:1::ff:fe00:a',
  },
  porthos: {
    gateway4: '198.51.100.1',
    gateway6: '2001:db8:2::1',
    prefix4: '198.51.100',
    prefix6: '2001:db8:2:',
    vm4: '198.51.100.10',
    vm6: '2001:db8:2::ff:fe00:a',
  },
};

export const ARAMIS: Record<Family, string> = { 4: '203.0.113.10', 6: '2001:db8:a::10' };

/** Where the other end of the VM's cable is while it is plugged in nowhere. */
export const vmPort = 'vm0';

type Namespaces = Record<HostName, string>;

/** Makes the namespaces, links, addresses and routes. The VM's cable is not plugged in yet. */
export function buildPaper(names: Namespaces, options: { wire: boolean }): void {
  buildSites(names, options);
  for (const host of ['vm', 'stranger', 'dartagnan'] as const) {
    createNamespace(names[host]);
    sysctls(names[host], host);
  }
  ipBatch(names.vm, [
    `link add eth0 address ${VM_MAC} type veth peer name ${vmPort} netns ${names.athos}`,
    'link set eth0 up',
  ]);
}

export const SITE_HOSTS = ['aramis', 'router', 'athos', 'porthos'] as const;
type SiteNamespaces = Record<(typeof SITE_HOSTS)[number], string>;

/** aramis, the router and the two sites: what every topology has. */
export function buildSites(names: SiteNamespaces, options: { wire: boolean }): void {
  for (const host of SITE_HOSTS) {
    createNamespace(names[host]);
    sysctls(names[host], host);
  }
  links(names, options.wire);
  aramis(names.aramis);
  router(names.router);
  site(names.athos, 'athos', 1);
  site(names.porthos, 'porthos', 2);
}

function sysctls(namespace: string, host: HostName): void {
  // Duplicate address detection would keep every new IPv6 address unusable for a second.
  const quick = { 'ipv6/conf/all/accept_dad': '0', 'ipv6/conf/default/accept_dad': '0' };
  const forward = { 'ipv4/ip_forward': '1', 'ipv6/conf/all/forwarding': '1' };
  const forwards = host === 'router' || host === 'athos' || host === 'porthos';
  writeSysctls(namespace, { ...quick, ...(forwards ? forward : {}) });
}

type SiteHost = keyof SiteNamespaces;

function links(names: SiteNamespaces, wire: boolean): void {
  const veth = (a: SiteHost, aName: string, b: SiteHost, bName: string): void =>
    ipBatch(names[a], [`link add ${aName} type veth peer name ${bName} netns ${names[b]}`]);
  if (wire) {
    ipBatch(names.aramis, ['tuntap add dev eth0 mode tap']);
    ipBatch(names.router, ['tuntap add dev aramis0 mode tap']);
  } else {
    veth('aramis', 'eth0', 'router', 'aramis0');
  }
  veth('router', 'athos0', 'athos', 'up0');
  veth('router', 'porthos0', 'porthos', 'up0');
}

function aramis(namespace: string): void {
  ipBatch(namespace, [
    `addr add ${ARAMIS[4]}/24 dev eth0`,
    `addr add ${ARAMIS[6]}/64 dev eth0 nodad`,
    'link set eth0 up',
    'route add default via 203.0.113.1',
    'route add default via 2001:db8:a::1 dev eth0',
  ]);
}

function router(namespace: string): void {
  ipBatch(namespace, [
    'addr add 203.0.113.1/24 dev aramis0',
    'addr add 2001:db8:a::1/64 dev aramis0 nodad',
    'addr add 10.0.1.1/30 dev athos0',
    'addr add 2001:db8:f1::1/64 dev athos0 nodad',
    'addr add 10.0.2.1/30 dev porthos0',
    'addr add 2001:db8:f2::1/64 dev porthos0 nodad',
    'link set aramis0 up',
    'link set athos0 up',
    'link set porthos0 up',
    'route add 192.0.2.0/24 via 10.0.1.2',
    'route add 198.51.100.0/24 via 10.0.2.2',
    'route add 2001:db8:1::/64 via 2001:db8:f1::2 dev athos0',
    'route add 2001:db8:2::/64 via 2001:db8:f2::2 dev porthos0',
  ]);
}

function site(namespace: string, name: Site, link: 1 | 2): void {
  const network = NETWORKS[name];
  ipBatch(namespace, [
    `addr add 10.0.${link}.2/30 dev up0`,
    `addr add 2001:db8:f${link}::2/64 dev up0 nodad`,
    'link set up0 up',
    // With an address of its own: else it takes that of its lowest port, and changes with it.
    `link add br0 address 02:00:00:00:0${link}:01 type bridge stp_state 0 forward_delay 0`,
    `addr add ${network.gateway4}/24 dev br0`,
    `addr add ${network.gateway6}/64 dev br0 nodad`,
    'link set br0 up',
    `route add default via 10.0.${link}.1`,
    `route add default via 2001:db8:f${link}::1 dev up0`,
  ]);
}

/** Puts the far end of the VM's cable into a bridge: the carrier comes up. */
export function plugIn(from: string, to: string): void {
  if (from !== to) ipBatch(from, [`link set ${vmPort} netns ${to}`]);
  ipBatch(to, [`link set ${vmPort} master br0`, `link set ${vmPort} up`]);
}

/** Pulls the VM's cable out of the bridge: the carrier goes down. */
export const pullOut = (namespace: string): void =>
  ipBatch(namespace, [`link set ${vmPort} down`, `link set ${vmPort} nomaster`]);

/**
 * A stranger's host at a site, with an address of its choice; announced to the neighbours at
 * once, so that what was on its way to the former owner reaches the stranger.
 */
export function plugStranger(names: Namespaces, at: Site, address: string): void {
  const network = NETWORKS[at];
  const v6 = address.includes(':');
  ipBatch(names.stranger, [`link add eth0 type veth peer name stranger0 netns ${names[at]}`]);
  writeSysctls(names.stranger, {
    'ipv4/conf/eth0/arp_notify': '1',
    'ipv6/conf/eth0/ndisc_notify': '1',
    'ipv6/conf/eth0/accept_dad': '0',
    'ipv6/conf/eth0/accept_ra': '0',
  });
  ipBatch(names[at], ['link set stranger0 master br0', 'link set stranger0 up']);
  ipBatch(names.stranger, [
    v6 ? `addr add ${address}/64 dev eth0 nodad` : `addr add ${address}/24 dev eth0`,
    'link set eth0 up',
    v6
      ? `route add default via ${network.gateway6} dev eth0`
      : `route add default via ${network.gateway4}`,
  ]);
}
