/* One daemon per run directory, whatever the one before left behind. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { DaemonClient } from '../../../src/daemon/api/client.js';
import {
  claimRunDirectory,
  daemonPid,
  logPath,
  removeRunDirectory,
} from '../../../src/daemon/config/run-directory.js';
import { temporaryDirectory } from '../temporary.js';

test('the directory is made, for its owner alone, and is gone after all is removed', (t) => {
  const runDir = join(temporaryDirectory(t), 'run', 'tiflow');
  assert.equal(daemonPid(runDir), undefined);
  const directory = claimRunDirectory(runDir);
  assert.equal(statSync(runDir).mode & 0o777, 0o700);
  assert.equal(daemonPid(runDir), process.pid);
  directory.release();
  assert.equal(daemonPid(runDir), undefined);
  writeFileSync(logPath(runDir), '');
  removeRunDirectory(runDir);
  assert.equal(existsSync(runDir), false);
  removeRunDirectory(runDir);
});

test('a second daemon is refused, and told who has it', (t) => {
  const runDir = temporaryDirectory(t);
  const directory = claimRunDirectory(runDir);
  t.after(() => directory.release());
  assert.throws(() => claimRunDirectory(runDir), {
    name: 'RunDirectoryError',
    code: 'EWOULDBLOCK',
    message:
      `another daemon (pid ${process.pid}) runs in ${runDir}; ` +
      'one is enough for all interfaces (tiflow up IF...)',
  });
});

test('the socket of a daemon that was killed is no obstacle', async (t) => {
  const runDir = temporaryDirectory(t);
  const script = `
    const { claimRunDirectory } = await import('${new URL('../../../src/daemon/config/run-directory.js', import.meta.url)}');
    const { createServer } = await import('node:net');
    createServer().listen(claimRunDirectory(${JSON.stringify(runDir)}).socketPath, () => console.log('up'));`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script]);
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  assert.throws(() => claimRunDirectory(runDir), /another daemon \(pid \d+\) runs/);
  child.kill('SIGKILL');
  await once(child, 'exit');

  assert.ok(existsSync(join(runDir, 'tiflow.sock')));
  await assert.rejects(new DaemonClient(runDir).status(), {
    name: 'DaemonNotRunning',
    message: `no daemon runs in ${runDir} (start one: tiflow up IF...)`,
  });
  const directory = claimRunDirectory(runDir);
  assert.equal(existsSync(directory.socketPath), false);
  assert.equal(readFileSync(join(runDir, 'tiflow.lock'), 'utf8'), `${process.pid}\n`);
  directory.release();
});

test("other people's files stay", (t) => {
  const runDir = temporaryDirectory(t);
  writeFileSync(join(runDir, 'precious'), '');
  claimRunDirectory(runDir).release();
  removeRunDirectory(runDir);
  assert.deepEqual(readdirSync(runDir), ['precious']);

  writeFileSync(join(runDir, 'tiflow.sock'), '');
  assert.throws(() => claimRunDirectory(runDir), {
    code: 'EEXIST',
    message: `${runDir}/tiflow.sock is in the way: it is no socket; remove it`,
  });
  assert.equal(daemonPid(runDir), undefined);
});

test('a directory that cannot be made', () => {
  assert.throws(() => claimRunDirectory('/proc/tiflow'), {
    name: 'RunDirectoryError',
    message: 'use run directory /proc/tiflow: ENOENT',
  });
});
