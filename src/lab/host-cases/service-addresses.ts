/**
 * Addresses that are a machine's own and stand on no interface that tiflow is on: a virtual
 * address that keepalived moves, one on lo, one that only a route of type local gives.
 */

import type { Family } from '../topology.js';
import { GIVE_UP_MS } from '../twins/lab.js';
import type { Machine } from '../twins/machine.js';
import type { Outcome } from '../twins/outcome.js';
import type { HostCase, Talk, TwinsStage } from '../twins/stage.js';
import { FULL, NET } from '../twins/topology.js';
import { pause, until } from '../wait.js';

/** Long enough for tiflow to give up what it holds for gone. */
const GIVEN_UP_MS = GIVE_UP_MS + 1_500;

/** Connections to an address of the machine, and what becomes of them. */
const servedAt = (
  listens: Talk['listens'] & {},
  becomes: { without: Outcome; flow: Outcome; plain: Outcome },
): Talk[] => {
  const plain = { far: 'plain', listens, without: becomes.without, with: becomes.plain } as const;
  return [
    { name: 'TI flow', far: 'peer', listens, without: becomes.without, with: becomes.flow },
    { name: 'plain TCP', ...plain },
    { name: 'plain TCP, older than tiflow', ...plain, early: true },
  ];
};

const STAYS = { without: 'goes on', flow: 'goes on', plain: 'goes on' } as const;

/** In no subnet; the router knows the way. */
const serviceAddress = ({ number }: Machine, family: Family): string =>
  family === 4 ? `203.0.113.8${number}` : `2001:db8:c::8${number}`;

function routeTo(machine: Machine, family: Family): void {
  const address = serviceAddress(machine, family);
  const way = `${address}/${FULL[family]} via ${machine.address(family)}`;
  machine.lab.run('router', ['ip', 'route', 'add', ...way.split(' ')]);
}

/** Something else about addresses, which sets off a look at them. */
function addUnrelated(machine: Machine): void {
  machine.ip('link add d0 type veth peer name d0p', 'link set d0 up', 'link set d0p up');
  machine.ip('addr add 10.99.0.1/32 dev d0');
}

const stillLocal = (stage: TwinsStage): void => {
  for (const machine of stage.lab.machines) {
    const address = serviceAddress(machine, stage.family);
    const said = machine.run('ip', '-o', 'route', 'get', address);
    stage.check(`${address} is an address of ${machine.name}`, said.startsWith('local'), said);
  }
};

export const addressOnLo: HostCase = {
  name: 'host-service-address',
  summary: 'a service address on lo; an unrelated address is added',
  software: 'iproute2: addresses as of LVS, MetalLB, anycast',
  twins: { addresses: 'static' },
  talks: servedAt(serviceAddress, STAYS),
  prepare(machine, family) {
    machine.ip(`addr add ${serviceAddress(machine, family)}/${FULL[family]} dev lo`);
    routeTo(machine, family);
  },
  async happen(machine) {
    addUnrelated(machine);
    await pause(GIVEN_UP_MS);
  },
  look: stillLocal,
};

export const localRoute: HostCase = {
  name: 'host-local-route',
  summary: 'an address that only `ip route add local` gives; an unrelated address is added',
  software: "iproute2: a forwarding rule's address, as the agent of a cloud sets it up",
  seldom: true,
  twins: { addresses: 'static' },
  talks: servedAt(serviceAddress, STAYS),
  prepare(machine, family) {
    const address = serviceAddress(machine, family);
    const route = ['route', 'add', 'to', 'local', address, 'dev', 'eth0', 'proto', '66'];
    machine.run('ip', `-${family}`, ...route);
    if (family === 6) machine.sysctl({ 'ipv6/ip_nonlocal_bind': '1' });
    routeTo(machine, family);
  },
  async happen(machine) {
    addUnrelated(machine);
    await pause(GIVEN_UP_MS);
  },
  look: stillLocal,
};

const virtualAddress = ({ number }: Machine, family: Family): string =>
  family === 4 ? `10.1.0.5${number}` : `2001:db8:1::5${number}`;

/** VRRP between each machine and the router; one that has lost its track file is no master. */
function vrrp(o: { machine: Machine; family: Family; device: string; priority: number }): string {
  const address = `${virtualAddress(o.machine, o.family)}/${FULL[o.family]}`;
  return `vrrp_instance of_${o.machine.name} {
  state BACKUP
  version 3
  interface ${o.device}
  virtual_router_id ${50 + o.machine.number}
  priority ${o.priority}
  advert_int 0.1
  virtual_ipaddress {
    ${address} dev ${o.device}
  }
  garp_master_delay 0
  track_file {
    serves weight 0
  }
}
`;
}

const tracked = (file: string) => `global_defs {
  enable_script_security
}
vrrp_track_file serves {
  file "${file}"
  weight 0
}
`;

function serves(machine: Machine, yes: boolean): void {
  machine.write('/run/serves', yes ? '0\n' : '1\n');
}

async function startKeepalived(machine: Machine, family: Family): Promise<void> {
  serves(machine, true);
  const instance = vrrp({ machine, family, device: 'eth0', priority: 150 });
  machine.write('/etc/keepalived.conf', tracked('/run/serves') + instance);
  machine.start('keepalived', ...keepalived('/etc/keepalived.conf', '/run'));
  const address = virtualAddress(machine, family);
  await until(`${address} on ${machine.name}`, () => machine.has(address));
}

const keepalived = (settings: string, directory: string): string[] => [
  ...['keepalived', '--dont-fork', '--log-console', '-f', settings, '-p', `${directory}/k.pid`],
  ...['-r', `${directory}/k.vrrp.pid`],
];

/** What a backup of priority 100 waits when the master resigns (RFC 9568, 6.1: Skew_Time). */
const SKEW_MS = ((256 - 100) / 256) * 1_000;

export const virtualAddressMoves: HostCase = {
  name: 'host-vip',
  summary: 'its virtual address fails over to another machine, and comes back',
  software: 'keepalived 2.2, VRRP version 3',
  twins: { addresses: 'static' },
  talks: servedAt(virtualAddress, { without: 'reset', flow: 'goes on', plain: 'reset' }),
  prepare: startKeepalived,
  async happen(machine, family) {
    const address = virtualAddress(machine, family);
    serves(machine, false);
    await until(`${address} to be gone from ${machine.name}`, () => !machine.has(address));
    await pause(SKEW_MS);
    takeOver(machine, family, 'add');
    await pause(GIVEN_UP_MS);
    takeOver(machine, family, 'del');
    serves(machine, true);
    await until(`${address} on ${machine.name} again`, () => machine.has(address));
  },
};

/** The router stands for the machine that the address fails over to. */
function takeOver(machine: Machine, family: Family, what: 'add' | 'del'): void {
  const address = `${virtualAddress(machine, family)}/${FULL[family]}`;
  machine.lab.run('router', ['ip', 'addr', what, address, 'dev', NET.A.bridge]);
}
