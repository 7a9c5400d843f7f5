/* When a flow that is on its way is given up: mobility.test.ts and vm-flows.test.ts; here, how many. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Journeys } from '../../../src/daemon/flows/journeys.js';
import { address } from '../../../src/wire/address.js';
import type { Tuple } from '../../../src/wire/tuple.js';
import { FakeClock } from '../../sim/fake-clock.js';

const GIVE_UP_MS = 60_000;
const LOCAL = address('192.0.2.10');
const REMOTE = address('203.0.113.7');

test('more flows than a call has room for arguments are on their way, and given up', () => {
  const clock = new FakeClock();
  const since = clock.now();
  let over = 0;
  const journeys = new Journeys({
    agent: {
      underway: () => ({ source: LOCAL, state: 'syncing', since }),
      reasonNow: () => 'no-answer',
    },
    ...{ clock, giveUpMs: GIVE_UP_MS, holdMs: 900_000 },
    over: () => {
      over += 1;
    },
  });
  const flows = 150_000;
  for (let n = 0; n < flows; n++) {
    const ports = { localPort: n & 0xffff, remotePort: 443 + (n >> 16) };
    const kernel: Tuple = { local: LOCAL, remote: REMOTE, ...ports };
    journeys.begin(kernel);
  }
  clock.pass(GIVE_UP_MS - 1);
  assert.deepEqual([over, journeys.size], [0, flows]);
  clock.pass(1);
  assert.deepEqual([over, journeys.size], [flows, 0]);
});
