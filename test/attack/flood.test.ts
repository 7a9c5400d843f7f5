/*
 * A flood that anybody can send: somebody else's flow moves meanwhile, and the daemon answers.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { now, until } from '../../src/lab/wait.js';
import { address } from '../../src/wire/address.js';
import type { Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { Field, skip } from './field.js';

const field = new Field();

/* The daemon of before lost events from some 2,000 on. */
const FLOOD_MIN = 20_000;
const FLOOD_MAX = 400_000;
const BATCH = 500;

test('a flood of unknown TIFIDs: a flow moves, and the daemon answers', {
  ...{ skip, timeout: 60_000 },
}, async () => {
  const { lab, stage } = field;
  const transfer = await stage.transfer();
  transfer.streams.write(2e5);
  await transfer.streams.flowing(now());
  let over = false;
  const flood = flooding(() => over);
  try {
    await until('the flood', async () => (await taken()) > 1000);
    const movedAt = stage.move('porthos');
    const before = await taken();
    await lab.daemon('aramis').waitFor('committed', movedAt);
    await transfer.streams.flowing(now());
    assert.ok((await taken()) > before, 'the flood has ended too early');
    await until('all of the flood', async () => (await taken()) > FLOOD_MIN);
  } finally {
    over = true;
    await flood;
  }
  assert.equal((await stage.flow('aramis', transfer))?.moves, 1);
  const { counters } = await lab.daemon('aramis').status();
  assert.equal(counters['drop.event-lost'] ?? 0, 0);
  const whole = await transfer.streams.finish();
  assert.ok(whole.ok, whole.detail);
});

/** Synchronizations that the boundary of aramis has not let through, as its daemon tells. */
const taken = async (): Promise<number> =>
  (await field.lab.daemon('aramis').status()).counters['drop.sync'] ?? 0;

async function flooding(over: () => boolean): Promise<void> {
  for (let sent = 0; sent < FLOOD_MAX && !over(); sent += BATCH)
    await field.send('router', ...Array.from({ length: BATCH }, (_, i) => stray(sent + i + 1)));
}

/** The claim of a flow that nobody has. */
const stray = (n: number): Packet => ({
  ...{ source: address('198.51.100.66'), sourcePort: 1024 + (n % 60_000) },
  ...{ destination: address(field.lab.address('aramis', 4)), destinationPort: 4444 },
  ...{ flags: 'S', seq: seq(n), ack: seq(0), window: 1000, payload: new Uint8Array(0) },
  options: [
    {
      ...{ kind: 'ti-sync', epoch: 1, initiatorHalf: n, responderHalf: n + 1 },
      ...{ tiack: 0, nonce: n, mac: new Uint8Array(8) },
    },
  ],
});
