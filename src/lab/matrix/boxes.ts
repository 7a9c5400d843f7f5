/**
 * Middleboxes as nftables rulesets and sysctls on the routers of the topology `paper`.
 *
 *     aramis ── [router] ──┬── [athos]   ── vm
 *                          └── [porthos] ┄┄ vm
 *
 * A box "at aramis" is on the router, one "at the VM" on both sites; a box in the middle, which
 * all traffic passes before and after the move, is on the router.
 */
import type { Lab } from '../lab.js';
import { writeSysctls } from '../namespace.js';
import { ARAMIS, type HostName, NETWORKS, SITES } from '../topology.js';

/** Where the services of all transfers listen. */
export const SERVICES = { first: 5001, last: 5099 } as const;
const PORTS = `${SERVICES.first}-${SERVICES.last}`;

export type End = 'aramis' | 'vm';

interface Box {
  host: HostName;
  /** the interface towards what it protects */
  inside: string;
  /** what it protects */
  address4: string;
  address6: string;
}

const SITE_BOXES: readonly Box[] = SITES.map((site) => ({
  ...{ host: site, inside: 'br0' },
  ...{ address4: NETWORKS[site].vm4, address6: NETWORKS[site].vm6 },
}));

const BOXES: Record<End, readonly Box[]> = {
  aramis: [{ host: 'router', inside: 'aramis0', address4: ARAMIS[4], address6: ARAMIS[6] }],
  vm: SITE_BOXES,
};

/** What to dial to reach a service behind the NAT of that end, while the VM is at athos. */
export const NAT_ADDRESS: Record<End, Record<4 | 6, string>> = {
  aramis: { 4: '203.0.113.1', 6: '2001:db8:a::1' },
  vm: { 4: '10.0.1.2', 6: '2001:db8:f1::2' },
};

function nft(lab: Lab, host: HostName, chains: Record<string, string[]>): void {
  const chain = ([name, lines]: [string, string[]]): string =>
    `chain ${name} {\n${lines.join('\n')}\n}`;
  const text = `table inet box {\n${Object.entries(chains).map(chain).join('\n')}\n}\n`;
  lab.run(host, ['nft', '-f', '-'], text);
}

const FORWARD = 'type filter hook forward priority filter';
/** Before any connection tracking box looks at the packet's rules. */
const MANGLE = 'type filter hook forward priority mangle';

/**
 * The rules with a counter that no packet has met, on any host: boxes that have not acted, or
 * only on one family. Those of both sites count as one, the VM may not have been at both.
 */
export function idleRules(lab: Lab): string[] {
  const met = new Map<string, number>();
  for (const host of ['router', ...SITES] as const) {
    for (const line of lab.run(host, ['nft', 'list', 'ruleset']).split('\n')) {
      const [, rule, packets] = /^\s*(.*) counter packets (\d+) /.exec(line) ?? [];
      if (rule === undefined) continue;
      met.set(rule, (met.get(rule) ?? 0) + Number(packets));
    }
  }
  return [...met].filter(([, packets]) => packets === 0).map(([rule]) => rule);
}

/** A counter of either end's kernel that nothing was counted on: `TcpExtSyncookiesRecv`. */
export const idleCounter = (lab: Lab, name: string): string[] =>
  (['aramis', 'vm'] as const)
    .filter((host) => !new RegExp(`^${name} +[1-9]`, 'm').test(lab.run(host, ['nstat', '-as'])))
    .map((host) => `${name} of ${host}`);

/** What a rule does to all that the router forwards. */
export const mangle = (lab: Lab, ...rules: string[]): void =>
  nft(lab, 'router', { forward: [MANGLE, ...rules] });

/** On every hop: the firewalls of the new path have not seen the connection begin. */
export function dropInvalid(lab: Lab): void {
  for (const host of ['router', ...SITES] as const) {
    nft(lab, host, { forward: [FORWARD, 'ct state invalid drop'] });
  }
}

/** Nothing comes in that was not asked for, but calls to the services where there are any. */
export function denyInbound(lab: Lab, end: End, services: boolean): void {
  for (const { host, inside } of BOXES[end]) {
    const inbound = `oifname "${inside}" meta l4proto tcp`;
    nft(lab, host, {
      forward: [
        FORWARD,
        'ct state invalid drop',
        `${inbound} ct state established,related counter accept`,
        ...(services ? [`${inbound} tcp dport ${PORTS} accept`] : []),
        `${inbound} drop`,
      ],
    });
  }
}

/** Source ports change, too; the services, if there are any, are forwarded. */
export function masquerade(lab: Lab, end: End, services: boolean): void {
  // Behind it may be one who only answers: then its own address is never a caller's.
  const counter = services ? '' : 'counter';
  for (const { host, inside, address4, address6 } of BOXES[end]) {
    const inbound = `iifname != "${inside}" tcp dport ${PORTS}`;
    nft(lab, host, {
      postrouting: [
        'type nat hook postrouting priority srcnat',
        `oifname != "${inside}" meta l4proto tcp ${counter} masquerade fully-random`,
      ],
      ...(services && {
        prerouting: [
          'type nat hook prerouting priority dstnat',
          `${inbound} meta nfproto ipv4 counter dnat ip to ${address4}`,
          `${inbound} meta nfproto ipv6 counter dnat ip6 to ${address6}`,
        ],
      }),
    });
  }
}

/** Answers every call to a service itself before it lets it through (nft(8), synproxy). */
export function synproxy(lab: Lab): void {
  // Without it the rest of a handshake that was not tracked makes a connection of its own.
  writeSysctls(lab.namespaces.router, { 'netfilter/nf_conntrack_tcp_loose': '0' });
  nft(lab, 'router', {
    prerouting: [
      'type filter hook prerouting priority raw',
      `tcp dport ${PORTS} tcp flags syn counter notrack`,
    ],
    forward: [
      FORWARD,
      `tcp dport ${PORTS} ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm`,
      'ct state invalid drop',
    ],
  });
}

/** Both ends: `{'ipv4/tcp_ecn': '1'}`. */
export function atBothEnds(lab: Lab, settings: Record<string, string>): void {
  for (const host of ['aramis', 'vm'] as const) writeSysctls(lab.namespaces[host], settings);
}

/** The link to porthos carries less than that to athos. */
export function narrowPorthos(lab: Lab, mtu: number, icmp: 'passed' | 'dropped'): void {
  lab.run('router', ['ip', 'link', 'set', 'porthos0', 'mtu', String(mtu)]);
  lab.run('porthos', ['ip', 'link', 'set', 'up0', 'mtu', String(mtu)]);
  const verdict = icmp === 'passed' ? 'accept' : 'drop';
  const types = ['icmp type destination-unreachable', 'icmpv6 type packet-too-big'];
  const tooBig = types.map((type) => `${type} counter ${verdict}`);
  for (const host of ['router', 'porthos'] as const) {
    nft(lab, host, { output: ['type filter hook output priority filter', ...tooBig] });
  }
}
