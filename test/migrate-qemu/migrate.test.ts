/* A VM moves between two hypervisors, in every way that the command line knows. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { unknownGuest } from '../../src/guest/identity.js';
import { STAGES } from '../../src/migrate/event.js';
import { mac } from '../../src/wire/ethernet.js';
import { TwoHosts } from './two-hosts.js';

const TAP = '/vnet0';
const FREEZE = 'POST /v1/freeze';

test('live: stages in order, both daemons asked in order, nothing left behind', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  execFileSync('ip', ['-n', hosts.athos.namespace, 'link', 'set', 'vnet0', 'mtu', '9000']);
  const run = hosts.migrate();
  const { exit, last } = await run.end();
  assert.equal(exit, 0, run.told);
  const tap = execFileSync('ip', ['-n', hosts.porthos.namespace, 'link', 'show', 'vnet0']);
  assert.match(tap.toString(), /mtu 9000/);
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
    'GET',
    `GET ${TAP}/guest`,
    `POST ${TAP}/export`,
    // While its QEMU is there, and again when it is not: the daemon may have hung the first time.
    `DELETE ${TAP}`,
    `DELETE ${TAP}`,
  ]);
  assert.deepEqual(hosts.porthos.daemon.calls, [
    'GET',
    'GET',
    'POST',
    `POST ${TAP}/place`,
    `POST ${TAP}/import`,
    `POST ${TAP}/synchronize`,
    `POST ${TAP}/announce`,
  ]);
  const { bodies } = hosts.porthos.daemon;
  const guest = unknownGuest(mac('52:54:00:00:00:0a'));
  assert.deepEqual(bodies.get(`POST ${TAP}/place`), { guest, request: ['dhcp'] });
  assert.deepEqual(bodies.get('POST'), { name: 'vnet0', mac: guest.mac });
});

test('pause-and-copy, addresses given, plain TCP, limits', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  // Both namespaces must reach one another for that.
  hosts.connect();
  const run = hosts.migrate(
    ...['--mode', 'pause-and-copy', '--direct', '--bandwidth', '200M', '--downtime-limit', '1s'],
    ...['--address', '198.51.100.7/24', '--address', '2001:db8:2::/64'],
    ...['--to', 'root@192.168.77.2'],
  );
  const { exit, last } = await run.end();
  assert.equal(exit, 0, run.told);
  assert.ok(Number(last.paused_ms) >= Number(last.downtime_ms), run.told);
  const placed = hosts.porthos.daemon.bodies.get(`POST ${TAP}/place`) as { request: string[] };
  assert.deepEqual(placed.request, ['198.51.100.7/24', '2001:db8:2::/64']);
  const { calls, bodies } = hosts.athos.daemon;
  const frozen = calls.indexOf(FREEZE);
  assert.ok(frozen >= 0 && frozen < calls.indexOf(`POST ${TAP}/export`), calls.join());
  assert.deepEqual(bodies.get(FREEZE), { for_ms: 600_000, tap: 'vnet0' });
  await hosts.assertRunsOnlyOn('porthos');
});

test('pause-and-copy taken back before anything was exported: thawed', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  const run = hosts.migrate('--mode', 'pause-and-copy', '--bandwidth', '300K');
  await hosts.isAsked('athos', 'freeze');
  await run.reaches('memory', 'progress');
  run.kill('SIGINT');
  const { last } = await run.end();
  assert.equal(last.event, 'failed', run.told);
  const { calls, bodies } = hosts.athos.daemon;
  assert.ok(calls.indexOf(FREEZE) < calls.indexOf(`POST ${TAP}/synchronize`), calls.join());
  const { moved } = bodies.get(`POST ${TAP}/synchronize`) as { moved: boolean };
  assert.equal(moved, false);
  await hosts.assertRunsOnlyOn('athos');
});

test('the disk is copied, and is the same there', async (t) => {
  for (const direct of [false, true]) {
    const hosts = await TwoHosts.up(t);
    writeFileSync(hosts.disk, Buffer.alloc(16 * 2 ** 20, 'a disk with something on it'));
    await hosts.startVm();
    hosts.connect();
    const options = direct ? ['--direct', '--to', '192.168.77.2'] : [];
    const run = hosts.migrate('--storage', 'copy', '--storage-dir', hosts.copies, ...options);
    const { exit, last } = await run.end();
    assert.equal(exit, 0, run.told);
    assert.equal(last.disk_bytes, 16 * 2 ** 20);
    assert.deepEqual(readFileSync(join(hosts.copies, 'disk.img')), readFileSync(hosts.disk));
    await hosts.assertRunsOnlyOn('porthos');
  }
});

test('in guest placement no daemon is asked, and the guest sees its link go and come', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  hosts.athos.daemon.taps = [];
  const run = hosts.migrate();
  const { exit, last } = await run.end();
  assert.equal(exit, 0, run.told);
  assert.equal(last.placement, 'guest');
  assert.deepEqual([...hosts.athos.daemon.calls, ...hosts.porthos.daemon.calls], ['GET']);
  await hosts.assertRunsOnlyOn('porthos');
});

test('there and back: the tap of an inherited descriptor is found again', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  assert.equal((await hosts.migrate().end()).exit, 0);
  await hosts.assertRunsOnlyOn('porthos');
  hosts.swap();
  const back = hosts.migrate();
  assert.equal((await back.end()).exit, 0, back.told);
  await hosts.assertRunsOnlyOn('porthos');
});

test('--dry-run changes nothing', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  const run = hosts.migrate('--dry-run');
  const { exit, last } = await run.end();
  assert.equal(exit, 0, run.told);
  assert.equal(last.event, 'checked');
  assert.deepEqual(
    [...hosts.athos.daemon.calls, ...hosts.porthos.daemon.calls],
    [...['GET', 'GET', 'GET']],
  );
  await hosts.assertRunsOnlyOn('athos');
});

test('everything that is in the way is said at once, before anything is changed', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  execFileSync('ip', ['-n', hosts.porthos.namespace, 'link', 'add', 'br1', 'type', 'bridge']);
  writeFileSync(join(hosts.copies, 'disk.img'), '');
  const run = hosts.migrate(
    ...['--bridge', 'br7', '--storage', 'copy', '--storage-dir', hosts.copies],
  );
  const { exit, last } = await run.end();
  assert.equal(exit, 1);
  assert.equal(last.stage, 'check');
  assert.match(
    String(last.message),
    /^porthos cannot take vm: no bridge br7 \(there are br0, br1\)/,
  );
  assert.match(String(last.message), /disk.img exists: move it away, or copy to elsewhere/);
  assert.equal(last.runs, 'here');
  await hosts.assertRunsOnlyOn('athos');
  assert.deepEqual(readdirSync(hosts.copies), ['disk.img'], 'a file that is not ours stays');
});

test('daemons of different versions find out in check, with the VM running', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  hosts.porthos.daemon.luggage.flow_bytes += 8;
  const run = hosts.migrate('--dry-run');
  const { exit, last } = await run.end();
  assert.equal(exit, 1, run.told);
  assert.equal(last.stage, 'check');
  assert.match(String(last.message), /the daemon here takes in flows of version \d+, and the VM's/);
  assert.match(String(last.message), /install the same tiflow on both, and restart the daemons/);
});

test('a device of the machine that is not there', async (t) => {
  const hosts = await TwoHosts.up(t);
  const device = hosts.deviceOnAthos();
  await hosts.startVm(['-object', `rng-random,id=rng,filename=${device}`]);
  const run = hosts.migrate('--dry-run');
  const { exit, last } = await run.end();
  assert.equal(exit, 1, run.told);
  assert.match(String(last.message), new RegExp(`${device} is not here, and the VM uses it`));
});

test('an address that is refused: said by the destination, undone, the VM runs on', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  hosts.porthos.daemon.refuse.set('place', {
    code: 'address-refused',
    message: '198.51.100.7 is in use by 52:54:00:00:00:99',
  });
  const run = hosts.migrate('--address', '198.51.100.7/24');
  const { exit, last } = await run.end();
  assert.equal(exit, 1);
  assert.equal(last.event, 'failed');
  assert.equal(last.stage, 'address');
  assert.match(String(last.message), /198.51.100.7 is in use by 52:54:00:00:00:99/);
  await hosts.assertRunsOnlyOn('athos');
});

test('a full disk at the destination fails the stage, and the VM runs on', async (t) => {
  const hosts = await TwoHosts.up(t);
  writeFileSync(hosts.disk, Buffer.alloc(16 * 2 ** 20, 7));
  await hosts.startVm();
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=20m', 'none', hosts.copies]);
  try {
    const run = hosts.migrate(
      ...['--storage', 'copy', '--storage-dir', hosts.copies, '--bandwidth', '4M'],
    );
    // There was room when it was asked; then somebody else takes it.
    await run.reaches('storage', 'begin');
    execFileSync('sh', [
      '-c',
      `dd if=/dev/zero of=${hosts.copies}/other bs=1M 2>/dev/null || true`,
    ]);
    const { exit, last } = await run.end();
    assert.equal(exit, 1, run.told);
    assert.equal(last.stage, 'storage');
    assert.match(String(last.message), /copy disk .*disk.img to the destination: No space left/);
    await hosts.assertRunsOnlyOn('athos');
    assert.deepEqual(readdirSync(hosts.copies), ['other']);
  } finally {
    execFileSync('umount', ['-l', hosts.copies]);
  }
});

test('Ctrl-C takes it back', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  const run = hosts.migrate('--bandwidth', '20K');
  await run.reaches('memory', 'begin');
  run.kill('SIGINT');
  const { exit, last } = await run.end();
  assert.equal(exit, 1, run.told);
  assert.equal(last.message, 'interrupted');
  await hosts.assertRunsOnlyOn('athos');
});

test('what cannot be asked for', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  const rows: [string[], number, RegExp][] = [
    [['--bandwidth', 'fast'], 2, /--bandwidth fast: must be bytes per second/],
    [['--downtime-limit', '300'], 2, /--downtime-limit 300: must be a duration with a unit/],
    [['--storage-dir', '/x'], 2, /--storage-dir is for disks that are copied/],
    [['--mode', 'quick'], 2, /Allowed choices are live, pause-and-copy/],
    [['--remote-tiflow', '/nowhere/tiflow'], 1, /reach tiflow on porthos .*not found/],
  ];
  for (const [options, exit, told] of rows) {
    const run = hosts.migrate(...options);
    assert.equal((await run.end()).exit, exit, run.told);
    assert.match(run.told, told);
  }
  const none = hosts.migrate('--recover', 'vm-00000000');
  assert.equal((await none.end()).exit, 1);
  assert.match(none.told, /no unfinished migration vm-00000000 \(there is none\)/);
});
