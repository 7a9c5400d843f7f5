/*
 * SYNs with TI_OPEN from made-up sources: nobody has to answer, and each has made a flow.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { address } from '../../src/wire/address.js';
import type { Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { Field, skip } from './field.js';

const FLOWS_MAX = 64;
const SYNS = 300;
const field = new Field({ settings: { flows_max: FLOWS_MAX } });

const syn = (i: number, port: number): Packet => ({
  ...{ source: address(`198.19.${i >> 8}.${i & 255}`), sourcePort: 1024 + i },
  ...{ destination: address(field.lab.vmAddress(4)), destinationPort: port },
  ...{ flags: 'S', seq: seq(1000 + i), ack: seq(0), window: 65_535 },
  options: [
    { kind: 'mss', mss: 1460 },
    {
      ...{ kind: 'ti-open', flags: 0, keyId: 0, reserved: 0 },
      ...{ tifidHalf: 0x1000 + i, keyHalf: new Uint8Array(8) },
    },
  ],
  payload: new Uint8Array(0),
});

test('half-open connections leave the table to those who answer', { skip }, async () => {
  const { stage, lab } = field;
  const old = await stage.transfer();
  const counters = async () => (await lab.daemon('vm').status()).counters;
  const syns = Array.from({ length: SYNS }, (_, i) => syn(i, old.port));
  await field.send('router', ...syns);
  await until(
    'the flood',
    async () => ((await counters())['legacy.evicted'] ?? 0) >= SYNS / 2,
    20_000,
  );
  const fresh = await stage.transfer();
  for (const transfer of [old, fresh]) await stage.checkMoved('still protected', transfer, 0);
  const { flows } = await lab.daemon('vm').status();
  assert.equal(flows.protected, 2);
  stage.move('porthos');
  for (const transfer of [old, fresh]) {
    await stage.checkMoved('moves', transfer, 1);
    await stage.finish('transfer', transfer);
  }
  assert.deepEqual(
    stage.checks.filter(({ ok }) => !ok),
    [],
  );
});
