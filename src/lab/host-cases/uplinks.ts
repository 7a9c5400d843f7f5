/**
 * Machines with two links: routes become better by the other one, and its cable is pulled.
 */

import type { Family } from '../topology.js';
import type { Machine } from '../twins/machine.js';
import type { HostCase } from '../twins/stage.js';
import { pause, until } from '../wait.js';
import { FLOW, FLOW_STAYS } from './talks.js';

const UPLINKS = ['eth0', 'eth1'];

/** eth0 as a Wi-Fi, whose routes NetworkManager makes worse than those of a cable. */
async function wifi(machine: Machine): Promise<void> {
  for (const f of ['-4', '-6']) machine.run('ip', f, 'route', 'del', 'default', 'dev', 'eth0');
  machine.settle('A', { metric: 600 });
  machine.addUplink('eth1');
}

function cable(machine: Machine): void {
  machine.plug('B', 'eth1');
  machine.settle('B', { uplink: 'eth1', metric: 100 });
}

/** Flows follow after two seconds; all of them are on that link then. */
async function followed(machine: Machine, family: Family, to: 'eth0' | 'eth1'): Promise<void> {
  if (!machine.hasTiflow) return pause(FOLLOWED_MS);
  const address = machine.address(family, to === 'eth0' ? 'A' : 'B', to);
  const isThere = async () => {
    const flows = await machine.lab.daemon('host').flows();
    return flows.every(({ state, wire }) => state === 'steady' && wire.includes(address));
  };
  await until(`all flows on ${to}`, isThere, FOLLOWED_BOUND_MS);
}

const FOLLOWED_MS = 3_000;
const FOLLOWED_BOUND_MS = 15_000;

export const dock: HostCase = {
  name: 'host-dock',
  summary: 'a cable is plugged in beside Wi-Fi: its routes are better',
  software: 'two uplinks with metrics 600 and 100, as of NetworkManager',
  twins: { addresses: 'static', interfaces: UPLINKS },
  talks: [FLOW],
  prepare: wifi,
  async happen(machine, family) {
    cable(machine);
    await followed(machine, family, 'eth1');
  },
};

export const undock: HostCase = {
  name: 'host-undock',
  summary: 'the cable beside Wi-Fi is pulled, and plugged in again',
  software: 'two uplinks with metrics 600 and 100, as of NetworkManager',
  twins: { addresses: 'static', interfaces: UPLINKS },
  // Of IPv6 the twin's connection does not outlive that its address is away.
  families: [4],
  talks: [FLOW_STAYS],
  async prepare(machine) {
    await wifi(machine);
    cable(machine);
  },
  async happen(machine, family) {
    machine.unplug('eth1');
    machine.ip('addr flush dev eth1 scope global');
    for (const f of ['-4', '-6']) machine.run('ip', f, 'route', 'flush', 'dev', 'eth1');
    await followed(machine, family, 'eth0');
    cable(machine);
    await followed(machine, family, 'eth1');
  },
};
