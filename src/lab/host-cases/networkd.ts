/**
 * systemd-networkd with its defaults: at each reconfiguration of a link it removes the addresses,
 * routes and rules that it has not made.
 */

import type { Machine } from '../twins/machine.js';
import type { HostCase } from '../twins/stage.js';
import { pause } from '../wait.js';
import { startBus } from './network-bus.js';
import { FLOW, LEGACY_DIES } from './talks.js';

const NETWORK = `[Match]
Name=eth0
[Network]
DHCP=ipv4
IPv6AcceptRA=yes
[DHCPv4]
UseHostname=no
`;

/** As long as networkd needs to do something about a carrier that is gone. */
const UNPLUGGED_MS = 1_000;

export async function startNetworkd(machine: Machine): Promise<void> {
  await startBus(machine);
  machine.write('/etc/systemd/network/00-lab.network', NETWORK);
  const own = ['', '/links', '/leases', '/lldp'].map((name) => `/run/systemd/netif${name}`);
  machine.run('install', '-d', '-o', 'systemd-network', '-g', 'systemd-network', ...own);
  machine.start('networkd', '/usr/lib/systemd/systemd-networkd');
  await machine.settled('A');
}

export const networkd: HostCase = {
  name: 'host-networkd',
  summary: 'the cable goes to another network; then the link is reconfigured',
  software: 'systemd-networkd 252, DHCP and router advertisements',
  twins: { addresses: 'dhcp' },
  talks: [FLOW, LEGACY_DIES],
  prepare: startNetworkd,
  async happen(machine) {
    machine.unplug();
    await pause(UNPLUGGED_MS);
    machine.plug('B');
    await machine.settled('B');
    machine.run('networkctl', 'reconfigure', 'eth0');
    await machine.settled('B');
  },
};
