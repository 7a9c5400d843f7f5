/**
 * What `steady` means: that the kernel takes what comes in.  A firewall rule of another program drops
 * what is for the retained address, so that after a move it is lost behind the boundary.  And what
 * other programs do that must not matter: marks of their own, as CONNMARK rules of VPNs and balancers
 * write them, and rules and routes that are removed as nobody's.
 *
 *     aramis ──── router ──┬── athos
 *     client               └── porthos ──── vm: server, and the other program
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Check } from '../../src/cli/doctor/check.js';
import { now, until } from '../../src/lab/wait.js';
import { Field, skip } from '../attack/field.js';

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

const MARKS = `table inet marks {
  chain in {
    type filter hook prerouting priority mangle
    meta mark set ct mark and 0xff0000
  }
  chain out {
    type route hook output priority mangle
    ct mark set 0x10000 meta mark set ct mark
  }
}
`;

const dropping = (address: string) => `table inet other {
  chain input {
    type filter hook input priority filter
    ip daddr ${address} drop
  }
}
`;

const field = new Field({ settings: { hold: '60s' } });

test('a flow whose packets are not taken is stuck, until they are', { skip }, async () => {
  const { lab, stage } = field;
  const transfer = await stage.transfer();
  transfer.streams.write(1e5);
  await transfer.streams.flowing(now());
  lab.run('vm', ['nft', '-f', '-'], dropping(lab.vmAddress(4)));
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

test('marks of another program, and rules and routes that it removes, do no harm', {
  skip,
}, async () => {
  const { lab, stage } = field;
  lab.run('vm', ['nft', '-f', '-'], MARKS);
  const transfer = await stage.transfer();
  transfer.streams.write(1e5);
  await transfer.streams.flowing(now());
  const elsewhere = lab.record.plugged === 'athos' ? 'porthos' : 'athos';
  await transfer.streams.flowing(lab.move(elsewhere));
  lab.run('vm', ['nft', 'delete', 'table', 'inet', 'marks']);

  const removedAt = now();
  const { retained } = await lab.daemon('vm').status();
  assert.equal(retained.length, 1);
  const table = ['table', '21577'];
  while (lab.run('vm', ['ip', 'rule']).includes('99:\t')) {
    lab.run('vm', ['ip', 'rule', 'del', 'priority', '99']);
  }
  lab.run('vm', ['ip', 'rule', 'del', 'priority', '33000']);
  lab.run('vm', ['ip', 'route', 'flush', ...table]);
  lab.run('vm', ['ip', 'addr', 'flush', 'dev', 'lo', 'to', `${retained[0]}`]);
  await until(
    'it to be put back',
    () => lab.daemon('vm').find('put-back', removedAt) !== undefined,
  );
  await transfer.streams.flowing(now());
  const doctor = ['doctor', 'eth0', '--json', '--run-dir', lab.host('vm').run_dir];
  const command = [process.execPath, MAIN, ...doctor].map((word) => `'${word}'`).join(' ');
  const { checks } = JSON.parse(lab.run('vm', ['sh', '-c', `${command} || :`]));
  const { message } = checks.find(({ id }: Check) => id === 'retained') ?? {};
  assert.equal(message, `${retained[0]}: all of it is there`);

  await lab.killDaemon('vm');
  lab.run('vm', ['ip', 'rule', 'del', 'priority', '33000']);
  lab.startDaemon('vm');
  await lab.watchDaemon('vm');
  await until('the next daemon to put it back', () =>
    lab.run('vm', ['ip', 'rule']).includes(`33000:\tfrom ${retained[0]} lookup 21577`),
  );
  await transfer.streams.flowing(now());
  const whole = await transfer.streams.finish();
  assert.ok(whole.ok, whole.detail);
});
