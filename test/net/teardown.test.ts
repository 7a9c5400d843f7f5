/**
 * A lab leaves nothing behind, however its run ends; and what SIGKILL leaves, the next run sweeps.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Lab } from '../../src/lab/lab.js';
import { listRecords, sweepStale } from '../../src/lab/registry.js';
import { until } from '../../src/lab/wait.js';
import { leftovers } from './leak.js';

const CLI = fileURLToPath(new URL('../../src/lab/main.js', import.meta.url));
const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces';
const options = { skip, timeout: 60_000 };

/** A run in the middle of its case. */
async function running(): Promise<{ child: ChildProcess; lab: string }> {
  const child = spawn(process.execPath, [CLI, 'lab', 'run', 'blackout'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  await until('the run to unplug the VM', () => said.includes('vm unplugged'), 30_000);
  return { child, lab: `run-${child.pid}` };
}

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  test(`${signal} in the middle of a case`, options, async () => {
    const { child, lab } = await running();
    child.kill(signal);
    assert.deepEqual(await once(child, 'exit'), [code, null]);
    assert.deepEqual(leftovers(lab), []);
  });
}

test('SIGKILL in the middle of a case; the next run sweeps', options, async () => {
  const { child, lab } = await running();
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.notDeepEqual(leftovers(lab), []);
  assert.ok(sweepStale().includes(lab));
  assert.deepEqual(leftovers(lab), []);
});

test('several labs stand beside each other; each goes down alone', options, async () => {
  const names = [`a${process.pid}`, `b${process.pid}`] as const;
  const labs: Lab[] = [];
  try {
    for (const name of names) {
      labs.push(await Lab.build({ name, owned: true, daemons: [] }));
    }
    const [a, b] = labs;
    a?.teardown();
    assert.deepEqual(leftovers(names[0]), []);
    assert.equal(b?.run('aramis', ['cat', '/proc/sys/net/ipv4/ip_forward']), '0\n');
    assert.ok(listRecords().some((record) => record.name === names[1]));
  } finally {
    for (const lab of labs) lab.teardown();
  }
  assert.deepEqual(leftovers(names[1]), []);
});

test('a lab whose name is taken is refused and the standing one unharmed', options, async () => {
  const name = `c${process.pid}`;
  const lab = await Lab.build({ name, owned: true, daemons: [] });
  try {
    await assert.rejects(Lab.build({ name, owned: true, daemons: [] }), /exists/);
    assert.equal(lab.run('vm', ['true']), '');
  } finally {
    lab.teardown();
  }
});
