import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  course,
  type Doing,
  type Surroundings,
  whereabouts,
} from '../../../src/daemon/flows/whereabouts.js';
import { type Address, address } from '../../../src/wire/address.js';

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
const HOME = { at: 'home', interface: 'eth0' } as const;
const viaWlan0 = { source: NEW, interface: 'wlan0' } as const;

const rows: [string, Machine, ReturnType<typeof whereabouts>][] = [
  ['nothing happened', { eth0: up(OLD), wlan0: down() }, HOME],
  [
    'a second address does not move a flow',
    { eth0: up(OLD, NEW), wlan0: down(), route: viaEth0 },
    HOME,
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

const away: Doing['underway'] = { source: NEW, state: 'syncing', since: 0 };
const here: Doing['underway'] = { source: OLD, state: 'syncing', since: 0 };
const toOld = { do: 'synchronize', source: OLD, interface: 'eth0' } as const;
const toNew = { do: 'synchronize', source: NEW, interface: 'wlan0' } as const;
const elsewhere = { at: 'elsewhere', source: NEW, interface: 'wlan0' } as const;

const courses: [string, Parameters<typeof course>[0], Partial<Doing>, ReturnType<typeof course>][] =
  [
    ['at rest', HOME, {}, { do: 'nothing' }],
    ['held for nothing', HOME, { held: true }, { do: 'go on' }],
    ['on its way elsewhere', HOME, { underway: away, held: true }, { do: 'go on' }],
    ['waiting for its turn to go elsewhere', HOME, { underway: away }, { do: 'go on' }],
    ['unproven, and nothing runs', HOME, { unproven: true }, toOld],
    ['unproven, and on its way elsewhere', HOME, { unproven: true, underway: away }, toOld],
    ['being confirmed', HOME, { unproven: true, underway: here }, { do: 'nothing' }],
    [
      'proven a moment ago',
      HOME,
      { held: true, underway: { ...here, state: 'confirming' } },
      { do: 'nothing' },
    ],
    ['stalled', HOME, { held: true, underway: here, trying: true }, { do: 'nothing' }],
    ['stalled no more', HOME, { held: true, underway: here }, { do: 'go on' }],
    ['no link', { at: 'dark' }, { underway: here }, { do: 'wait' }],
    ['no address', { at: 'stranded' }, { unproven: true, underway: away }, { do: 'wait' }],
    ['another address', elsewhere, {}, toNew],
    ['another one than a moment ago', elsewhere, { underway: here, unproven: true }, toNew],
    ['on its way there', elsewhere, { underway: away, held: true }, toNew],
  ];

for (const [name, where, doing, expected] of courses) {
  test(`course: ${where.at}, ${name}`, () => {
    const rest = { local: OLD, held: false, unproven: false, underway: undefined, trying: false };
    assert.deepEqual(course(where, { ...rest, ...doing }), expected);
  });
}
