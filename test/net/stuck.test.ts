/**
 * What `steady` means: that the kernel takes what comes in.  Another program's firewall rule writes
 * its own mark over ours, as CONNMARK rules of VPNs and balancers do, so that after a move packets
 * for the retained address are nobody's behind the boundary.
 *
 *     aramis ──── router ──┬── athos
 *     client               └── porthos ──── vm: server, and the rule
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Check } from '../../src/cli/doctor/check.js';
import { now, until } from '../../src/lab/wait.js';
import { Field, skip } from '../attack/field.js';

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

const RULE = `table inet other {
  chain input {
    type filter hook prerouting priority mangle
    meta mark set meta mark and 0xff0000
  }
}
`;

const field = new Field({ settings: { hold: '60s' } });

test('a flow whose packets are not taken is stuck, until they are', { skip }, async () => {
  const { lab, stage } = field;
  const transfer = await stage.transfer();
  transfer.streams.write(1e5);
  await transfer.streams.flowing(now());
  lab.run('vm', ['nft', '-f', '-'], RULE);
  const movedAt = lab.move('porthos');
  const stateOf = async (): Promise<string | undefined> =>
    (await stage.flow('vm', transfer))?.state;
  await until('the flow to be shown as stuck', async () => (await stateOf()) === 'stuck');
  const daemon = lab.daemon('vm');
  assert.ok(daemon.find('proven', movedAt), 'although something has come on the new path');
  assert.equal(daemon.find('stuck', movedAt)?.reason, undefined, 'it is no counter of ours');
  assert.equal((await daemon.status()).flows.stuck, 1);

  lab.run('vm', ['nft', 'delete', 'table', 'inet', 'other']);
  const mendedAt = now();
  await transfer.streams.flowing(mendedAt);
  await until('the flow to be steady again', async () => (await stateOf()) === 'steady');
  assert.ok(daemon.find('revived', mendedAt));
  const whole = await transfer.streams.finish();
  assert.ok(whole.ok, whole.detail);
});

test('somebody removes a policy rule: doctor names it, the next daemon puts it back', {
  skip,
}, async () => {
  const { lab, stage } = field;
  const transfer = await stage.transfer();
  transfer.streams.write(1e5);
  await transfer.streams.flowing(now());
  const was = lab.vmAddress(4);
  const elsewhere = lab.record.plugged === 'athos' ? 'porthos' : 'athos';
  await transfer.streams.flowing(lab.move(elsewhere));
  lab.run('vm', ['ip', 'rule', 'del', 'priority', '99']);
  const stuck = async () => (await stage.flow('vm', transfer))?.state === 'stuck';
  await until('the flow to be shown as stuck', stuck);
  const doctor = ['doctor', 'eth0', '--json', '--run-dir', lab.host('vm').run_dir];
  const command = [process.execPath, MAIN, ...doctor].map((word) => `'${word}'`).join(' ');
  const { checks } = JSON.parse(lab.run('vm', ['sh', '-c', `${command} || :`]));
  const { message } = checks.find(({ id }: Check) => id === 'flows.stuck') ?? {};
  assert.match(message, new RegExp(`^${was}:${transfer.port} > .*: missing: rule 99: to ${was} `));

  await lab.killDaemon('vm');
  lab.startDaemon('vm');
  await lab.watchDaemon('vm');
  await transfer.streams.flowing(now());
  const whole = await transfer.streams.finish();
  assert.ok(whole.ok, whole.detail);
});
