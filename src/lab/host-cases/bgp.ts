/**
 * BIRD announces what is directly connected. An address that tiflow retains is not: nobody may
 * be told to send packets for it here.
 */

import type { Family } from '../topology.js';
import type { Machine } from '../twins/machine.js';
import type { HostCase, TwinsStage } from '../twins/stage.js';
import { FULL, LENGTH, NET } from '../twins/topology.js';
import { until } from '../wait.js';
import { FLOW } from './talks.js';

const ROUTER_AS = 65_000;

const service = ({ number }: Machine, family: Family): string =>
  family === 4 ? `203.0.113.8${number}` : `2001:db8:c::8${number}`;

/** A second address of eth0, that goes. */
const second = ({ number }: Machine, family: Family): string =>
  family === 4 ? `10.1.0.15${number}` : `2001:db8:1::15${number}`;

const head = (id: string) => `router id ${id};
protocol device { scan time 1; }
`;

const announcing = (machine: Machine, family: Family): string => `${head(machine.address(4))}
protocol direct { ipv${family}; }
protocol kernel { ipv${family} { import all; export all; }; learn; }
protocol bgp to_router {
  local ${machine.address(family)} as ${ROUTER_AS + machine.number};
  neighbor ${NET.A.router[family]} as ${ROUTER_AS};
  connect delay time 1;
  error wait time 1, 2;
  connect retry time 1;
  ipv${family} { import none; export where source = RTS_DEVICE; };
}
`;

const learning = (machines: readonly Machine[], family: Family): string =>
  `${head(NET.A.router[4])}
protocol kernel { ipv${family} { import none; export all; }; }
${machines.map((machine) => session(machine, family)).join('')}`;

const LINK: Record<Family, string> = { 4: '10.1.0.0/24', 6: '2001:db8:1::/64' };

/* Not the route to the link that they share: IPv6 prefers one by a machine to its own. */
const session = (machine: Machine, family: Family): string => `protocol bgp of_${machine.name} {
  local ${NET.A.router[family]} as ${ROUTER_AS};
  neighbor ${machine.address(family)} as ${ROUTER_AS + machine.number};
  passive;
  ipv${family} { import where net != ${LINK[family]}; export none; };
}
`;

const learnt = (machine: Machine, family: Family): string =>
  machine.lab.run('router', ['ip', `-${family}`, 'route', 'show', 'proto', 'bird']);

async function startBird(machine: Machine, family: Family): Promise<void> {
  const { lab } = machine;
  machine.ip(
    `addr add ${service(machine, family)}/${FULL[family]} dev lo`,
    `addr add ${second(machine, family)}/${LENGTH[family]} dev eth0`,
  );
  machine.write('/etc/bird.conf', announcing(machine, family));
  machine.start('bird', 'bird', '-f', '-c', '/etc/bird.conf', '-s', '/run/bird.ctl');
  if (machine.hasTiflow) lab.startBirdOnRouter(learning(lab.machines, family));
  const address = service(machine, family);
  await until(`the router to learn ${address}`, () => learnt(machine, family).includes(address));
}

function checkAnnounced(stage: TwinsStage): void {
  for (const machine of stage.lab.machines) {
    const routes = learnt(machine, stage.family);
    const [has, gone] = [service(machine, stage.family), second(machine, stage.family)];
    stage.check(`${machine.name} announces its service address`, routes.includes(has), routes);
    stage.check(`${machine.name} announces no address that it has not`, !routes.includes(gone));
  }
}

export const bgp: HostCase = {
  name: 'host-bgp',
  summary: 'an address that a connection began on goes; a service address stays announced',
  software: 'BIRD 2.0, protocols direct, kernel and BGP',
  twins: { addresses: 'static' },
  talks: [
    { ...FLOW, from: second },
    {
      ...{ name: 'TI flow of the service address', far: 'peer', listens: service },
      ...{ without: 'goes on', with: 'goes on' },
    },
  ],
  prepare: startBird,
  happen(machine, family) {
    machine.ip(`addr del ${second(machine, family)}/${LENGTH[family]} dev eth0`);
  },
  look: checkAnnounced,
};
