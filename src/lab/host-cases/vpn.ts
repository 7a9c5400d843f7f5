/**
 * A tunnel that tiflow is not on goes away for longer than tiflow would wait, and comes back, as
 * VPN clients do it when they reconnect. A VXLAN stands for it: it needs nothing but the kernel.
 */

import { ipBatch } from '../namespace.js';
import type { Family } from '../topology.js';
import { GIVE_UP_MS } from '../twins/lab.js';
import type { Machine } from '../twins/machine.js';
import type { HostCase } from '../twins/stage.js';
import { FAR } from '../twins/topology.js';
import { pause } from '../wait.js';
import { FLOW_STAYS } from './talks.js';

const AWAY_MS = GIVE_UP_MS + 1_000;

const inner = (number: number, end: 1 | 2, family: Family): string =>
  family === 4 ? `10.8.${number}.${end}/24` : `2001:db8:8:${number}::${end}/64`;

/** The tunnel's MAC addresses are fixed: an old neighbour entry of the far end stays right. */
function tunnel(name: string, end: 1 | 2, machine: Machine, family: Family): string[] {
  const { number } = machine;
  const ends = [FAR.plain[family], machine.address(family)];
  const [local, remote] = end === 1 ? ends : ends.reverse();
  const mac = `02:00:00:00:08:${number}${end}`;
  return [
    `link add ${name} address ${mac} type vxlan id ${number} local ${local} remote ${remote} dstport 4789`,
    `addr add ${inner(number, end, family)} dev ${name}`,
    `link set ${name} up`,
  ];
}

export const vpn: HostCase = {
  name: 'host-vpn',
  summary: 'a tunnel beside it goes away for longer than give_up, and comes back',
  software: 'a tunnel (VXLAN) that is deleted and made again',
  twins: { addresses: 'static' },
  talks: [
    FLOW_STAYS,
    {
      ...{ name: 'plain TCP in the tunnel', far: 'plain', without: 'goes on', with: 'goes on' },
      to: ({ number }, family) => inner(number, 1, family).replace(/\/.*/, ''),
    },
  ],
  prepare(machine, family) {
    const { lab, number } = machine;
    ipBatch(lab.namespaces.plain, tunnel(`tun${number}`, 1, machine, family));
    machine.ip(...tunnel('tun0', 2, machine, family));
  },
  async happen(machine, family) {
    machine.ip('link del tun0');
    await pause(AWAY_MS);
    machine.ip(...tunnel('tun0', 2, machine, family));
  },
};
