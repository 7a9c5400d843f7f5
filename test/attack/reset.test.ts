/*
 * Resets that the kernel would not believe, while nothing comes from the peer: that is the time for
 * which a flow is kept.  A NAT that answers with SEQ 0 sends them without malice.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { swallow } from '../../src/lab/cases/hold.js';
import type { PlayedTransfer } from '../../src/lab/stage.js';
import { now, pause, until } from '../../src/lab/wait.js';
import { address } from '../../src/wire/address.js';
import type { Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { Field, skip } from './field.js';

const QUARANTINE_MS = 500;
const field = new Field({ settings: { quarantine: `${QUARANTINE_MS}ms` } });

/* By then a flow is silent (1 s), each reset was delivered, and its socket was looked for. */
const LATER_MS = 1_000 + QUARANTINE_MS + 5_000 + 1_000;
const MADE_UP = [0, 1, 0x12345678, 0x89abcdef];

/** A bare reset in the name of the peer, for aramis. */
async function resetOf(transfer: PlayedTransfer, at: number): Promise<Packet> {
  const flow = await field.stage.flow('aramis', transfer);
  const [local = '', remote = ''] = flow?.wire.split(' > ') ?? [];
  const ends = [remote, local].map((end) => {
    const colon = end.lastIndexOf(':');
    const host = end.slice(0, colon).replace(/^\[|\]$/g, '');
    return { address: address(host), port: Number(end.slice(colon + 1)) };
  });
  const [source, destination] = ends;
  assert.ok(source && destination);
  return {
    ...{ source: source.address, sourcePort: source.port },
    ...{ destination: destination.address, destinationPort: destination.port },
    ...{ flags: 'R', seq: seq(at), ack: seq(0), window: 0, options: [] },
    payload: new Uint8Array(0),
  };
}

const protectedAtBoth = async (transfer: PlayedTransfer): Promise<boolean> => {
  const flows = await Promise.all(
    (['aramis', 'vm'] as const).map((host) => field.stage.flow(host, transfer)),
  );
  return flows.every((flow) => flow?.state === 'steady' && flow.tifid !== null);
};

test('a silent flow is not forgotten for a reset with a made-up number', { skip }, async () => {
  const { stage } = field;
  const moved = await stage.transfer();
  moved.streams.write(2e5);
  await moved.streams.flowing(now());
  stage.move('porthos');
  // What flows may still have been on its way: the next server listens at the new address.
  await until(
    'the flow at porthos',
    async () => (await stage.flow('vm', moved))?.moves === 1,
    10_000,
  );
  const unmoved = await stage.transfer();
  unmoved.streams.write(2e5);
  for (const { streams } of [moved, unmoved]) await streams.flowing(now());
  swallow(field.lab, true);
  await pause(1_000);
  for (const transfer of [moved, unmoved])
    for (const number of MADE_UP) await field.send('router', await resetOf(transfer, number));
  await pause(LATER_MS);
  swallow(field.lab, false);
  for (const transfer of [moved, unmoved]) {
    await transfer.streams.flowing(now());
    await until('the flow at both ends', () => protectedAtBoth(transfer), 10_000);
  }
  const back = stage.move('athos');
  for (const transfer of [moved, unmoved]) {
    await transfer.streams.flowing(back);
    await stage.finish('transfer', transfer);
  }
  assert.deepEqual(
    stage.checks.filter(({ ok }) => !ok),
    [],
  );
});
