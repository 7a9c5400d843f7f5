/* A VM moves between two hypervisors, in every way that the command line knows. */

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { STAGES } from '../../src/migrate/event.js';
import { TwoHosts } from './two-hosts.js';

const TAP = '/vnet0';

test('live: stages in order, both daemons asked in order, nothing left behind', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  const run = hosts.migrate();
  const { exit, last } = await run.end();
  assert.equal(exit, 0, run.told);
  assert.deepEqual(
    run.lines.filter(({ event }) => event === 'done').map(({ stage }) => stage),
    STAGES,
  );
  assert.equal(last.event, 'migrated', run.told);
  assert.deepEqual(last.flows, { moved: 2, failed: 0, pending: 0 });
  assert.deepEqual(last.outside, ['198.51.100.10']);
  assert.equal(last.placement, 'hypervisor');
  assert.ok(Number(last.downtime_ms) >= 0 && Number(last.memory_bytes) > 100_000, run.told);
  await hosts.assertRunsOnlyOn('porthos');
  assert.deepEqual(hosts.athos.daemon.calls, [
    'GET',
    `GET ${TAP}/guest`,
    `POST ${TAP}/export`,
    `DELETE ${TAP}`,
  ]);
  assert.deepEqual(hosts.porthos.daemon.calls, [
    'GET',
    'POST',
    `POST ${TAP}/place`,
    `POST ${TAP}/import`,
    `POST ${TAP}/synchronize`,
    `POST ${TAP}/announce`,
  ]);
  const { bodies } = hosts.porthos.daemon;
  assert.deepEqual(bodies.get(`POST ${TAP}/place`), {
    guest: { version: 1, mac: '52:54:00:00:00:0a' },
    request: ['dhcp'],
  });
  assert.deepEqual(bodies.get('POST'), { name: 'vnet0', mac: '52:54:00:00:00:0a' });
  void [existsSync, readFileSync, join];
});
