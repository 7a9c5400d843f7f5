/*
 * A segment that waits for the hardware address of a gateway that is not there keeps TCP from
 * sending it by another way, until neighbour discovery has failed (tcp_output.c,
 * skb_still_in_host_queue; topology: ../link/network.ts).
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NETWORKS } from '../../src/lab/topology.js';
import { RawSender } from '../../src/libc/raw.js';
import { forgetUnresolved } from '../../src/link/neighbours.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { FAR, Network, vmAddress } from '../link/network.js';
import { Connection } from './connection.js';

/* Long enough for a backoff; neighbour discovery gives up after 3 s. */
const AWAY_MS = 700;
const KICKED_MS = 150;

const network = new Network();
const netlink = new Netlink();
after(() => {
  netlink.close();
  network.close();
});

describe('a segment in the queue of a neighbour', () => {
  const raw = new RawSender();

  before(async () => {
    await network.echo('aramis', 7000);
    network.plug('athos');
    network.configure('athos');
  });

  after(() => raw.close());

  for (const family of [4, 6] as const) {
    const gateway = NETWORKS.athos[family === 4 ? 'gateway4' : 'gateway6'];
    const nobody = family === 4 ? '192.0.2.250' : '2001:db8:1::250';

    it(`IPv${family}: is sent another way only after the neighbour is forgotten`, async () => {
      await network.reaches(family, 7000);
      const connection = await Connection.open(vmAddress('athos', family), FAR[family], 7000);
      assert.ok(await connection.works('before'));
      network.ip('vm', [`route replace default via ${nobody} dev eth0`]);
      connection.write('stuck');
      await sleep(AWAY_MS);
      network.ip('vm', [`route replace default via ${gateway} dev eth0`]);
      connection.kick(raw, 5);
      assert.equal(await connection.echoed('stuck', KICKED_MS), undefined);
      assert.equal(forgetUnresolved(netlink), 1);
      connection.kick(raw, 5);
      assert.notEqual(await connection.echoed('stuck', KICKED_MS), undefined);
      connection.close();
    });
  }
});
