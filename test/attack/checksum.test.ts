/*
 * An ACK that the kernel drops for its checksum, and that is right in all else.  The boundary sees it
 * first.  What it then believes to be acknowledged the kernel sends again, and so takes back.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { swallow } from '../../src/lab/cases/hold.js';
import { Sniffer } from '../../src/lab/sniffer.js';
import { until } from '../../src/lab/wait.js';
import { encodePacket, segmentEnd } from '../../src/wire/packet.js';
import { Field, skip } from './field.js';

const field = new Field();

const refusedFor = (): number =>
  Number(/TcpInCsumErrors +(\d+)/.exec(field.lab.run('vm', ['nstat', '-asz']))?.[1]);

for (const family of [4, 6] as const) {
  test(`acknowledged by a wrong checksum only, data moves (IPv${family})`, { skip }, async () => {
    const { stage, lab } = field;
    const transfer = await stage.transfer({ family });
    const { streams, port } = transfer;
    for (const end of streams.both) end.order({ do: 'send', bytes: 10_000 });
    await streams.quiet();
    const seen = await Sniffer.start(lab, 'vm', family, `tcp port ${port}`);
    swallow(field.lab, true);
    streams.server.order({ do: 'send', bytes: 5_000 });
    const sent = await seen.waitFor(
      'the data',
      (p) => p.sourcePort === port && p.payload.length > 0,
    );
    const again = seen.waitFor(
      'the data once more',
      (p) => p.sourcePort === port && p.seq === sent.seq && p.payload.length > 0 && p !== sent,
    );
    const ack = encodePacket({
      ...{ source: sent.destination, sourcePort: sent.destinationPort },
      ...{ destination: sent.source, destinationPort: sent.sourcePort },
      ...{ flags: 'A', seq: sent.ack, ack: segmentEnd(sent), window: 500 },
      ...{ options: [], payload: new Uint8Array(0) },
    });
    const sum = ack.length - 4;
    ack[sum] = (ack[sum] ?? 0) ^ 0xff;
    const before = refusedFor();
    await field.send('router', ack);
    await until('the kernel to refuse it', () => refusedFor() > before, 5_000);
    await again;
    stage.move(family === 4 ? 'porthos' : 'athos');
    swallow(field.lab, false);
    await streams.quiet();
    await stage.checkMoved('transfer', transfer, 1);
    await stage.finish('transfer', transfer);
    seen.stop();
    assert.deepEqual(
      stage.checks.filter(({ ok }) => !ok),
      [],
    );
  });
}
