/* Exit codes and what stands on stderr: one clear line, never a stack trace. */

import assert from 'node:assert/strict';
import { chmodSync } from 'node:fs';
import { dirname } from 'node:path';
import { describe, test } from 'node:test';
import { temporaryDirectory, temporaryFile } from '../daemon/temporary.js';
import { fakeDaemon, mayChangeUser, type Ran, tiflow } from './tiflow.js';

function assertEnds(ran: Ran, exit: number, stderr: RegExp): void {
  assert.match(ran.stderr, stderr);
  assert.equal(ran.exit, exit, ran.stderr);
  assert.doesNotMatch(ran.stderr, /^\s+at /m, 'a stack trace');
}

describe('0: done', () => {
  test('--help names every verb', async () => {
    const { exit, stdout } = await tiflow(['--help']);
    assert.equal(exit, 0);
    for (const verb of ['up', 'down', 'status', 'flows', 'monitor', 'freeze', 'doctor', 'daemon']) {
      assert.match(stdout, new RegExp(`^  ${verb}\\b`, 'm'));
    }
  });

  test('--version', async () => {
    assert.deepEqual(await tiflow(['--version']), { exit: 0, stdout: '0.1.0\n', stderr: '' });
  });
});

describe('2: usage or configuration', () => {
  const rows: [string, string[], RegExp][] = [
    ['no verb', [], /Usage: tiflow/],
    ['an unknown verb', ['stauts'], /unknown command 'stauts'[\s\S]*status/],
    ['an unknown option', ['status', '--jsn'], /unknown option '--jsn'[\s\S]*--json/],
    ['a missing argument', ['probe'], /missing required argument/],
    ['an unknown interface', ['up', 'nosuch0'], /^tiflow: no interface "nosuch0"/],
    ['a bad interface name', ['daemon', '--interface', 'a/b'], /"a\/b" is no interface name/],
    [
      'a configuration that is not there',
      ['daemon', '--config', '/nonexistent.toml'],
      /^tiflow: \/nonexistent.toml: cannot read the configuration: ENOENT\n$/,
    ],
  ];
  for (const [what, args, stderr] of rows) {
    test(what, async () => assertEnds(await tiflow(args), 2, stderr));
  }

  test('a broken configuration, wherever one is taken', async (t) => {
    const file = temporaryFile(t, 'tiflow.toml', 'log = "info"\n\ngive_up = "60"\ngiveup = 1\n');
    const expected =
      `tiflow: ${file}:3: give_up: "60" must be a duration with a unit, "1s" to "24h" ` +
      `(units: ms, s, m, h, d)\n` +
      `tiflow: ${file}:4: giveup: unknown key (did you mean "give_up"?)\n`;
    for (const verb of [['daemon'], ['up', 'lo'], ['down']]) {
      const ran = await tiflow([...verb, '--config', file]);
      assert.deepEqual(ran, { exit: 2, stdout: '', stderr: expected });
    }
  });
});

describe('3: the daemon is not running', () => {
  for (const verb of ['status', 'flows', 'monitor', 'freeze']) {
    test(verb, async (t) => {
      const runDir = temporaryDirectory(t);
      assert.deepEqual(await tiflow([verb, '--run-dir', runDir]), {
        exit: 3,
        stdout: '',
        stderr: `tiflow: no daemon runs in ${runDir} (start one: tiflow up IF...)\n`,
      });
    });
  }
});

describe('4: not permitted', {
  skip: mayChangeUser ? false : 'needs root to become nobody',
}, () => {
  for (const verb of [['daemon'], ['up', 'lo'], ['down']]) {
    test(verb.join(' '), async (t) => {
      const runDir = temporaryDirectory(t);
      chmodSync(runDir, 0o755);
      const ran = await tiflow([...verb, '--run-dir', runDir], { asNobody: true });
      const name = verb[0];
      assertEnds(
        ran,
        4,
        new RegExp(
          `^tiflow: ${name}: not permitted: needs CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW, ` +
            'CAP_SYS_ADMIN \\(run as root\\)\n$',
        ),
      );
    });
  }

  test('a configuration of somebody else is a broken one', async (t) => {
    const file = temporaryFile(t, 'tiflow.toml', '');
    chmodSync(dirname(file), 0o755);
    assert.deepEqual(await tiflow(['daemon', '--config', file], { asNobody: true }), {
      exit: 2,
      stdout: '',
      stderr: `tiflow: ${file}: cannot read the configuration: EACCES\n`,
    });
  });

  test('doctor says what it could not check', async (t) => {
    const runDir = temporaryDirectory(t);
    chmodSync(runDir, 0o755);
    const ran = await tiflow(['doctor', '--run-dir', runDir], { asNobody: true });
    assert.equal(ran.exit, 1);
    assert.equal(ran.stderr, '');
    assert.match(ran.stdout, /^fail +privileges +missing: CAP_BPF CAP_NET_ADMIN/m);
    assert.match(ran.stdout, /^warn +kernel\.bpf +not checked without CAP_BPF$/m);
  });

  test('the socket of somebody else', async (t) => {
    const { runDir } = await fakeDaemon(t);
    chmodSync(runDir, 0o755);
    for (const verb of ['status', 'flows', 'monitor', 'down']) {
      assert.deepEqual(await tiflow([verb, '--run-dir', runDir], { asNobody: true }), {
        exit: 4,
        stdout: '',
        stderr: `tiflow: open ${runDir}/tiflow.sock: EACCES (run as root)\n`,
      });
    }
  });
});

describe('1: refused by the daemon', () => {
  test('its message is the message', async (t) => {
    const { runDir, control } = await fakeDaemon(t);
    control.failure = Object.assign(new Error('attach boundary to lo: ENOTSUP (no Ethernet)'), {
      code: 'ENOTSUP',
    });
    const ran = await tiflow(['up', 'lo', '--run-dir', runDir]);
    assert.deepEqual(ran, {
      exit: 1,
      stdout: '',
      stderr: 'tiflow: attach boundary to lo: ENOTSUP (no Ethernet)\n',
    });
  });

  test('a permission that the daemon lacks is 4 here, too', async (t) => {
    const { runDir, control } = await fakeDaemon(t);
    control.failure = Object.assign(new Error('attach boundary to lo: EPERM'), { code: 'EPERM' });
    assertEnds(await tiflow(['up', 'lo', '--run-dir', runDir]), 4, /attach boundary to lo: EPERM/);
  });
});
