/* After the word `go`: its answer is lost, QMP is held by somebody else, QEMU ends, either side
 * reboots.  The VM never runs twice, nothing that it may have written to is removed, and the source
 * goes on only with the destination's word that it never ran there.
 *
 *   athos  tiflow migrate ── rsh-lossy ──► tiflow receive  porthos
 *                         ◄──   ×    ──
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { endProcess } from '../../src/migrate/process-mark.js';
import { type Run, TwoHosts, until } from './two-hosts.js';

/* Hands everything to porthos, and nothing back from `go` on. */
const LOSSY = (rsh: string) => `#!/usr/bin/env node
const { spawn } = require('node:child_process');
const child = spawn(${JSON.stringify(rsh)}, process.argv.slice(2), { stdio: ['pipe', 'pipe', 2] });
let lost = false;
process.stdin.on('data', (bytes) => {
  lost ||= bytes.includes('"request":"go"');
  child.stdin.write(bytes);
});
process.stdin.on('end', () => child.stdin.end());
child.stdin.on('error', () => undefined);
child.stdout.on('data', (bytes) => lost || process.stdout.write(bytes));
child.on('exit', () => process.exit(0));
`;

interface Lost {
  hosts: TwoHosts;
  run: Run;
}

/* The VM has been continued at porthos, and athos has not heard it. */
async function lostAnswer(t: Parameters<typeof TwoHosts.up>[0], ...options: string[]) {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  const rsh = join(hosts.directory, 'rsh-lossy');
  writeFileSync(rsh, LOSSY(join(hosts.directory, 'rsh')), { mode: 0o755 });
  const copied = ['--storage', 'copy', '--storage-dir', hosts.copies];
  const run = hosts.migrate(...copied, '--rsh', rsh, ...options);
  await until('go at porthos', () => hosts.journal('porthos')?.phase === 'ran');
  return { hosts, run } satisfies Lost;
}

const cut = async ({ hosts }: Lost): Promise<void> => {
  for (const mark of hosts.find(hosts.athos, 'rsh-lossy', 'receive')) await endProcess(mark);
};

async function endQemu({ hosts }: Lost): Promise<void> {
  for (const mark of hosts.find(hosts.porthos, 'qemu-system', '-incoming')) await endProcess(mark);
}

/**
 * Somebody who keeps the VM's QMP, or is the next to have it; as a monitoring agent is.  Resolves with
 * what it is told of the VM when it is its turn.
 */
function agentAt(hosts: TwoHosts, at: 'athos' | 'porthos'): Promise<string> {
  const [mark] = hosts.find(hosts[at], 'qemu-system', '-name');
  const path = /unix:([^,\0]+)/.exec(hosts.commandLine(mark?.pid ?? 0))?.[1] ?? '';
  const socket = connect(path).unref().setEncoding('utf8');
  socket.on('error', () => undefined);
  return new Promise((resolve) => {
    let told = '';
    socket.on('data', (text: string) => {
      if (text.includes('"QMP"')) {
        socket.write('{"execute":"qmp_capabilities"}\n{"execute":"query-status","id":1}\n');
      }
      told += text;
      const status = /"status": "([\w-]+)".*"id": 1/.exec(told)?.[1];
      if (status !== undefined) resolve(status);
    });
    socket.on('close', () => resolve('its QEMU has ended'));
  });
}

test('QMP of the VM is held there: it runs on, and only there', async (t) => {
  const lost = await lostAnswer(t);
  const { hosts, run } = lost;
  assert.equal(await agentAt(hosts, 'porthos'), 'running');
  await cut(lost);
  const { exit, last } = await run.end();
  assert.equal(exit, 0, run.told);
  assert.equal(last.event, 'migrated', run.told);
  await hosts.assertOver(run.told);
  assert.equal(hosts.find(hosts.athos, 'qemu-system').length, 0);
  assert.equal(hosts.find(hosts.porthos, 'qemu-system').length, 1);
  assert.deepEqual(readdirSync(hosts.copies), ['disk.img']);
});

for (const [what, strike] of [
  ['QEMU there ends', endQemu],
  ['porthos reboots', ({ hosts }: Lost) => hosts.reboot('porthos')],
] as const) {
  test(`${what} after it has run: the old copy is not continued, the disk stays`, async (t) => {
    const lost = await lostAnswer(t);
    const { hosts, run } = lost;
    await strike(lost);
    await cut(lost);
    const { last } = await run.end();
    assert.equal(last.event, 'migrated', run.told);
    assert.equal(last.ended_there, true, run.told);
    await hosts.assertOver(run.told);
    assert.equal(await hosts.whereItRuns(), 'nowhere');
    assert.deepEqual(readdirSync(hosts.copies), ['disk.img']);
  });
}

test('porthos has lost its journal: no word, and the VM stays paused until the operator has one', async (t) => {
  const lost = await lostAnswer(t);
  const { hosts, run } = lost;
  await hosts.reboot('porthos');
  rmSync(hosts.porthos.stateDir, { recursive: true });
  await cut(lost);
  const { exit, last } = await run.end();
  assert.equal(exit, 1, run.told);
  assert.equal(last.runs, 'unknown', run.told);
  assert.match(String(last.message), /whether vm has run on porthos is not known/);
  assert.equal(await hosts.statusOf(hosts.qmpPath), 'postmigrate');
  assert.deepEqual(readdirSync(hosts.copies), ['disk.img']);
  const ran = hosts.migrate('--recover', String(last.id), '--word', 'ran');
  assert.equal((await ran.end()).exit, 0, ran.told);
  await hosts.assertOver(ran.told);
  assert.equal(hosts.find(hosts.athos, 'qemu-system').length, 0);
});

test('both die between `go` and its proof: unknown; with the word "never" it runs on at home', async (t) => {
  const lost = await lostAnswer(t);
  const { hosts, run } = lost;
  run.kill('SIGKILL');
  await run.end();
  const { path } = hosts.journal('porthos') ?? { path: '' };
  await hosts.reboot('porthos');
  // As if it had come in that instant.
  const journal = execFileSync('cat', [path], { encoding: 'utf8' });
  writeFileSync(path, journal.replace('"phase": "ran"', '"phase": "committed"'));
  await until('athos has decided', () => hosts.logs().includes('is not known'));
  assert.equal(await hosts.statusOf(hosts.qmpPath), 'postmigrate');
  const id = /--recover (\S+)\./.exec(hosts.logs())?.[1] ?? '';
  const never = hosts.migrate('--recover', id, '--word', 'never');
  assert.equal((await never.end()).exit, 0, never.told);
  assert.equal(await hosts.whereItRuns(), 'athos');
  assert.deepEqual(readdirSync(hosts.copies), ['disk.img']);
});

test('athos reboots: the VM has a network there by itself, and a new tap here is not touched', async (t) => {
  const lost = await lostAnswer(t);
  const { hosts } = lost;
  const { id } = JSON.parse(
    execFileSync('cat', [hosts.journal('athos')?.path ?? ''], { encoding: 'utf8' }),
  ) as { id: string };
  await hosts.reboot('athos');
  await hosts.isAsked('porthos', 'announce');
  execFileSync('ip', ['-n', hosts.athos.namespace, 'tuntap', 'add', 'vnet0', 'mode', 'tap']);
  const recovered = hosts.migrate('--recover', id);
  assert.equal((await recovered.end()).exit, 0, recovered.told);
  assert.match(recovered.told, /vm has moved to porthos/);
  await hosts.assertOver(recovered.told);
  assert.equal(await hosts.whereItRuns(), 'porthos');
  execFileSync('ip', ['-n', hosts.athos.namespace, 'link', 'show', 'vnet0']);
});

test('M is killed, and an agent is the next at QMP here: the guard has its turn first', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  hosts.athos.daemon.hold.set('export', new Promise(() => undefined));
  const run = hosts.migrate();
  await hosts.isAsked('athos', 'export');
  const agent = agentAt(hosts, 'athos');
  hosts.athos.daemon.hold.clear();
  run.kill('SIGKILL');
  assert.equal(await agent, 'running');
  await hosts.assertOver(run.told);
  assert.equal(hosts.find(hosts.porthos, 'qemu-system').length, 0);
});

test('porthos reboots before `go`: it never ran there, and goes on here', async (t) => {
  const hosts = await TwoHosts.up(t);
  await hosts.startVm();
  hosts.porthos.daemon.hold.set('import', new Promise(() => undefined));
  const run = hosts.migrate('--storage', 'copy', '--storage-dir', hosts.copies);
  await hosts.isAsked('porthos', 'import');
  await hosts.reboot('porthos');
  const { last } = await run.end();
  assert.equal(last.runs, 'here', run.told);
  await hosts.assertRunsOnlyOn('athos');
  assert.deepEqual(readdirSync(hosts.copies), []);
});
