/**
 * Machines whose addresses are unlike others': no IPv6, a single address and a gateway outside of
 * it, IPv6 addresses that are replaced under a connection.
 */

import type { Family } from '../topology.js';
import { GIVE_UP_MS } from '../twins/lab.js';
import type { Machine } from '../twins/machine.js';
import type { HostCase } from '../twins/stage.js';
import { FULL, NET } from '../twins/topology.js';
import { pause, until } from '../wait.js';
import { FLOW, FLOW_STAYS, LEGACY_DIES, LEGACY_STAYS } from './talks.js';

const disableIpv6 = (machine: Machine, where: string, yes: boolean): void =>
  machine.sysctl({ [`ipv6/conf/${where}/disable_ipv6`]: yes ? '1' : '0' });

/** Where the link stays the same, even a plain connection goes on until it is given up. */
const givenUp = (): Promise<void> => pause(GIVE_UP_MS + 500);

export const noIpv6: HostCase = {
  name: 'host-no-ipv6',
  summary: 'the machine has no IPv6; it moves',
  software: 'sysctl: disable_ipv6 on all interfaces',
  twins: { addresses: 'static' },
  families: [4],
  talks: [FLOW, LEGACY_DIES],
  prepare: (machine) => disableIpv6(machine, 'all', true),
  happen(machine) {
    machine.unplug();
    machine.ip('addr flush dev eth0');
    machine.plug('B');
    machine.settle('B', { families: [4] });
  },
};

const SWITCHED_OFF_MS = 500;

export const ipv6Off: HostCase = {
  name: 'host-ipv6-off',
  summary: 'IPv6 is switched off on the interface, and on again with the same addresses',
  software: 'sysctl: disable_ipv6 at run time',
  seldom: true,
  twins: { addresses: 'static' },
  talks: [FLOW_STAYS, LEGACY_STAYS],
  async happen(machine) {
    disableIpv6(machine, 'eth0', true);
    await pause(SWITCHED_OFF_MS);
    disableIpv6(machine, 'eth0', false);
    machine.settle('A');
  },
};

/** In no subnet of the link. */
const single = ({ number }: Machine, place: 1 | 2, family: Family): string =>
  family === 4 ? `203.0.113.${place}${number}` : `2001:db8:c:${place}::${number}`;

function settleSingle(machine: Machine, place: 1 | 2, family: Family): void {
  const address = single(machine, place, family);
  machine.lab.run('router', [
    ...['ip', 'route', 'replace', `${address}/${FULL[family]}`, 'dev', NET.A.bridge],
  ]);
  const gateway = NET.A.router[family];
  const via = family === 4 ? `via ${gateway} dev eth0 onlink` : `via ${gateway} dev eth0`;
  machine.ip(
    `addr add ${address}/${FULL[family]} dev eth0`,
    ...(family === 6 ? [`route replace ${gateway} dev eth0`] : []),
    `route replace default ${via} metric 100`,
  );
}

export const onLink: HostCase = {
  name: 'host-on-link-gateway',
  summary: 'one address, of no subnet, and a gateway that is on the link; another such address',
  software: 'iproute2: /32 or /128 as of many providers',
  twins: { addresses: 'static' },
  talks: [FLOW, LEGACY_DIES],
  prepare(machine, family) {
    machine.ip('addr flush dev eth0 scope global');
    settleSingle(machine, 1, family);
  },
  async happen(machine, family) {
    machine.ip('addr flush dev eth0 scope global');
    settleSingle(machine, 2, family);
    await givenUp();
  },
};

/** Of temporary addresses, s: the kernel makes the next one 5 s before this one is deprecated. */
const PREFERRED_S = 8;
const VALID_S = 12;

const temporary = (machine: Machine): string[] =>
  [
    ...machine
      .run('ip', '-6', '-o', 'addr', 'show', 'dev', 'eth0', 'temporary')
      .matchAll(/inet6 ([0-9a-f:]+)\//g),
  ].map(([, address]) => address ?? '');

export const privacy: HostCase = {
  name: 'host-privacy',
  summary: 'the temporary address that a connection began on runs out and is replaced',
  software: "the kernel's IPv6 privacy extensions (RFC 8981)",
  twins: { addresses: 'dhcp' },
  families: [6],
  talks: [FLOW, LEGACY_DIES],
  async prepare(machine) {
    machine.sysctl({
      'ipv6/conf/eth0/temp_prefered_lft': String(PREFERRED_S),
      'ipv6/conf/eth0/temp_valid_lft': String(VALID_S),
      'ipv6/conf/eth0/max_desync_factor': '0',
      'ipv6/conf/eth0/use_tempaddr': '2',
    });
    disableIpv6(machine, 'eth0', true);
    disableIpv6(machine, 'eth0', false);
    await until(`a temporary address on ${machine.name}`, () => temporary(machine).length > 0);
  },
  async happen(machine) {
    const before = temporary(machine);
    const gone = () => temporary(machine).every((address) => !before.includes(address));
    await until(`${before} to run out`, gone, (VALID_S + 5) * 1e3);
    await givenUp();
  },
};
