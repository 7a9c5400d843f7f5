/* Wanted against observed: which steps, and why. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Placement } from '../../../src/boundary/boundary.js';
import {
  type ObservedLink,
  planAttachments,
  type Want,
} from '../../../src/daemon/host/attach-plan.js';

const link = (index: number, name: string, o: Partial<ObservedLink> = {}): ObservedLink => ({
  ...{ index, name, ethernet: true, vmTap: false, master: undefined },
  ...o,
});

const LO = link(1, 'lo', { ethernet: false });
const ETH0 = link(2, 'eth0');
const ETH1 = link(3, 'eth1');
const BR0 = link(4, 'br0');
const PORT = link(5, 'eth2', { master: 4 });
const VNET0 = link(6, 'vnet0', { master: 4, vmTap: true });
const TUN0 = link(7, 'tun0', { ethernet: false });

interface Machine {
  links?: ObservedLink[];
  /** Interface names to placements; `?`: not whole, or lost. */
  there?: Record<string, Placement | '?'>;
  defaults?: number[];
  pinned?: boolean;
}

const want = (text: string): Want => {
  const [pattern = '', as = 'host'] = text.split(' ');
  return { pattern, as: as as Want['as'] };
};

function plan(wants: string[], o: Machine = {}) {
  const links = o.links ?? [LO, ETH0, ETH1, BR0, PORT, VNET0, TUN0];
  const attached = links.flatMap(({ index, name }) => {
    const placement = o.there?.[name];
    if (placement === undefined) return [];
    return [{ index, interface: name, placement: placement === '?' ? undefined : placement }];
  });
  const planned = planAttachments(wants.map(want), {
    ...{ links, attached, defaults: new Set(o.defaults ?? []), pinned: o.pinned ?? true },
  });
  return {
    steps: planned.steps.map((step) =>
      step.do === 'attach'
        ? `${step.interface} ${step.as}`
        : `${step.do} ${step.do === 'detach' ? step.interface : ''}`.trim(),
    ),
    missing: planned.missing.map(({ name, why }) => `${name}: ${why}`),
  };
}

const NOTHING = { steps: [], missing: [] };

describe('what is to be done', () => {
  const ROWS: readonly [what: string, wants: string[], Machine, steps: string[]][] = [
    ['nothing is wanted, nothing is there', [], {}, []],
    ['a name', ['eth0'], {}, ['eth0 host']],
    ['a name, and it is there', ['eth0'], { there: { eth0: 'host' } }, []],
    ['nobody wants what is there', [], { there: { eth0: 'host' } }, ['detach eth0']],
    ['a host becomes a gateway', ['eth0 gateway'], { there: { eth0: 'host' } }, ['eth0 gateway']],
    ['one direction only, or lost', ['eth0'], { there: { eth0: '?' } }, ['eth0 host']],
    ['lost, and not wanted', [], { there: { eth0: '?' } }, ['detach eth0']],
    ['the last want counts', ['eth0', 'eth0 gateway'], {}, ['eth0 gateway']],
    ['refused since', ['eth*', 'eth0 none'], {}, ['eth1 host']],
    ['refused, and asked for again', ['eth*', 'eth* none', 'eth1'], {}, ['eth1 host']],
    [
      'a pattern leaves out ports, taps, tunnels',
      ['*'],
      {},
      ['eth0 host', 'eth1 host', 'br0 host'],
    ],
    ['default', ['default'], { defaults: [3, 7] }, ['eth1 host']],
    ['the tap of a VM by its name', ['vnet0'], {}, ['vnet0 tap']],
    ['the tap of a VM by a pattern of taps', ['vnet* tap'], {}, ['vnet0 tap']],
    ['the tap of a VM as a gateway, if somebody says so', ['vnet0 gateway'], {}, ['vnet0 gateway']],
    ['a bridge and its VM', ['br0', 'vnet* tap'], {}, ['br0 host', 'vnet0 tap']],
    ['a port alone', ['eth2'], {}, ['eth2 host']],
    ['pins that are gone', ['eth0'], { there: { eth0: 'host' }, pinned: false }, ['pin']],
  ];
  for (const [what, wants, machine, steps] of ROWS) {
    test(what, () => assert.deepEqual(plan(wants, machine), { steps, missing: [] }));
  }

  test('what was planned is there: nothing', () => {
    assert.deepEqual(
      plan(['default', 'br0 gateway'], { there: { eth0: 'host', br0: 'gateway' }, defaults: [2] }),
      NOTHING,
    );
  });
});

describe('what cannot be had', () => {
  test('a name, a pattern, a route that is not there', () => {
    assert.deepEqual(plan(['usb0', 'wl*', 'default', 'vnet* tap'], { links: [LO] }).missing, [
      'usb0: no such interface',
      'wl*: no Ethernet interface is called so',
      'default: no Ethernet interface has a default route',
    ]);
  });

  test('a port whose bridge has one: it comes off', () => {
    const planned = plan(['eth2', 'br0'], { there: { eth2: 'host' } });
    assert.deepEqual(planned.steps, ['br0 host', 'detach eth2']);
    assert.match(planned.missing[0] ?? '', /^eth2: what passes it passes br0, too/);
  });
});
