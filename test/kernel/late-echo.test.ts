/*
 * What a kernel makes of a timestamp that comes back seconds late, with the first ACK of what it
 * has sent again meanwhile (topology: ../link/network.ts): plain TCP's timeout after a path was away.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { RawSender } from '../../src/libc/raw.js';
import type { TcpOption } from '../../src/wire/option.js';
import { seqAdd } from '../../src/wire/seq.js';
import { FAR, Network, vmAddress } from '../link/network.js';
import { Capture } from './capture.js';
import { Connection } from './connection.js';

/* After 0.2 + 0.4 + 0.8 s. */
const BACKOFF = 3;

type Timestamps = Extract<TcpOption, { kind: 'timestamps' }>;

const network = new Network();
after(() => network.close());

describe('a timestamp that comes back late', () => {
  const raw = new RawSender();
  let connection: Connection;
  let capture: Capture;

  before(async () => {
    await network.echo('aramis', 7000);
    network.plug('athos');
    network.configure('athos');
    capture = new Capture('eth0');
  });

  after(() => {
    raw.close();
    capture.close();
  });

  afterEach(() => {
    connection.close();
    lose(false);
  });

  /** Nothing that aramis sends is heard any more. */
  function lose(on: boolean): void {
    const rules = on
      ? 'add table inet t; add chain inet t c { type filter hook input priority 0; }; add rule inet t c iifname eth0 drop'
      : 'add table inet t; delete table inet t';
    network.run('vm', 'nft', rules);
  }

  /** Of the last packet that came from the peer. */
  function timestamps(): Timestamps {
    const port = connection.socket.localPort;
    const last = capture.packets().filter((p) => p.destinationPort === port);
    const found = last.at(-1)?.options.find((o) => o.kind === 'timestamps');
    assert.ok(found?.kind === 'timestamps');
    return found;
  }

  /** The timeout one round trip after an ACK of what was sent again for more than a second. */
  async function timeoutAfter(): Promise<number> {
    await network.reaches(4, 7000);
    connection = await Connection.open(vmAddress('athos', 4), FAR[4], 7000);
    assert.ok(await connection.works('before'));
    const before = timestamps();
    lose(true);
    const { sndUna } = connection.position();
    connection.write('aaaa');
    await until('the kernel to back off', () => connection.info().backoff >= BACKOFF, 8000);
    raw.toKernel(connection.fromPeer(seqAdd(sndUna, 4), { options: [before] }));
    await until('the ACK to be taken', () => connection.info().unacked === 0, 1000);
    lose(false);
    assert.ok(await connection.works('bbbb', 10_000));
    return connection.info().rtoMs;
  }

  it('is taken for a round trip', async () => {
    const ms = await timeoutAfter();
    assert.ok(ms > 1000, `${ms} ms`);
  });
});
