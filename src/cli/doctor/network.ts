/* What the network of this namespace must be like: interfaces, routes, sysctls, who else is on
 * the hook.
 */

import { readFileSync } from 'node:fs';
import type { PortRange } from '../../daemon/config/config.js';
import { interfaceNames } from '../interfaces.js';
import { type Check, fail, ok, warn } from './check.js';
import { run } from './command.js';

/* RFC 8200 section 5; below it IPv6 does not work at all. */
const MTU_MIN = 1280;

/* The names of our programs, as far as the kernel keeps them (BPF_OBJ_NAME_LEN: 15). */
const OWN_FILTER = /"(boundary|gateway|tap)_(egress|ingres)/;

/** Checks of one interface; the first failure that makes the others meaningless ends them. */
export async function checkInterface(
  name: string,
  protectedNames: readonly string[],
): Promise<Check[]> {
  if (!interfaceNames().includes(name)) {
    return [
      fail(`${name}.exists`, `no interface ${name}`, `one of: ${interfaceNames().join(' ')}`),
    ];
  }
  return [
    ...checkLink(name, run('ip', ['-json', 'link', 'show', 'dev', name]).stdout),
    ...checkSameSubnet(
      name,
      run('ip', ['-json', '-4', 'addr', 'show', 'up']).stdout,
      protectedNames,
      (other) => Math.max(readSysctl('all', 'arp_ignore'), readSysctl(other, 'arp_ignore')),
    ),
    ...checkReversePath(name, readSysctl('all', 'rp_filter'), readSysctl(name, 'rp_filter')),
    checkFilters(name, readFilters(name)),
  ];
}

interface LinkText {
  flags?: string[];
  operstate?: string;
  mtu?: number;
  link_type?: string;
}

/** `json`: the output of `ip -json link show dev NAME`. */
export function checkLink(name: string, json: string): Check[] {
  const link = parseRows<LinkText>(json)?.[0];
  if (link === undefined) {
    return [warn(`${name}.link`, 'not checked: ip gave no answer', 'install iproute2')];
  }
  const { mtu = 0, link_type: kind = 'unknown' } = link;
  const checks: Check[] = [];
  if (kind === 'ether') checks.push(ok(`${name}.kind`, 'Ethernet'));
  else {
    const advice = 'use the Ethernet interface under it';
    checks.push(fail(`${name}.kind`, `link type ${kind}: the boundary needs Ethernet`, advice));
  }
  checks.push(checkCarrier(`${name}.carrier`, link));
  if (mtu >= MTU_MIN) checks.push(ok(`${name}.mtu`, `MTU ${mtu}`));
  else checks.push(warn(`${name}.mtu`, `MTU ${mtu} is below ${MTU_MIN}`, 'raise it for IPv6'));
  return checks;
}

function checkCarrier(id: string, { flags = [], operstate }: LinkText): Check {
  if (operstate === 'DORMANT') {
    return warn(id, 'connected, but dormant', 'nothing, while Wi-Fi or 802.1X log in');
  }
  if (flags.includes('LOWER_UP')) return ok(id, 'up, with carrier');
  const advice = 'nothing, if the network is meant to be away; else: ip link set up, or plug it in';
  return warn(id, flags.includes('UP') ? 'no carrier' : 'down', advice);
}

/** The kernel uses the stricter of both values (ip-sysctl.rst). */
export function checkReversePath(name: string, all: number, own: number): Check[] {
  const id = `${name}.rp-filter`;
  const effective = Math.max(all, own);
  if (effective !== 1) return [ok(id, `reverse path filter ${effective === 2 ? 'loose' : 'off'}`)];
  return [
    warn(
      id,
      'strict reverse path filter: with several uplinks it drops what answers on another one',
      `sysctl -w net.ipv4.conf.${own === 1 ? name : 'all'}.rp_filter=2`,
    ),
  ];
}

interface AddressesText {
  ifname?: string;
  addr_info?: Array<{ family?: string; local?: string; prefixlen?: number }>;
}

/**
 * Linux answers ARP for any address of the machine on any interface: answers may come in where no boundary
 * is.  `json`: the output of `ip -json -4 addr show up`; `protectedNames`: where there is one.
 */
export function checkSameSubnet(
  name: string,
  json: string,
  protectedNames: readonly string[],
  arpIgnore: (name: string) => number,
): Check[] {
  const links = parseRows<AddressesText>(json) ?? [];
  const subnetsOf = (wanted: string): string[] =>
    links
      .filter((link) => link.ifname === wanted)
      .flatMap((link) => link.addr_info ?? [])
      .map(({ local = '', prefixlen = 32 }) => subnet(local, prefixlen));
  const own = new Set(subnetsOf(name).filter((each) => !each.endsWith('/32')));
  const others = links
    .map(({ ifname = '' }) => ifname)
    .filter((other) => other !== name && !protectedNames.includes(other))
    .filter((other) => arpIgnore(other) === 0 && subnetsOf(other).some((each) => own.has(each)));
  return others.map((other) =>
    warn(
      `${name}.same-subnet`,
      `${other} is in the same subnet and has no boundary: answers may come in there, unseen`,
      `tiflow up ${other}, or: sysctl -w net.ipv4.conf.${other}.arp_ignore=1`,
    ),
  );
}

function subnet(address: string, length: number): string {
  const bits = address.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0);
  const hosts = 2 ** (32 - length);
  return `${Math.floor(bits / hosts) * hosts}/${length}`;
}

/** `filters`: what tc says per direction, or undefined if it could not be asked. */
export function checkFilters(name: string, filters: string | undefined): Check {
  const id = `${name}.filters`;
  const rows = filters === undefined ? undefined : parseRows<Record<string, unknown>>(filters);
  if (rows === undefined) return warn(id, 'not checked: tc gave no answer', 'install iproute2');
  const foreign = rows
    .filter((row) => row.options !== undefined)
    .map((row) => JSON.stringify(row))
    .filter((row) => !OWN_FILTER.test(row));
  if (foreign.length === 0) return ok(id, 'no other tc filters');
  return warn(
    id,
    `${foreign.length} other tc filters: one that rewrites TCP before ours hides the flow from it`,
    `look at: tc filter show dev ${name} ingress; tc filter show dev ${name} egress`,
  );
}

/** `ipv4`, `ipv6`: /proc/net/route and /proc/net/ipv6_route, which follow the namespace. */
export function checkDefaultRoutes(ipv4: string, ipv6: string): Check[] {
  const [v4, v6] = [defaultInterfaces(ipv4, ipv6).ipv4, defaultInterfaces(ipv4, ipv6).ipv6];
  if (v4.length === 0 && v6.length === 0) {
    const advice =
      'nothing, if all peers are on the same subnet; else ask the DHCP client or router';
    return [warn('routes.default', 'no default route', advice)];
  }
  const text = [
    v4.length > 0 ? `IPv4 by ${v4.join(', ')}` : 'none for IPv4',
    v6.length > 0 ? `IPv6 by ${v6.join(', ')}` : 'none for IPv6',
  ];
  return [ok('routes.default', text.join('; '))];
}

/** `range`: the text of net.ipv4.ip_local_port_range. */
export function checkSourcePorts(ours: PortRange, range: string): Check {
  const [first = 0, last = 0] = range.trim().split(/\s+/).map(Number);
  const text = `${ours.first}-${ours.last}`;
  if (ours.last < first || ours.first > last) return ok('source-ports', text);
  return warn(
    'source-ports',
    `${text} overlaps the kernel's own ports ${first}-${last}: a new connection may need one twice`,
    'change source_ports, or net.ipv4.ip_local_port_range',
  );
}

/** Reads what checkSourcePorts needs of this network namespace. */
export const readLocalPorts = (): string => readOrEmpty('/proc/sys/net/ipv4/ip_local_port_range');

/** Interfaces with a default route, per family, each once. */
export function defaultInterfaces(ipv4: string, ipv6: string): { ipv4: string[]; ipv6: string[] } {
  const v4 = rowsOf(ipv4)
    .slice(1)
    .filter(([, destination, , , , , , mask]) => destination === '00000000' && mask === '00000000')
    .map(([name = '']) => name);
  const v6 = rowsOf(ipv6)
    .filter(([destination = '', length]) => /^0{32}$/.test(destination) && length === '00')
    .map((row) => row[9] ?? '')
    .filter((name) => name !== 'lo'); // the kernel's own "unreachable" entry
  return { ipv4: [...new Set(v4)], ipv6: [...new Set(v6)] };
}

/** /proc/net/route and /proc/net/ipv6_route; empty where a family is missing. */
export function readRoutes(): [string, string] {
  return [readOrEmpty('/proc/net/route'), readOrEmpty('/proc/net/ipv6_route')];
}

function rowsOf(text: string): string[][] {
  return text
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/));
}

function readFilters(name: string): string | undefined {
  const answers = ['ingress', 'egress'].map((direction) =>
    run('tc', ['-json', 'filter', 'show', 'dev', name, direction]),
  );
  if (answers.some(({ status }) => status !== 0)) return undefined;
  return JSON.stringify(answers.flatMap(({ stdout }) => parseRows(stdout) ?? []));
}

function readSysctl(name: string, key: string): number {
  return Number(readOrEmpty(`/proc/sys/net/ipv4/conf/${name}/${key}`).trim() || 0);
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function parseRows<Row>(json: string): Row[] | undefined {
  try {
    const rows: unknown = JSON.parse(json === '' ? '[]' : json);
    return Array.isArray(rows) ? (rows as Row[]) : undefined;
  } catch {
    return undefined;
  }
}
