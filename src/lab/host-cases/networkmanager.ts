/**
 * NetworkManager: a cable that goes to another network, a bridge of its own with a port, and a
 * device that the user has disconnected, which stays so.
 */

import type { Machine } from '../twins/machine.js';
import type { HostCase, TwinsStage } from '../twins/stage.js';
import { pause, until } from '../wait.js';
import { startBus } from './network-bus.js';
import { FLOW, FLOW_STAYS, LEGACY_DIES, LEGACY_STAYS } from './talks.js';

const SOFTWARE = 'NetworkManager 1.42';

const SETTINGS = `[main]
plugins=keyfile
dns=none
rc-manager=unmanaged
auth-polkit=false
hostname-mode=none
no-auto-default=*
`;

const ADDRESSES = `[ipv4]
method=auto
[ipv6]
method=auto
addr-gen-mode=eui64
ip6-privacy=0
`;

/** By name; of each: more sections than those that all have. */
const WIRED = { wired: `[connection]\nid=wired\ntype=ethernet\ninterface-name=eth0\n${ADDRESSES}` };

const bridged = (mac: string) => ({
  br0: `[connection]
id=br0
type=bridge
interface-name=br0
[bridge]
stp=false
mac-address=${mac}
${ADDRESSES}`,
  port: '[connection]\nid=port\ntype=ethernet\ninterface-name=eth0\nmaster=br0\nslave-type=bridge\n',
});

async function startNetworkManager(
  machine: Machine,
  connections: Record<string, string>,
): Promise<void> {
  await startBus(machine);
  machine.write('/etc/NetworkManager/NetworkManager.conf', SETTINGS);
  for (const [name, text] of Object.entries(connections)) {
    machine.write(`/etc/NetworkManager/system-connections/${name}.nmconnection`, text, 0o600);
  }
  machine.run('mkdir', '-p', '/run/NetworkManager', '/var/lib/NetworkManager');
  machine.start('networkmanager', 'NetworkManager', '--no-daemon', '--debug');
  await until(`NetworkManager of ${machine.name}`, () => machine.try('nmcli', 'general', 'status'));
  // What is up already it leaves to whoever has put it up, until it is told.
  for (const name of Object.keys(connections).reverse()) {
    machine.run('nmcli', '--wait', '15', 'connection', 'up', name);
  }
  await machine.settled('A');
}

const stateOf = (machine: Machine, device: string): string =>
  machine.run('nmcli', '-t', '-g', 'GENERAL.STATE', 'device', 'show', device).trim();

/** NetworkManager takes no notice of a carrier that is lost for up to 6 s. */
const UNPLUGGED_MS = 7_000;
const FLAP_MS = 500;
/** For what a flap may set off. */
const AFTERWARDS_MS = 4_000;

export const networkManager: HostCase = {
  name: 'host-networkmanager',
  summary: 'the cable goes to another network',
  software: `${SOFTWARE}, DHCP and router advertisements`,
  twins: { addresses: 'dhcp' },
  talks: [FLOW, LEGACY_DIES],
  prepare: (machine) => startNetworkManager(machine, WIRED),
  async happen(machine) {
    machine.unplug();
    await pause(UNPLUGGED_MS);
    machine.plug('B');
    await machine.settled('B');
  },
};

export const networkManagerQuick: HostCase = {
  name: 'host-networkmanager-quick',
  summary: 'the cable goes to another network so quickly that NetworkManager keeps its lease',
  software: networkManager.software,
  seldom: true,
  twins: { addresses: 'dhcp' },
  talks: [FLOW, LEGACY_DIES],
  prepare: (machine) => startNetworkManager(machine, WIRED),
  async happen(machine) {
    machine.unplug();
    await pause(FLAP_MS);
    machine.plug('B');
    if (machine.hasTiflow) await machine.settled('B');
  },
  endsOffline: 'without',
};

async function flap(machine: Machine): Promise<void> {
  machine.unplug();
  await pause(FLAP_MS);
  machine.plug('A');
  await pause(AFTERWARDS_MS);
}

export const networkManagerBridge: HostCase = {
  name: 'host-networkmanager-bridge',
  summary: 'the port of its bridge loses the carrier for half a second',
  software: `${SOFTWARE}: a bridge and its port`,
  twins: { addresses: 'dhcp', interfaces: ['br0'] },
  talks: [FLOW_STAYS, LEGACY_STAYS],
  prepare: (machine) => startNetworkManager(machine, bridged(`02:00:00:00:01:0${machine.number}`)),
  happen: flap,
};

export const networkManagerDisconnected: HostCase = {
  name: 'host-networkmanager-disconnected',
  summary: 'the user has disconnected the device; the cable is pulled and plugged in again',
  software: SOFTWARE,
  twins: { addresses: 'dhcp' },
  talks: [],
  prepare: (machine) => startNetworkManager(machine, WIRED),
  async happen(machine) {
    machine.run('nmcli', 'device', 'disconnect', 'eth0');
    await flap(machine);
  },
  look: sameState,
  endsOffline: 'both',
};

function sameState(stage: TwinsStage): void {
  const states = stage.lab.machines.map((machine) => stateOf(machine, 'eth0'));
  const is = `with tiflow: ${states[0]}, without: ${states[1]}`;
  stage.check(
    'the device stays disconnected',
    states.every((s) => s.startsWith('30')),
    is,
  );
}
