/*
 * What a kernel makes of a SACK block that comes seconds after what it is about (topology:
 * ../link/network.ts).  PROTOCOL.md, section 9.1, step 5.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { RawSender } from '../../src/libc/raw.js';
import { seqAdd } from '../../src/wire/seq.js';
import { FAR, Network, vmAddress } from '../link/network.js';
import { Connection } from './connection.js';

/* After 0.2 + 0.4 + 0.8 s. */
const BACKOFF = 3;

const network = new Network();
after(() => network.close());

describe('a SACK block that comes late', () => {
  const raw = new RawSender();
  let connection: Connection;

  before(async () => {
    await network.echo('aramis', 7000);
    network.plug('athos');
    network.configure('athos');
  });

  after(() => raw.close());

  afterEach(() => {
    connection.close();
    lose(false);
  });

  /** Nothing gets to aramis any more. */
  function lose(on: boolean): void {
    const rules = on
      ? 'add table inet t; add chain inet t c { type filter hook input priority 0; policy drop; }'
      : 'add table inet t; delete table inet t';
    network.run('aramis', 'nft', rules);
  }

  for (const family of [4, 6] as const) {
    it(`IPv${family}: is taken for a round trip`, async () => {
      await network.reaches(family, 7000);
      connection = await Connection.open(vmAddress('athos', family), FAR[family], 7000);
      assert.ok(await connection.works('before'));
      lose(true);
      assert.ok(connection.info().rtoMs < 500);
      const { sndUna } = connection.position();
      connection.write('aaaa');
      await until('the first to be sent', () => connection.info().unacked === 1);
      connection.write('bbbb');
      await until('the kernel to back off', () => connection.info().backoff >= BACKOFF, 8000);
      // All of it was retransmissions of the first; the second was sent once, more than a second ago.
      const block = [seqAdd(sndUna, 4), seqAdd(sndUna, 8)] as const;
      raw.toKernel(
        connection.fromPeer(sndUna, { options: [{ kind: 'sack', blocks: [[...block]] }] }),
      );
      await until('the longer timeout', () => connection.info().rtoMs > 1000, 1000);
    });
  }
});
