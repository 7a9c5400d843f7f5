/**
 * The lab's guests before anything is migrated by tiflow: what the cases stand on, and what
 * happens without tiflow, or the cases would prove nothing.
 *
 *     aramis ──── router ──┬── athos ──── vm (QEMU)
 *                          └── porthos ┄┄ (where vm goes)
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Echo } from '../../src/lab/vm/echo.js';
import { VmLab, type VmLabOptions } from '../../src/lab/vm/lab.js';
import { qmp, runState } from '../../src/lab/vm/qmp.js';
import { VmStage } from '../../src/lab/vm/stage.js';
import { now, until } from '../../src/lab/wait.js';
import { leftovers } from '../net/leak.js';

const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces';
const options = { skip, timeout: 180_000 };
const STALL_MS = 3_000;

let labs = 0;

async function inLab(o: VmLabOptions, use: (lab: VmLab) => Promise<void>): Promise<void> {
  const name = `v${process.pid}-${++labs}`;
  const lab = await VmLab.build(name, true, o);
  try {
    await use(lab);
  } catch (error) {
    console.error(lab.lastWords().join('\n'));
    throw error;
  } finally {
    lab.teardown();
  }
  assert.deepEqual(leftovers(name), []);
}

test('an unmodified guest: ssh, echo and download over both families', options, () =>
  inLab({ daemons: [] }, async (lab) => {
    const stage = new VmStage({ lab, family: 4, seed: 1, onStep: () => {}, onExhibit: undefined });
    const programs = await stage.programs('4M');
    await stage.checkGoOn(programs, 'before any move');
    await stage.checkPlace('athos');
    await stage.finish(programs);
    const failed = stage.checks.filter((check) => !check.ok);
    assert.deepEqual(failed, []);
    for (const { identity } of programs) assert.equal(identity.length, 3, identity.join('\n'));
  }),
);

test("QEMU's own migration: the guest arrives, plain TCP stalls", options, () =>
  inLab({ daemons: [] }, async (lab) => {
    const echoes = [];
    for (const family of [4, 6] as const) {
      echoes.push(await Echo.open(lab, lab.vmAddress(family), 100_000));
    }
    await lab.startQemu('vm', 'porthos', ['-incoming', 'tcp:10.0.2.2:4444']);
    const [source, target] = [lab.qmpSocket('vm', 'athos'), lab.qmpSocket('vm', 'porthos')];
    await qmp(source, 'migrate', { uri: 'tcp:10.0.2.2:4444' });
    const arrived = async () => {
      const { status } = (await qmp(source, 'query-migrate')) as { status: string };
      assert.notEqual(status, 'failed');
      return (await runState(target)) === 'running';
    };
    await until('the guest to run at porthos', arrived, 60_000);
    assert.equal(await lab.whereabouts('vm'), 'porthos');
    const since = now();
    for (const echo of echoes) {
      await assert.rejects(echo.flowing(since + 500, STALL_MS), /in vain for the echo/);
      echo.stop();
    }
  }),
);

test('a guest with its own tiflow, on the kernel of Debian 12', options, () =>
  inLab({ daemons: ['aramis'], tiflowInGuest: true }, async (lab) => {
    for (const family of [4, 6] as const) {
      const echo = await Echo.open(lab, lab.vmAddress(family), 50_000);
      const flows = await lab.daemon('aramis').flows();
      const flow = flows.find((f) => f.kernel.endsWith(family === 4 ? '.10:7' : ':a]:7'));
      assert.equal(flow?.state, 'steady', JSON.stringify(flows));
      const { ok, detail } = await echo.finish();
      assert.ok(ok, detail);
    }
    assert.match(lab.inGuest('uname -r', lab.vmAddress(4)), /^6\.1\./);
  }),
);

test('two guests, each with a disk of its own', options, () =>
  inLab({ daemons: [], vms: { vm: 'athos', vm2: 'porthos' }, disk: 'private' }, async (lab) => {
    assert.deepEqual(await lab.states('vm'), { athos: 'running' });
    assert.deepEqual(await lab.states('vm2'), { porthos: 'running' });
    const make = 'mkfs.ext4 -q /dev/vda && e2fsck -fn /dev/vda && echo whole';
    for (const vm of lab.vms) {
      assert.match(lab.inGuest(make, lab.vmAddress(4, vm)), /whole/);
    }
  }),
);

test('the hypervisors are two machines: paths, ssh, tiflow in PATH', options, () =>
  inLab({ daemons: [], vms: {} }, async (lab) => {
    lab.run('athos', ['touch', '/run/mine', '/etc/mine', '/var/lib/vm/mine']);
    const there = [
      'ssh',
      'porthos',
      'ls /run/mine /etc/mine /var/lib/vm/mine 2>/dev/null; tiflow --version',
    ];
    assert.match(lab.run('athos', there), /^\d+\.\d+\.\d+\n$/);
  }),
);
