/*
 * What the insider sends is right in everything: so the attacks fail for no other reason than theirs.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sniffer } from '../../src/lab/sniffer.js';
import { until } from '../../src/lab/wait.js';
import { address } from '../../src/wire/address.js';
import { Field, skip } from './field.js';

const PORT = 7777;
const field = new Field();

for (const family of [4, 6] as const) {
  test(`its own flow moves by its own claim (IPv${family})`, { skip }, async () => {
    const insider = await field.insider(family);
    const seen = await Sniffer.start(field.lab, 'aramis', family);
    const claim = await insider.claim({
      source: address(field.lab.address('aramis', family)),
      sourcePort: PORT,
      destination: address(field.lab.vmAddress(family)),
      destinationPort: insider.own.port,
    });
    await field.send('aramis', claim);
    const isSynAck = (p: { flags: string; destinationPort: number }): boolean =>
      p.flags === 'SA' && p.destinationPort === PORT;
    await field.send('aramis', insider.confirm(claim, await seen.waitFor('SYN/ACK', isSynAck)));
    const moved = async () => (await field.stage.flow('vm', insider.own))?.moves === 1;
    await until('the flow to move', moved);
    const flow = await field.stage.flow('vm', insider.own);
    assert.match(flow?.wire ?? '', new RegExp(`:${PORT}$`));
    seen.stop();
    insider.own.streams.stop();
  });
}
