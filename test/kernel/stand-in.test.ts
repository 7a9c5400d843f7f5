/*
 * What keeps the kernel of a flow waiting whose peer is away, and what does not (topology:
 * ../link/network.ts).  src/sync/stand-in.ts.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../src/lab/wait.js';
import { RawSender } from '../../src/libc/raw.js';
import { progressOf } from '../../src/link/sockets.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { seqAdd } from '../../src/wire/seq.js';
import type { Tuple } from '../../src/wire/tuple.js';
import { FAR, Network, vmAddress } from '../link/network.js';
import { Capture } from './capture.js';
import { Connection } from './connection.js';

/* Given up after 3 to 7 s. */
const RETRIES = '3';
const AWAY_MS = 10_000;
/* More than a window says exactly: it is in units of 1 KiB here (RFC 7323, section 2). */
const DATA = 'd'.repeat(5000);
const ESTABLISHED = 1;

const network = new Network();
const netlink = new Netlink();
after(() => {
  netlink.close();
  network.close();
});

const tupleOf = ({ socket, local, remote }: Connection): Tuple => ({
  ...{ local, localPort: socket.localPort ?? 0 },
  ...{ remote, remotePort: socket.remotePort ?? 0 },
});

describe('a kernel whose peer is away', () => {
  const raw = new RawSender();
  let connection: Connection;

  before(async () => {
    await network.echo('aramis', 7000);
    network.plug('athos');
    network.configure('athos');
    network.run('vm', 'sysctl', '-qw', `net.ipv4.tcp_retries2=${RETRIES}`);
  });

  after(() => raw.close());

  beforeEach(() => lose(false));

  afterEach(() => {
    connection.close();
    lose(false);
  });

  /** Nothing gets to aramis any more; its kernel hears nothing, and says nothing. */
  function lose(on: boolean): void {
    const rules = on
      ? 'add table inet t; add chain inet t c { type filter hook input priority 0; policy drop; }'
      : 'add table inet t; delete table inet t';
    network.run('aramis', 'nft', rules);
  }

  /** An ACK of nothing new, with this window, every half second for a while. */
  async function standIn(window: number, forMs: number): Promise<void> {
    const end = performance.now() + forMs;
    const { sndUna } = connection.position();
    while (performance.now() < end && connection.errors.length === 0) {
      raw.toKernel(connection.fromPeer(sndUna, { window }));
      await sleep(500);
    }
  }

  for (const family of [4, 6] as const) {
    const start = async () => {
      await network.reaches(family, 7000);
      connection = await Connection.open(vmAddress('athos', family), FAR[family], 7000);
      assert.ok(await connection.works('before'));
    };
    it(`IPv${family}: told of no window with data in flight, its ACKs go with SND.UNA`, async () => {
      await start();
      lose(true);
      const capture = new Capture('eth0');
      const { sndUna, rcvNxt } = connection.position();
      connection.write(DATA);
      await until('data in flight', () => connection.info().unacked > 0);
      raw.toKernel(connection.fromPeer(sndUna, { window: 0 }));
      const payload = new TextEncoder().encode('x');
      raw.toKernel(connection.fromPeer(sndUna, { window: 0, payload, flags: 'PA' }));
      const next = seqAdd(rcvNxt, payload.length);
      const ack = await until('the ACK', () =>
        capture.packets().find((p) => p.payload.length === 0 && p.ack === next),
      );
      capture.close();
      assert.equal(ack.seq, sndUna);
    });

    it(`IPv${family}: an ACK with a SEQ that it has is none, whatever it acknowledges`, async () => {
      await start();
      lose(true);
      const { sndUna, rcvNxt } = connection.position();
      connection.write(DATA);
      await until('data in flight', () => connection.info().unacked > 0);
      const all = seqAdd(sndUna, DATA.length);
      raw.toKernel(connection.fromPeer(all, { seq: seqAdd(rcvNxt, -1) }));
      assert.equal(connection.position().sndUna, sndUna);
      raw.toKernel(connection.fromPeer(all));
      assert.equal(connection.position().sndUna, all);
    });

    it(`IPv${family}: gives up, also if it hears of an open window`, async () => {
      await start();
      lose(true);
      connection.write('data');
      await until('data to be unanswered', () => connection.info().retransmits > 0);
      await standIn(500, AWAY_MS);
      assert.match(connection.errors[0] ?? 'still there', /ETIMEDOUT/);
    });

    it(`IPv${family}: waits as long as it hears of a closed one, and goes on`, async () => {
      await start();
      lose(true);
      connection.write('data');
      await until('data to be unanswered', () => connection.info().retransmits > 0);
      const { unacked, retransmits } = progressOf(netlink, tupleOf(connection)) ?? {};
      assert.deepEqual([unacked, (retransmits ?? 0) > 0], [1, true]);
      await standIn(0, AWAY_MS);
      assert.equal(connection.info().state, ESTABLISHED);
      lose(false);
      // The window is closed still: what is acknowledged opens it.
      connection.kick(raw, 16);
      assert.notEqual(await connection.echoed('data', 500), undefined);
      assert.ok(await connection.works('more'));
      assert.deepEqual(connection.errors, []);
    });

    it(`IPv${family}: told of no window before its first timeout, it cannot be kicked`, async () => {
      await start();
      lose(true);
      const { sndUna } = connection.position();
      connection.write('data');
      raw.toKernel(connection.fromPeer(sndUna, { window: 0 }));
      await until('the kernel to back off', () => connection.info().backoff >= 3, 8000);
      const { unacked, retransmits } = progressOf(netlink, tupleOf(connection)) ?? {};
      assert.deepEqual([unacked, retransmits], [1, 0]);
      lose(false);
      connection.kick(raw, 16);
      // Nor does a window that opens wake it.
      raw.toKernel(connection.fromPeer(sndUna));
      assert.equal(await connection.echoed('data', 500), undefined);
      assert.notEqual(await connection.echoed('data', 5000), undefined);
    });

    it(`IPv${family}: an answered keepalive is an answer`, async () => {
      await start();
      connection.socket.setKeepAlive(true, 1000); // libuv: ten probes, a second apart
      lose(true);
      await standIn(0, 14_000);
      assert.equal(connection.info().state, ESTABLISHED);
      lose(false);
      assert.deepEqual(connection.errors, []);
    });
  }
});
