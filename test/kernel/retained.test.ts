/*
 * An address that no interface has any more, kept as src/link/retained.ts does (topology:
 * ../link/network.ts).
 *
 * The vm has moved from athos to porthos.  The router sends what is for its old address after
 * it, as if a boundary had translated it, and nftables marks it, as the boundary would.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { RetainedAddresses } from '../../src/link/retained.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { FAR, Network, vmAddress } from '../link/network.js';
import { Capture } from './capture.js';
import { Connection } from './connection.js';

const MARK = 0x5449;
const network = new Network();
const netlink = new Netlink();
after(() => {
  netlink.close();
  network.close();
});

describe('a retained address', () => {
  const retained = new RetainedAddresses(netlink, { mark: MARK, table: MARK });

  before(async () => {
    await network.echo('aramis', 7000);
    await network.echo('vm', 22);
    network.plug('athos');
  });

  for (const family of [4, 6] as const) {
    const old = vmAddress('athos', family);

    describe(`IPv${family}`, () => {
      let connection: Connection;

      before(async () => {
        network.configure('athos');
        await network.reaches(family, 7000);
        connection = await Connection.open(old, FAR[family], 7000);
        network.unplug();
        network.deconfigure('athos');
        network.plug('porthos');
        network.configure('porthos');
        network.redirect('athos', 'porthos');
        retained.retain(old);
        network.markFor('athos', MARK);
      });

      after(() => {
        connection.close();
        retained.releaseAll();
        network.markFor('athos', undefined);
        network.redirectNoMore('athos', 'porthos');
        network.deconfigure('porthos');
        network.unplug();
        network.plug('athos');
      });

      it('its socket sends through the interface, and receives what is marked', async () => {
        const capture = new Capture('eth0');
        assert.ok(await connection.works('marked'));
        const sent = capture.packets().filter((p) => p.source === old && p.payload.length > 0);
        assert.notEqual(sent.length, 0);
        capture.close();
      });

      it('it takes new connections only if they are marked', () => {
        assert.ok(network.connects('aramis', old, 22));
        network.markFor('athos', undefined);
        assert.ok(!network.connects('aramis', old, 22));
        network.markFor('athos', MARK);
      });

      it('an unmarked packet of the connection itself is still let in', async () => {
        // TCP early demultiplexing takes the route from the socket: the boundary must drop it.
        network.markFor('athos', undefined);
        assert.ok(await connection.works('unmarked'));
        network.markFor('athos', MARK);
      });

      it('nobody on the link is told that it is here', () => {
        network.run('porthos', 'ip', 'route', 'replace', old, 'dev', 'br0');
        network.connects('porthos', old, 22);
        const neighbour = network.run('porthos', 'ip', 'neigh', 'show', old, 'dev', 'br0');
        assert.match(neighbour, /INCOMPLETE|FAILED/);
        assert.doesNotMatch(neighbour, /lladdr/);
      });

      it('an interface may have it again before it is released, and its socket goes on', async () => {
        network.markFor('athos', undefined);
        network.redirectNoMore('athos', 'porthos');
        network.deconfigure('porthos');
        network.unplug();
        network.plug('athos');
        network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.accept_dad=1');
        network.configure('athos');
        assert.ok(await connection.works('back'));
        retained.release(old);
        assert.ok(await connection.works('released'));
        network.deconfigure('athos');
        network.plug('porthos');
        network.configure('porthos');
        network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.accept_dad=0');
        assert.deepEqual(connection.errors, []);
      });
    });
  }
});
