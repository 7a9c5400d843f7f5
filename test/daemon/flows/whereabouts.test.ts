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
const NEWER = address('198.51.100.11');
const PEER = address('203.0.113.7');

interface Machine {
  eth0: { has: Address[]; carrier: boolean };
  wlan0: { has: Address[]; carrier: boolean };
  lo?: { has: Address[]; carrier: boolean };
  /** What the kernel would use towards the peer. */
  route?: Way;
  others?: Way[];
  costs?: Record<string, number>;
}

interface Way {
  source: Address;
  interface: 'eth0' | 'wlan0' | 'usb0';
}

function surroundings(m: Machine): Surroundings {
  const links = [
    { interface: 'eth0', ...m.eth0 },
    { interface: 'wlan0', ...m.wlan0 },
    { interface: 'lo', ...(m.lo ?? down()) },
  ];
  return {
    holders: (a) => links.filter((link) => link.has.includes(a)),
    ways: () => [...(m.route === undefined ? [] : [m.route]), ...(m.others ?? [])],
    wayFrom: (_, __, by) =>
      [...(m.route === undefined ? [] : [m.route]), ...(m.others ?? [])].find(
        (way) => by === undefined || way.interface === by,
      ),
    ...(m.costs !== undefined && { cost: (name) => m.costs?.[name] ?? 0 }),
    attached: (name) => name !== 'usb0',
  };
}

const up = (...has: Address[]) => ({ has, carrier: true });
const down = (...has: Address[]) => ({ has, carrier: false });
const viaEth0 = { source: NEW, interface: 'eth0' } as const;
const HOME = { at: 'home', interface: 'eth0' } as const;
const viaWlan0 = { source: NEW, interface: 'wlan0' } as const;

const viaOld = { source: OLD, interface: 'eth0' } as const;
const both = { eth0: up(OLD), wlan0: up(NEW) };

/* Flows that have come in and left by eth0. */
const keptRows: [string, Machine, ReturnType<typeof whereabouts>][] = [
  ['kept, and the kernel says the same', { ...both, route: viaOld, others: [viaWlan0] }, HOME],
  [
    'the machine reaches the peer by a better link now',
    { ...both, route: viaWlan0, others: [viaOld] },
    { ...HOME, better: viaWlan0 },
  ],
  [
    'the better link has no boundary: the next best, and that is home',
    { ...both, route: { source: NEW, interface: 'usb0' }, others: [viaOld, viaWlan0] },
    HOME,
  ],
  [
    'an address of no link, to which another one leads now: it goes with the route',
    { eth0: up(), wlan0: up(), lo: up(OLD), route: { source: OLD, interface: 'wlan0' } },
    { at: 'home', interface: 'lo', cut: true },
  ],
  [
    'its own link leads nowhere any more',
    { ...both, route: viaWlan0 },
    { ...HOME, cut: true, better: viaWlan0 },
  ],
  [
    'the operator prefers it',
    { ...both, route: viaWlan0, others: [viaOld], costs: { wlan0: 10 } },
    HOME,
  ],
  [
    'the operator says nothing of either: routes by its own link are no reason to leave',
    { ...both, route: viaOld, others: [viaWlan0], costs: {} },
    HOME,
  ],
  [
    'the operator prefers the other, whatever the kernel says',
    { ...both, route: viaOld, others: [viaWlan0], costs: { eth0: 10 } },
    { ...HOME, better: viaWlan0 },
  ],
];

for (const [name, machine, expected] of keptRows) {
  test(`whereabouts: ${name}`, () => {
    const wire = { local: OLD, remote: PEER, kept: 'eth0' };
    assert.deepEqual(whereabouts(wire, surroundings(machine)), expected);
  });
}

const rows: [string, Machine, ReturnType<typeof whereabouts>][] = [
  [
    'an asymmetric path: nothing is ours to do',
    { ...both, route: viaWlan0, others: [viaOld] },
    HOME,
  ],
  [
    'the address is gone, and only a look-up by source finds a way',
    { eth0: up(), wlan0: up(NEW), others: [viaWlan0] },
    { at: 'elsewhere', ...viaWlan0 },
  ],
  [
    'unplugged, and the kernel goes on using the dead link',
    {
      eth0: down(OLD, NEWER),
      wlan0: up(NEW),
      route: { source: NEWER, interface: 'eth0' },
      others: [viaWlan0],
    },
    { at: 'dark' },
  ],
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
    assert.deepEqual(whereabouts({ local: OLD, remote: PEER }, surroundings(machine)), expected);
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
    [
      'a better way',
      { ...HOME, better: viaWlan0 },
      {},
      { do: 'follow', from: 'eth0', ...viaWlan0 },
    ],
    [
      'a better way, and on it',
      { ...HOME, better: viaWlan0 },
      { underway: { ...away, gentle: true } },
      { do: 'follow', from: 'eth0', ...viaWlan0 },
    ],
    ['better no more', HOME, { underway: { ...away, gentle: true } }, { do: 'go on' }],
    [
      'another one is better now',
      { ...HOME, better: { ...viaWlan0, source: NEWER } },
      { underway: { ...away, gentle: true } },
      { do: 'go on' },
    ],
    [
      'home again, and a better way beside it: what was begun when there was none',
      { ...HOME, better: viaWlan0 },
      { underway: away },
      { do: 'go on' },
    ],
    ['cut off', { ...HOME, cut: true, better: viaWlan0 }, {}, { do: 'let go' }],
    ['cut off, with a mapping', { ...HOME, cut: true, better: viaWlan0 }, { moved: true }, toNew],
    ['its mapping names a link that is gone', HOME, { stale: true, moved: true }, toOld],
    [
      'stalled, and tried from elsewhere',
      HOME,
      { underway: away, trying: true },
      { do: 'nothing' },
    ],
    ['no link', { at: 'dark' }, { underway: here }, { do: 'wait' }],
    ['no address', { at: 'stranded' }, { unproven: true, underway: away }, { do: 'wait' }],
    ['another address', elsewhere, {}, toNew],
    ['another one than a moment ago', elsewhere, { underway: here, unproven: true }, toNew],
    ['on its way there', elsewhere, { underway: away, held: true }, toNew],
  ];

for (const [name, where, doing, expected] of courses) {
  test(`course: ${where.at}, ${name}`, () => {
    const no = { held: false, unproven: false, moved: false, stale: false, trying: false };
    const rest = { local: OLD, underway: undefined, ...no };
    assert.deepEqual(course(where, { ...rest, ...doing }), expected);
  });
}
