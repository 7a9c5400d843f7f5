/**
 * The two sites behind NATs, as at home and in a café: athos and porthos translate all that leaves
 * to an address of their own, IPv6 (NAT66) as well. Nothing can reach the VM unasked, and the
 * router knows no way to it.
 *
 *     aramis ──── router ──┬── athos    NAT 10.0.1.2  2001:db8:f1::2 ── vm 192.0.2.10
 *                          └── porthos  NAT 10.0.2.2  2001:db8:f2::2
 *
 * Ports are drawn at random, as RFC 6056 asks: after a reboot a connection has another one. A
 * `strict` NAT lets only a SYN make a new entry; others take up a connection in its middle.
 */
import type { Hosts } from './hosts.js';
import { ipBatch, runInside, writeSysctls } from './namespace.js';
import { NETWORKS, SITES, type Site } from './topology.js';

export type NatKind = 'loose' | 'strict';

const RULES = `
table inet nat {
  chain postrouting {
    type nat hook postrouting priority srcnat
    oifname "up0" masquerade fully-random
  }
  chain forward {
    type filter hook forward priority filter
    ct state invalid drop
    ct state established,related accept
    iifname "up0" drop
  }
}
`;

/** Where a site's NAT is on the internet: link, and the host part of its address. */
const LINKS: Record<Site, 1 | 2> = { athos: 1, porthos: 2 };

/** Puts NATs into both sites. */
export function buildNats(lab: Hosts, kind: NatKind): void {
  const { namespaces } = lab;
  for (const site of SITES) {
    const { prefix4, prefix6 } = NETWORKS[site];
    ipBatch(namespaces.router, [
      ...[`route del ${prefix4}.0/24`, `route del ${prefix6}:/64`],
      `addr del 10.0.${LINKS[site]}.1/30 dev ${site}0`,
      `addr add 10.0.${LINKS[site]}.1/24 dev ${site}0`,
    ]);
    disconnectNat(lab, site);
    reconnectNat(lab, site, 'before');
    runInside(namespaces[site], ['nft', '-f', '-'], RULES);
    setNatKind(lab, site, kind);
  }
}

/** Whether a NAT takes up connections in their middle. */
export function setNatKind(lab: Hosts, site: Site, kind: NatKind): void {
  const loose = kind === 'loose' ? '1' : '0';
  writeSysctls(lab.namespaces[site], { 'netfilter/nf_conntrack_tcp_loose': loose });
}

/** A NAT is off for a while, and forgets every connection: masquerade does when its link goes. */
export const disconnectNat = (lab: Hosts, site: Site): void =>
  ipBatch(lab.namespaces[site], ['link set up0 down', 'addr flush dev up0']);

/** And on again, with its own address or with another one. */
export const reconnectNat = (lab: Hosts, site: Site, as: 'before' | 'other'): void =>
  connect(lab, site, as === 'before' ? 2 : 3);

function connect(lab: Hosts, site: Site, as: number): void {
  const link = LINKS[site];
  ipBatch(lab.namespaces[site], [
    `addr add 10.0.${link}.${as}/24 dev up0`,
    `addr add 2001:db8:f${link}::${as}/64 dev up0 nodad`,
    'link set up0 up',
    `route add default via 10.0.${link}.1`,
    `route add default via 2001:db8:f${link}::1 dev up0`,
  ]);
}
