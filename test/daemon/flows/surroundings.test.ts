/* Who holds an address: interfaces, and lo for what the kernel calls local; not while it is on trial. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lookAround, type SurroundingsOptions } from '../../../src/daemon/flows/surroundings.js';
import { address } from '../../../src/wire/address.js';

const HERE = address('2001:db8::1');
const TRIED = address('2001:db8::2');
const SERVICE = address('203.0.113.80');
const NOWHERE = address('192.0.2.99');

test('on an interface, on lo, on trial, nowhere', () => {
  const on = (name: string, a: typeof HERE, tentative = false) => ({
    ...{ address: a, interface: name, prefixLength: 64, deprecated: false },
    ...{ tentative, dynamic: false, advertised: false, temporary: false },
  });
  const asked: string[] = [];
  const { holders } = lookAround({
    boundary: { attached: () => ['eth0'] },
    monitor: {
      links: () => [{ name: 'eth0', up: true, carrier: true }],
      addresses: () => [on('eth0', HERE), on('eth0', TRIED, true), on('lo', SERVICE)],
    },
    settling: { isSettling: () => false },
    routes: { to: () => undefined },
    isLocal: (a: string) => {
      asked.push(a);
      return a !== NOWHERE;
    },
  } as unknown as SurroundingsOptions);
  assert.deepEqual(holders(HERE), [{ interface: 'eth0', carrier: true }]);
  assert.deepEqual(holders(TRIED), [], 'whatever the kernel says');
  assert.deepEqual(holders(SERVICE), [{ interface: 'lo', carrier: true }]);
  assert.deepEqual(holders(NOWHERE), []);
  for (const _ of [1, 2]) holders(NOWHERE);
  assert.deepEqual(asked, [SERVICE, NOWHERE], 'the kernel is asked once for each');
});
