/* VMs that libvirt manages: virsh's words, and how virsh's end is told. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runVirsh, virshCommands } from '../../src/migrate/libvirt.js';
import type { MigrationRequest } from '../../src/migrate/survey.js';

const HOOK = fileURLToPath(new URL('../../../etc/libvirt-hook', import.meta.url));

const REQUEST: MigrationRequest = {
  id: 'web-1',
  vm: 'web',
  host: 'porthos',
  rsh: ['ssh'],
  tiflow: 'tiflow',
  mode: 'live',
  storage: 'shared',
  storageDir: undefined,
  addresses: ['dhcp'],
  bridge: undefined,
  bandwidth: undefined,
  downtimeMs: undefined,
  direct: false,
  placement: 'auto',
};

describe('words', () => {
  test('paused at the destination, continued when its flows have moved', () => {
    const { migrate, resume, refused } = virshCommands(REQUEST);
    assert.equal(
      migrate.join(' '),
      'virsh migrate --verbose --suspend --live --p2p --tunnelled web qemu+ssh://porthos/system',
    );
    assert.equal(resume.join(' '), 'virsh -c qemu+ssh://porthos/system resume web');
    assert.deepEqual(refused, []);
  });

  test('disks are not tunnelled', () => {
    const { migrate } = virshCommands({ ...REQUEST, storage: 'copy', mode: 'pause-and-copy' });
    assert.equal(
      migrate.join(' '),
      'virsh migrate --verbose --suspend --copy-storage-all web qemu+ssh://porthos/system',
    );
  });

  test('MiB per second, at least one', () => {
    for (const [bandwidth, mib] of [
      [50_000_000, '48'],
      [1000, '1'],
    ] as const) {
      const { migrate } = virshCommands({ ...REQUEST, bandwidth });
      assert.equal(migrate[migrate.indexOf('--bandwidth') + 1], mib);
    }
  });

  test('what virsh cannot do is named', () => {
    const request = { ...REQUEST, storageDir: '/x', bridge: 'br1', addresses: ['192.0.2.1/24'] };
    assert.deepEqual(virshCommands(request).refused, ['--storage-dir', '--bridge', '--address']);
  });
});

describe('virsh', () => {
  const run = (script: string, signal = new AbortController().signal) => {
    let said = '';
    const progress = (text: string) => {
      said += text;
    };
    return runVirsh(['sh', '-c', script], { signal, progress }).then((why) => ({ why, said }));
  };

  test('done; its progress is passed on', async () => {
    assert.deepEqual(await run('echo "Migration: [ 50 %]"'), {
      why: undefined,
      said: 'Migration: [ 50 %]\n',
    });
  });

  test('failed: its own words say why, or its exit code', async () => {
    assert.equal(
      (await run('echo "error: no such domain" >&2; exit 1')).why,
      'error: no such domain',
    );
    assert.equal((await run('exit 3')).why, 'virsh ended with 3');
  });

  test('interrupted: virsh is told, and takes the migration back itself', async () => {
    const abort = new AbortController();
    const script = 'trap "echo cancelled >&2; exit 1" INT; echo up; while :; do sleep 0.05; done';
    let said = '';
    const progress = (text: string) => {
      said += text;
      if (said.includes('up')) abort.abort();
    };
    const why = await runVirsh(['sh', '-c', script], { signal: abort.signal, progress });
    assert.equal(why, 'cancelled');
  });
});

test('the hook keeps keys of a guest that has ended for a day, and no longer', (t) => {
  const state = mkdtempSync(join(tmpdir(), 'tiflow-hook-'));
  t.after(() => rmSync(state, { recursive: true }));
  const conf = join(state, 'tiflow.conf');
  writeFileSync(conf, `STATE=${state}\nLOG=true\nPEERS=\n`);
  const ageS: Record<string, number> = { old: 25 * 3600, new: 23 * 3600 };
  for (const [name, age] of Object.entries(ageS)) {
    const path = join(state, `${name}.flows`);
    writeFileSync(path, '{}');
    const at = Date.now() / 1000 - age;
    utimesSync(path, at, at);
  }
  const { status } = spawnSync('sh', [HOOK, 'other', 'prepare', 'begin', '-'], {
    env: { ...process.env, CONF: conf },
    input: '',
  });
  assert.equal(status, 0);
  assert.deepEqual(readdirSync(state).sort(), ['new.flows', 'tiflow.conf']);
});
