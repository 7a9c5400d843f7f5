/**
 * The interface that tiflow is on is made anew, comes late, or loses its qdisc to another tool.
 */
import type { Machine } from '../twins/machine.js';
import type { HostCase, TwinsStage } from '../twins/stage.js';
import { until } from '../wait.js';
import { FLOW_STAYS, LEGACY_STAYS } from './talks.js';

/** "Within a second": with room for a machine with two cores that does other things, too. */
const ATTACHED_BOUND_MS = 1_500;

/** On the host: waits until its daemon says that eth0 is attached, again. */
async function attached(machine: Machine): Promise<void> {
  if (!machine.hasTiflow) return;
  const filters = () =>
    machine.run('tc', 'filter', 'show', 'dev', 'eth0', 'ingress').includes('bpf');
  await until('eth0 to be attached', filters, ATTACHED_BOUND_MS);
  await machine.lab.watchDaemon();
}

export const clsactGone: HostCase = {
  name: 'host-clsact-gone',
  summary: 'another tool deletes the qdisc that the boundary hangs on',
  software: 'iproute2: tc qdisc del',
  twins: { addresses: 'static' },
  talks: [FLOW_STAYS, LEGACY_STAYS],
  async happen(machine) {
    if (machine.hasTiflow) machine.run('tc', 'qdisc', 'del', 'dev', 'eth0', 'clsact');
    await attached(machine);
  },
};

export const recreated: HostCase = {
  name: 'host-recreated',
  summary: 'the interface is deleted and made again, with the same addresses',
  software: 'iproute2: a USB dock, `netplan apply`',
  twins: { addresses: 'static' },
  talks: [FLOW_STAYS, LEGACY_STAYS],
  async happen(machine) {
    machine.ip('link del eth0');
    await until('eth0 to be gone', () => !machine.try('ip', 'link', 'show', 'dev', 'eth0'));
    machine.addUplink('eth0');
    machine.plug('A');
    machine.settle('A');
    await attached(machine);
  },
};

/** The same, with what tiflow cannot foresee: packets leave by the new interface at once. */
export const recreatedElsewhere: HostCase = {
  name: 'host-recreated-elsewhere',
  summary: 'the interface is deleted and made again, in another network',
  software: recreated.software,
  seldom: true,
  twins: { addresses: 'static' },
  talks: [
    { name: 'TI flow', far: 'peer', without: 'dead', with: 'goes on' },
    { name: 'plain TCP', far: 'plain', without: 'dead', with: 'reset' },
  ],
  async happen(machine) {
    machine.ip('link del eth0');
    await until('eth0 to be gone', () => !machine.try('ip', 'link', 'show', 'dev', 'eth0'));
    machine.addUplink('eth0');
    machine.plug('B');
    machine.settle('B');
    await attached(machine);
  },
};

export const late: HostCase = {
  name: 'host-late',
  summary: 'tiflow is started before the interface is there',
  software: 'iproute2: a boot at which the network is not up yet',
  twins: { addresses: 'static' },
  talks: [],
  startsLate: true,
  async happen(machine) {
    machine.ip('link del eth0');
    if (machine.hasTiflow) {
      machine.lab.startDaemon();
      await machine.lab.watchDaemon([]);
    }
    machine.addUplink('eth0');
    machine.plug('A');
    machine.settle('A');
    await attached(machine);
  },
  look: stayed,
};

async function stayed(stage: TwinsStage): Promise<void> {
  const status = await stage.lab.daemon('host').status();
  const isThere = status.interfaces.some((each) => each.name === 'eth0' && each.attached);
  stage.check('eth0 is attached', isThere, JSON.stringify(status.interfaces));
}
