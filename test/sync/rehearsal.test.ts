import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { ROUNDS, rehearse } from '../../src/sync/rehearsal.js';

test('every rehearsed synchronization is carried through by both agents', async () => {
  assert.equal(await rehearse((n) => randomBytes(n)), ROUNDS);
});
