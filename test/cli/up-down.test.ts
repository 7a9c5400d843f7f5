/* `up` and `down`: against answers, and for real in a network namespace of its own.
 *
 *   namespace    v0 192.0.2.10/24 ──── v1
 */

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { PLACE_FLAG, SETTINGS_SIZE } from '../../src/boundary/abi.gen.js';
import { Boundary } from '../../src/boundary/boundary.js';
import { daemonPid } from '../../src/daemon/config/run-directory.js';
import { ownName } from '../../src/lab/own-name.js';
import { FLOWS, STATUS, TAP } from '../daemon/fake-control.js';
import { fakeDaemon, mayChangeUser, type Ran, tiflow } from './tiflow.js';

const OBJECT = new URL('../../../bpf/boundary.bpf.o', import.meta.url);
const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

describe('against answers', { skip: mayChangeUser ? false : 'needs root' }, () => {
  test('up says what was attached, and what was already', async (t) => {
    const { runDir, control } = await fakeDaemon(t);
    control.view = {
      ...STATUS,
      interfaces: [
        {
          name: 'lo',
          attached: true,
          gateway: false,
          carrier: true,
          addresses: ['127.0.0.1', '::1'],
        },
      ],
    };
    assert.deepEqual(await tiflow(['up', 'lo', '--run-dir', runDir]), {
      exit: 0,
      stdout: 'lo: boundary attached already (127.0.0.1, ::1)\n',
      stderr: '',
    });
    assert.deepEqual(control.calls, ['attach lo']);
  });

  test('down refuses to break flows that live on the boundary', async (t) => {
    const { runDir, control } = await fakeDaemon(t);
    for (const [args, what] of [
      [[], runDir],
      [['eth0'], 'eth0'],
    ] as const) {
      assert.deepEqual(await tiflow(['down', ...args, '--run-dir', runDir]), {
        exit: 1,
        stdout: '',
        stderr: `tiflow: down ${what}: 2 flows have moved and would break (see: tiflow flows); --force resets them\n`,
      });
    }
    assert.deepEqual(control.calls, []);
  });

  test('down IF --force detaches', async (t) => {
    const { runDir, control } = await fakeDaemon(t);
    assert.deepEqual(await tiflow(['down', 'eth0', '--force', '--run-dir', runDir]), {
      exit: 0,
      stdout: '0 of 2 moved flows reset\neth0: boundary detached\n',
      stderr: '',
    });
    assert.deepEqual(control.calls, ['detach eth0']);
  });

  test('down IF needs no force for flows on another interface', async (t) => {
    const { runDir, control } = await fakeDaemon(t);
    const [link] = STATUS.interfaces;
    assert.ok(link);
    control.view = { ...STATUS, interfaces: [link, { ...link, name: 'eth1', addresses: [] }] };
    control.list = control.list.filter((flow) => flow.state !== 'syncing');
    assert.equal((await tiflow(['down', 'eth1', '--run-dir', runDir])).exit, 0);
    assert.deepEqual(control.calls, ['detach eth1']);
  });

  test('down IF that is not attached', async (t) => {
    const { runDir } = await fakeDaemon(t);
    assert.deepEqual(await tiflow(['down', 'wlan0', '--run-dir', runDir]), {
      exit: 1,
      stdout: '',
      stderr: 'tiflow: no boundary is attached to wlan0 (attached: eth0)\n',
    });
  });
});

describe('against answers, VMs', { skip: mayChangeUser ? false : 'needs root' }, () => {
  const [flow] = FLOWS;
  const hypervisor = async (t: TestContext, o: { moves: number; place?: 'away' }) => {
    const fake = await fakeDaemon(t);
    const { place = 'home' } = o;
    fake.control.view = { ...STATUS, taps: [{ ...TAP, name: 'lo', place }] };
    assert.ok(flow);
    fake.control.list = [{ ...flow, tap: 'lo', moves: o.moves }];
    return fake;
  };

  test('up says who the guest is, as far as it has said', async (t) => {
    const { runDir, control } = await hypervisor(t, { moves: 0 });
    const up = await tiflow(['up', 'lo', '--run-dir', runDir]);
    const addresses = TAP.inside.join(', ');
    assert.equal(up.stdout, `lo: boundary attached already (VM, ${TAP.mac}, ${addresses})\n`);
    control.view = { ...STATUS, taps: [{ ...TAP, name: 'lo', mac: null, inside: [] }] };
    const silent = await tiflow(['up', 'lo', '--run-dir', runDir]);
    assert.equal(silent.stdout, 'lo: boundary attached already (VM)\n');
  });

  test('down of a tap refuses to break what lives on it, and on nothing else', async (t) => {
    const { runDir, control } = await hypervisor(t, { moves: 1 });
    const refused = await tiflow(['down', 'lo', '--run-dir', runDir]);
    assert.match(refused.stderr, /^tiflow: down lo: 1 flow has moved and would break/);
    assert.deepEqual(control.calls, []);
    assert.equal((await tiflow(['down', 'eth0', '--run-dir', runDir])).exit, 0);
    assert.equal((await tiflow(['down', 'lo', '--force', '--run-dir', runDir])).exit, 0);
    assert.deepEqual(control.calls, ['detach eth0', 'detach lo']);
  });

  test('down refuses to take a VM that is away from the network, moved flows or none', async (t) => {
    const { runDir, control } = await hypervisor(t, { moves: 0, place: 'away' });
    for (const [args, what] of [
      [[], runDir],
      [['lo'], 'lo'],
    ] as const) {
      assert.deepEqual(await tiflow(['down', ...args, '--run-dir', runDir]), {
        exit: 1,
        stdout: '',
        stderr: `tiflow: down ${what}: the VM behind lo is away from home and would have no network (migrate it home first); --force detaches all the same\n`,
      });
    }
    assert.deepEqual(control.calls, []);
    assert.equal((await tiflow(['down', 'eth0', '--run-dir', runDir])).exit, 0);
    assert.equal((await tiflow(['down', 'lo', '--force', '--run-dir', runDir])).exit, 0);
    assert.deepEqual(control.calls, ['detach eth0', 'detach lo']);
  });
});

const real = !mayChangeUser
  ? 'needs root'
  : !existsSync(OBJECT)
    ? 'needs bpf/boundary.bpf.o (make build)'
    : false;

describe('for real', { skip: real }, () => {
  test('up, up again, down: nothing is left', async (t) => {
    const { run, runDir, tc } = namespace(t);
    const up = run('up', 'v0');
    assert.equal(up.stderr, '');
    const [started = '', attached] = up.stdout.split('\n');
    assert.match(started, /^daemon started \(pid \d+, log .*\/tiflow.log\)$/);
    assert.equal(attached, 'v0: boundary attached (192.0.2.10)');
    assert.equal(run('up', 'v0').stdout, 'v0: boundary attached already (192.0.2.10)\n');
    assert.match(tc('ingress'), /boundary_ingres/);
    assert.match(tc('egress'), /boundary_egress/);

    const down = run('down');
    assert.equal(down.stderr, '');
    assert.equal(
      down.stdout,
      `daemon stopped\nv0: boundary detached\nnothing of tiflow is left in ${runDir}\n`,
    );
    assertNothingLeft(runDir, tc);
    assert.equal(run('down').exit, 0);
  });

  test('the daemon is killed: doctor says so, up goes on, down cleans up', async (t) => {
    const { run, runDir, tc } = namespace(t);
    run('up', 'v0');
    await killDaemon(runDir);
    assert.match(tc('egress'), /boundary_egress/);
    const doctor = run('doctor', '--json');
    assert.equal(doctor.exit, 1);
    const { checks } = JSON.parse(doctor.stdout);
    assert.deepEqual(
      checks.filter((check: { level: string }) => check.level === 'fail'),
      [
        {
          id: 'daemon',
          level: 'fail',
          message: `dead, but its boundary is still in ${runDir}: flows go on, and none can move`,
          advice: 'start it again: tiflow up IF (or take all down: tiflow down)',
        },
      ],
    );
    assert.match(run('up', 'v0').stdout, /v0: boundary attached already/);
    await killDaemon(runDir);
    assert.equal(run('down', 'v0').stdout, 'v0: boundary detached\n');
    assert.equal(run('down').stdout, `nothing of tiflow is left in ${runDir}\n`);
    assertNothingLeft(runDir, tc);
  });

  test('what is pinned is of another version: only --force removes it', async (t) => {
    const { run, runDir, tc } = namespace(t);
    run('up', 'v0');
    await killDaemon(runDir);
    const settings = ['pinned', join(runDir, 'bpf/settings')];
    const value = ['255', '255', '0', '0', ...Array.from({ length: SETTINGS_SIZE - 4 }, () => '0')];
    const update = ['map', 'update', ...settings, 'key', '0', '0', '0', '0', 'value', ...value];
    execFileSync('bpftool', update, {
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
    });
    const up = run('up', 'v0');
    assert.notEqual(up.exit, 0);
    assert.match(up.stderr, /65535; this program speaks \d+/);
    const down = run('down');
    assert.equal(down.exit, 1);
    assert.match(down.stderr, /^tiflow: tiflow down --force removes it unread$/m);
    assert.equal(run('down', '--force').exit, 0);
    assertNothingLeft(runDir, tc);
  });

  test('the daemon is dead and a VM is away: only --force takes its network', async (t) => {
    const { run, runDir, ip } = namespace(t);
    ip('link add br0 type bridge');
    ip('tuntap add vnet0 mode tap');
    ip('link set vnet0 master br0 up');
    assert.match(run('up', 'vnet0').stdout, /vnet0: boundary attached/);
    await killDaemon(runDir);
    assert.equal(run('down', 'vnet0').exit, 0, 'at home, down is free');
    run('up', 'vnet0');
    await killDaemon(runDir);
    const boundary = Boundary.open({ runDir });
    const [tap = 0] = boundary.taps();
    const place = boundary.place(tap);
    assert.ok(place);
    boundary.setPlace(tap, { ...place, flags: PLACE_FLAG.AWAY });
    boundary.close();
    for (const words of [['down'], ['down', 'vnet0']]) {
      const down = run(...words);
      assert.equal(down.exit, 1);
      assert.match(down.stderr, /the VM behind vnet0 is away from home/);
    }
    assert.equal(run('down', '--force').exit, 0);
  });

  test('an interface that cannot be used leaves nothing either', (t) => {
    const { run, runDir, tc } = namespace(t);
    const up = run('up', 'lo');
    assert.equal(up.exit, 1);
    assert.match(up.stderr, /^tiflow: attach boundary to lo: /);
    assertNothingLeft(runDir, tc);
  });

  test('a daemon that cannot start tells why, with its exit code', (t) => {
    const { run, runDir } = namespace(t);
    execFileSync('mkdir', ['-p', join(runDir, 'tiflow.sock')]);
    const up = run('up', 'v0');
    assert.equal(up.exit, 1);
    assert.match(up.stderr, /the daemon ended at once; the end of .*tiflow.log:\n/);
    assert.match(up.stderr, /tiflow.sock is in the way: it is no socket; remove it/);
    assert.doesNotMatch(up.stderr, /^\s+at /m);
  });

  test('doctor in a healthy namespace', (t) => {
    const { run } = namespace(t);
    run('up', 'v0');
    const doctor = run('doctor');
    assert.equal(doctor.exit, 0, doctor.stdout);
    assert.match(doctor.stdout, /^ok {4}v0\.filters +no other tc filters$/m);
    assert.match(doctor.stdout, /^ok {4}daemon\.attached +attached to v0$/m);
  });
});

async function killDaemon(runDir: string): Promise<void> {
  const pid = daemonPid(runDir);
  assert.ok(pid);
  process.kill(pid, 'SIGKILL');
  while (daemonPid(runDir) !== undefined) await delay(10);
}

function assertNothingLeft(runDir: string, tc: (direction: string) => string): void {
  assert.equal(existsSync(runDir) ? readdirSync(runDir).join() : '', '');
  assert.doesNotMatch(readFileSync('/proc/self/mounts', 'utf8'), new RegExp(runDir));
  assert.equal(tc('ingress') + tc('egress'), '');
}

function namespace(t: TestContext) {
  const name = ownName('cli');
  const inside = ['nsenter', `--net=/run/netns/${name}`, '--'];
  const runDir = join(mkdtempSync(join(tmpdir(), `${name}-`)), 'run');
  const run = (...args: string[]): Ran => {
    const [command = '', ...rest] = [...inside, process.execPath, MAIN, ...args];
    const ended = spawnSync(command, [...rest, '--run-dir', runDir], { encoding: 'utf8' });
    return { exit: ended.status, stdout: ended.stdout, stderr: ended.stderr };
  };
  t.after(() => {
    run('down', '--force');
    execFileSync('ip', ['netns', 'del', name]);
    rmSync(join(runDir, '..'), { recursive: true, force: true });
  });
  execFileSync('ip', ['netns', 'add', name]);
  const setUp = [
    'link set lo up',
    'link add v0 type veth peer name v1',
    'link set v0 addrgenmode none',
    'address add 192.0.2.10/24 dev v0',
    'link set v0 up',
    'link set v1 up',
  ];
  const ip = (line: string) => execFileSync('ip', ['-n', name, ...line.split(' ')]);
  for (const line of setUp) ip(line);
  const tc = (direction: string) => {
    const [command = '', ...rest] = [...inside, 'tc', 'filter', 'show', 'dev', 'v0', direction];
    return execFileSync(command, rest, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  };
  return { run, runDir, tc, ip };
}
