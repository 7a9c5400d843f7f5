/* An address that the kernel refuses to keep keeps nobody else's connection from living. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Flow } from '../../../src/boundary/abi.gen.js';
import { Retention } from '../../../src/daemon/host/retention.js';
import { ERRNO, SystemError } from '../../../src/libc/errno.js';
import { guardRounds } from '../../../src/libc/guard.js';
import type { RetainedAddresses } from '../../../src/link/retained.js';
import { type Address, address, family } from '../../../src/wire/address.js';
import type { Tuple } from '../../../src/wire/tuple.js';

const REMOTE = { remote: address('203.0.113.7'), localPort: 22, remotePort: 40_000 };
const flowOf = (local: string): [Tuple, Flow] => [
  { local: address(local), ...REMOTE },
  { flags: 0 } as Flow,
];

test('IPv6 was switched off: IPv4 addresses are kept all the same, and it is tried again', (t) => {
  const failed: string[] = [];
  t.after(guardRounds((error) => failed.push(error.message)));
  let hasIpv6 = false;
  const kept: Address[] = [];
  const retained: Pick<RetainedAddresses, 'list' | 'retain' | 'release' | 'routesChanged'> = {
    list: () => [],
    retain: (a) => {
      if (family(a) === 6 && !hasIpv6) throw new SystemError(`retain ${a}`, ERRNO.EACCES);
      kept.push(a);
    },
    release: () => undefined,
    routesChanged: () => undefined,
  };
  const retention = new Retention(retained as RetainedAddresses, () => undefined);
  const flows = [flowOf('2001:db8::2'), flowOf('192.0.2.10')];
  const update = () =>
    retention.update(
      flows,
      () => false,
      () => false,
    );
  update();
  assert.deepEqual(kept, ['192.0.2.10']);
  assert.match(failed.join(), /retain 2001:db8::2: EACCES/);
  hasIpv6 = true;
  update();
  assert.deepEqual(retention.addresses(), ['192.0.2.10', '2001:db8::2']);
});

test('what a former daemon has retained is retained again once, and is no news', () => {
  const kept: Address[] = [];
  const events: string[] = [];
  const retained: Pick<RetainedAddresses, 'list' | 'retain' | 'release' | 'routesChanged'> = {
    list: () => [address('192.0.2.10'), address('192.0.2.11')],
    retain: (a) => kept.push(a),
    release: () => undefined,
    routesChanged: () => undefined,
  };
  const retention = new Retention(retained as RetainedAddresses, ({ event }) => events.push(event));
  assert.deepEqual(retention.addresses(), ['192.0.2.10', '192.0.2.11']);
  for (const _ of [1, 2]) {
    retention.update(
      [flowOf('192.0.2.10')],
      () => false,
      () => false,
    );
    assert.deepEqual(retention.addresses(), ['192.0.2.10']);
  }
  assert.deepEqual(kept, ['192.0.2.10']);
  assert.deepEqual(events, ['address-released']);
});
