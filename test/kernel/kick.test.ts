/*
 * Making a kernel that has backed off send now: what works, in which state, and what does not
 * (topology: ../link/network.ts).  RFC 6069; PROTOCOL.md, the kick.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { RawSender } from '../../src/libc/raw.js';
import { RetainedAddresses } from '../../src/link/retained-kernel.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { address } from '../../src/wire/address.js';
import { hostUnreachable, packetTooBig } from '../../src/wire/icmp.js';
import { seqAdd } from '../../src/wire/seq.js';
import { FAR, Network, vmAddress } from '../link/network.js';
import { Connection } from './connection.js';

const TABLE = 0x5449;
/* The next retransmission by itself is more than 1.5 s away then. */
const BACKOFF = 3;
const KICKED_MS = 150;

const network = new Network();
const netlink = new Netlink();
after(() => {
  netlink.close();
  network.close();
});

describe('the kick', () => {
  const retained = new RetainedAddresses(netlink, {
    ...{ table: TABLE, interfaces: () => ['eth0'], forwards: () => false },
  });
  const raw = new RawSender();
  /* As the daemon does. */
  const inject = (packet: Uint8Array) =>
    retained.list().length > 0 ? raw.toRetained(packet) : raw.toKernel(packet);
  let connection: Connection;

  before(async () => {
    await network.echo('aramis', 7000);
    network.plug('athos');
  });

  after(() => raw.close());
  beforeEach(() => network.configure('athos'));

  afterEach(() => {
    connection.close();
    retained.keep([]);
    network.markFor('athos', undefined);
    network.ip('vm', ['addr flush dev eth0 scope global']);
  });

  const backedOff = () =>
    until('the kernel to back off', () => connection.info().backoff >= BACKOFF, 8000);

  for (const family of [4, 6] as const) {
    const local = vmAddress('athos', family);

    const start = async () => {
      await network.reaches(family, 7000);
      connection = await Connection.open(local, FAR[family], 7000);
      assert.ok(await connection.works('before'));
    };

    /** Black while the address is gone; then it is back, with its routes. */
    async function black(o: { retain: boolean }): Promise<void> {
      await start();
      network.deconfigure('athos');
      if (o.retain) retained.keep([local]);
      connection.write('black');
      await backedOff();
      network.configure('athos');
      if (o.retain) retained.routesChanged();
      // So that the kick's first packet does not wait for address resolution.
      network.connects('vm', address(family === 4 ? '192.0.2.1' : '2001:db8:1::1'), 1);
    }

    it(`IPv${family}: unreachable messages about SND.UNA end a backoff`, async () => {
      await black({ retain: true });
      assert.equal(await connection.echoed('black', KICKED_MS), undefined, 'came by itself');
      connection.kick({ toKernel: inject }, 5);
      assert.notEqual(await connection.echoed('black', KICKED_MS), undefined);
      assert.deepEqual(connection.errors, []);
    });

    it(`IPv${family}: a socket is left in the black hole, with IPv6`, async () => {
      await start();
      network.deconfigure('athos');
      retained.keep([local]);
      connection.write('black');
      await backedOff();
      network.configure('athos');
      await network.reaches(family, 7000);
      assert.equal(await connection.echoed('black', KICKED_MS), undefined, 'came by itself');
      connection.kick({ toKernel: inject }, 5);
      const came = (await connection.echoed('black', KICKED_MS)) !== undefined;
      assert.equal(came, family === 4);
      retained.routesChanged();
      // The kick has been spent: this is the first timeout of all.
      assert.notEqual(await connection.echoed('black', 600), undefined);
    });

    it(`IPv${family}: duplicate ACKs do not`, async () => {
      await black({ retain: true });
      for (let i = 0; i < 5; i++) inject(connection.fromPeer(connection.position().sndUna));
      assert.equal(await connection.echoed('black', KICKED_MS), undefined);
    });

    it(`IPv${family}: messages about other data do not`, async () => {
      await black({ retain: true });
      const { sndUna } = connection.position();
      for (const wrong of [-1, 1, 1000]) {
        inject(hostUnreachable(connection.quoted(seqAdd(sndUna, wrong)), FAR[family]));
      }
      assert.equal(await connection.echoed('black', KICKED_MS), undefined);
    });

    it(`IPv${family}: what was written without any route needs an ACK, messages do nothing`, async () => {
      await black({ retain: false });
      assert.equal(connection.info().unacked, 0);
      connection.kick({ toKernel: inject }, 16);
      assert.equal(await connection.echoed('black', KICKED_MS), undefined);
      inject(connection.fromPeer(connection.position().sndUna));
      assert.notEqual(await connection.echoed('black', KICKED_MS), undefined);
    });

    it(`IPv${family}: packets are injected with no carrier, address or route`, async () => {
      await start();
      const { sndUna } = connection.position();
      network.unplug();
      network.deconfigure('athos');
      network.ip('vm', ['route flush dev eth0'], family);
      retained.keep([local]);
      connection.write('0123456789');
      await backedOff();
      connection.kick({ toKernel: inject }, 5);
      await until('the backoff to end', () => connection.info().backoff < BACKOFF, 100);
      // An ACK without timestamps, of a part: RFC 7323 would have it dropped, Linux takes it.
      inject(connection.fromPeer(seqAdd(sndUna, 4)));
      assert.equal(connection.position().sndUna, seqAdd(sndUna, 4));
      // With data: it comes out at the program.
      inject(
        connection.fromPeer(seqAdd(sndUna, 10), { flags: 'PA', payload: Buffer.from('injected') }),
      );
      assert.notEqual(await connection.echoed('injected', 1000), undefined);
      assert.equal(connection.position().sndUna, seqAdd(sndUna, 10));
      network.plug('athos');
    });

    it(`IPv${family}: into a retained address by lo alone, however it is marked on its way`, async () => {
      await start();
      network.deconfigure('athos');
      retained.keep([local]);
      connection.write('x');
      const { sndUna } = connection.position();
      const answer = connection.fromPeer(seqAdd(sndUna, 1));
      assert.throws(() => raw.toKernel(answer), /UNREACH/);
      assert.equal(connection.position().sndUna, sndUna);
      // A change of the mark in OUTPUT makes the kernel look up the route again.
      const marks = [
        'add table inet m',
        'add chain inet m o { type route hook output priority -150; }',
      ];
      network.run('vm', 'nft', [...marks, 'add rule inet m o meta mark set 0x10000'].join('; '));
      raw.toRetained(answer);
      network.run('vm', 'nft', 'delete table inet m');
      assert.equal(connection.position().sndUna, seqAdd(sndUna, 1));
    });

    it(`IPv${family}: "too big" makes segments smaller`, async () => {
      await start();
      const { mss } = connection.info();
      const { sndUna } = connection.position();
      network.unplug();
      connection.write('y'.repeat(5000));
      inject(packetTooBig(connection.quoted(sndUna), FAR[family], 1300));
      await until('smaller segments', () => connection.info().mss <= 1300 - 40, 1000);
      assert.ok(mss > 1300);
      network.plug('athos');
    });
  }
});
