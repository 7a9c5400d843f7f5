import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Surroundings, whereabouts } from '../../src/daemon/whereabouts.js';
import { type Address, address } from '../../src/wire/address.js';

const OLD = address('192.0.2.10');
const NEW = address('198.51.100.10');
const PEER = address('203.0.113.7');

interface Machine {
  eth0: { has: Address[]; carrier: boolean };
  wlan0: { has: Address[]; carrier: boolean };
  /** What the kernel would use towards the peer. */
  route?: { source: Address; interface: 'eth0' | 'wlan0' | 'usb0' };
}

function surroundings(m: Machine): Surroundings {
  const links = [
    { interface: 'eth0', ...m.eth0 },
    { interface: 'wlan0', ...m.wlan0 },
  ];
  return {
    holders: (a) => links.filter((link) => link.has.includes(a)),
    routeTo: () => m.route,
    attached: (name) => name !== 'usb0',
  };
}

const up = (...has: Address[]) => ({ has, carrier: true });
const down = (...has: Address[]) => ({ has, carrier: false });
const viaEth0 = { source: NEW, interface: 'eth0' } as const;
const viaWlan0 = { source: NEW, interface: 'wlan0' } as const;

const rows: [string, Machine, ReturnType<typeof whereabouts>][] = [
  ['nothing happened', { eth0: up(OLD), wlan0: down() }, { at: 'home' }],
  [
    'a second address does not move a flow',
    { eth0: up(OLD, NEW), wlan0: down(), route: viaEth0 },
    { at: 'home' },
  ],
  ['unplugged', { eth0: down(OLD), wlan0: down() }, { at: 'dark' }],
  [
    'unplugged, the kernel still prefers the dead link',
    { eth0: down(OLD), wlan0: up(), route: { source: OLD, interface: 'eth0' } },
    { at: 'dark' },
  ],
  [
    'unplugged, the other link leads there',
    { eth0: down(OLD), wlan0: up(NEW), route: viaWlan0 },
    { at: 'elsewhere', ...viaWlan0 },
  ],
  ['the address is gone', { eth0: up(), wlan0: down() }, { at: 'stranded' }],
  ['renumbered', { eth0: up(NEW), wlan0: down(), route: viaEth0 }, { at: 'elsewhere', ...viaEth0 }],
  [
    'the new address is there, but its link is not',
    { eth0: down(NEW), wlan0: down(), route: viaEth0 },
    { at: 'stranded' },
  ],
  [
    'the kernel proposes the retained address itself',
    { eth0: up(), wlan0: down(), route: { source: OLD, interface: 'eth0' } },
    { at: 'stranded' },
  ],
  [
    'the way leads through an interface without a boundary',
    { eth0: up(), wlan0: down(), route: { source: NEW, interface: 'usb0' } },
    { at: 'stranded' },
  ],
  [
    'the kernel proposes a source of the other family',
    { eth0: up(), wlan0: down(), route: { source: address('2001:db8::1'), interface: 'eth0' } },
    { at: 'stranded' },
  ],
];

for (const [name, machine, expected] of rows) {
  test(`whereabouts: ${name}`, () => {
    assert.deepEqual(whereabouts(OLD, PEER, surroundings(machine)), expected);
  });
}
