/**
 * DHCP clients that know nothing of carriers (dhclient, udhcpc), and one that does (dhcpcd).
 */
import { UDHCPC_SCRIPT } from '../services.js';
import type { Machine } from '../twins/machine.js';
import type { HostCase } from '../twins/stage.js';
import { pause, until } from '../wait.js';
import { FLOW, FLOW_STAYS, LEGACY_DIES, LEGACY_STAYS } from './talks.js';

type Client = 'dhclient' | 'dhcpcd' | 'udhcpc';

const SOFTWARE: Record<Client, string> = {
  dhclient: 'dhclient 4.4 (ISC)',
  dhcpcd: 'dhcpcd 9.4',
  udhcpc: 'udhcpc (busybox)',
};

/** Whether it asks again when there is a carrier again. */
const NOTICES: Record<Client, boolean> = { dhclient: false, dhcpcd: true, udhcpc: false };

const COMMAND: Record<Client, string[]> = {
  dhclient: ['dhclient', '-d', '-pf', '/run/dhclient.pid', '-lf', '/run/dhclient.leases', 'eth0'],
  dhcpcd: ['dhcpcd', '-B', '--nohook', 'resolv.conf', 'eth0'],
  udhcpc: [
    ...['udhcpc', '-f', '-i', 'eth0', '-p', '/run/udhcpc.pid', '-s', '/run/udhcpc.script'],
    ...['-t', '5', '-T', '1', '-A', '1'],
  ],
};

const DHCPCD_SETTINGS = `clientid
slaac hwaddr
noarp
`;

async function startClient(machine: Machine, client: Client): Promise<void> {
  machine.write('/run/udhcpc.script', UDHCPC_SCRIPT, 0o755);
  machine.write('/etc/dhcpcd.conf', DHCPCD_SETTINGS);
  machine.run('mkdir', '-p', '/var/lib/dhcpcd', '/var/lib/dhcp');
  machine.start(client, ...COMMAND[client]);
  await machine.settled('A');
}

const UNPLUGGED_MS = 500;

const moves = (client: Client): HostCase => ({
  name: `host-${client}`,
  summary: 'the cable goes to another network',
  software: `${SOFTWARE[client]}${client === 'dhcpcd' ? '' : ", the kernel's own IPv6"}`,
  twins: { addresses: 'dhcp' },
  talks: [FLOW, LEGACY_DIES],
  prepare: (machine) => startClient(machine, client),
  async happen(machine) {
    machine.unplug();
    await pause(UNPLUGGED_MS);
    machine.plug('B');
    if (machine.hasTiflow || NOTICES[client]) await machine.settled('B');
  },
  // A client that takes no notice keeps the lease of the other network until it is to be renewed.
  ...(!NOTICES[client] && { endsOffline: 'without' }),
  ...(client !== 'dhclient' && { seldom: true }),
});

export const dhclient = moves('dhclient');
export const dhcpcd = moves('dhcpcd');
export const udhcpc = moves('udhcpc');

/** Longer than tiflow could wait for an answer before it lets an address go. */
const AFTERWARDS_MS = 5_000;

export const dhcpDown: HostCase = {
  name: 'host-dhcp-down',
  summary: 'the DHCP server is away when the carrier is lost for half a second',
  software: SOFTWARE.udhcpc,
  twins: { addresses: 'dhcp' },
  talks: [FLOW_STAYS, LEGACY_STAYS],
  prepare: (machine) => startClient(machine, 'udhcpc'),
  async happen(machine, family) {
    await machine.lab.stopAddressServer('A');
    machine.unplug();
    await pause(UNPLUGGED_MS);
    machine.plug('A');
    await pause(AFTERWARDS_MS);
    const address = machine.address(family);
    await until(`${address} on ${machine.name}, still`, () => machine.has(address));
  },
};
