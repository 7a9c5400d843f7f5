/* `tiflow freeze`, against a daemon whose answers are known. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeDaemon, tiflow } from './tiflow.js';

test('says how many are frozen, or prints the answer', async (t) => {
  const { runDir, control } = await fakeDaemon(t);
  const asked = ['freeze', '--run-dir', runDir, '--for', '5s'];
  const ran = await tiflow(asked);
  assert.deepEqual(ran, { exit: 0, stdout: '3 frozen\n', stderr: '' });
  const { stdout } = await tiflow([...asked, '--tap', 'vnet0', '--json']);
  assert.deepEqual(JSON.parse(stdout), { version: 1, frozen: 3, quiet: true });
  assert.deepEqual(control.calls, ['freeze 5000 -', 'freeze 5000 vnet0']);
});

test('for a second to ten minutes, with a unit', async (t) => {
  const { runDir, control } = await fakeDaemon(t);
  for (const text of ['5', '999ms', '11m']) {
    const ran = await tiflow(['freeze', '--run-dir', runDir, '--for', text]);
    const stderr = `tiflow: --for ${text}: must be a duration from 1s to 10m\n`;
    assert.deepEqual(ran, { exit: 2, stdout: '', stderr });
  }
  assert.deepEqual(control.calls, []);
});
