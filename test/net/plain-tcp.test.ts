/**
 * What happens without tiflow, or the other tests would prove nothing: the same move stalls a
 * connection of plain TCP for good, and the lab's programs see it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lab } from '../../src/lab/lab.js';
import { Transfer } from '../../src/lab/stream.js';
import { now } from '../../src/lab/wait.js';
import { leftovers } from './leak.js';

const STALL_MS = 3_000;
const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces';

test('plain TCP stalls when the server moves', { skip, timeout: 60_000 }, async () => {
  const name = `p${process.pid}`;
  const lab = await Lab.build({ name, owned: true, daemons: [] });
  try {
    for (const family of [4, 6] as const) {
      const ends = { client: 'aramis', server: 'vm', family, port: 5000 + family } as const;
      const transfer = await Transfer.open(lab, ends);
      transfer.write(1e6);
      await transfer.flowing(now());
      lab.move(family === 4 ? 'porthos' : 'athos');
      const usable = await lab.waitForAddresses(family === 4 ? 'porthos' : 'athos', [family]);
      await assert.rejects(transfer.flowing(usable, STALL_MS), /in vain for the stream to flow/);
      for (const end of transfer.both) end.stop();
    }
  } finally {
    lab.teardown();
  }
  assert.deepEqual(leftovers(name), []);
});
