/*
 * Masquerading forgets its connections when the address that it has lent is removed, tells so, and
 * goes on with what is put back (link/conntrack.ts).
 *
 *   vm ──── athos (masquerades behind its uplink's address) ──── router ──── aramis (echo)
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { Poller } from '../../src/libc/poller.js';
import {
  forgetTracked,
  NETLINK_NETFILTER,
  restoreTranslation,
  type Translation,
} from '../../src/link/conntrack.js';
import { ConntrackMonitor } from '../../src/link/conntrack-monitor.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { address } from '../../src/wire/address.js';
import { FAR, Network, vmAddress } from '../link/network.js';
import { Connection } from './connection.js';

const PORT = 7000;
const network = new Network();
after(() => network.close());

const UPLINK = {
  4: { address: address('10.0.1.2'), length: 30, router: '10.0.1.1' },
  6: { address: address('2001:db8:f1::2'), length: 64, router: '2001:db8:f1::1' },
} as const;

describe('masquerading', () => {
  const forgotten: Translation[] = [];
  const poller = new Poller();
  let monitor: ConntrackMonitor;
  let netlink: Netlink;

  before(async () => {
    network.plug('athos');
    network.configure('athos');
    await network.echo('aramis', PORT);
    const post = 'type nat hook postrouting priority srcnat;';
    const rule = 'oifname "up0" meta l4proto tcp masquerade fully-random';
    network.run('athos', 'nft', `add table inet t; add chain inet t c { ${post} }`);
    network.run('athos', 'nft', `add rule inet t c ${rule}`);
    monitor = network.inside('athos', () => {
      return new ConntrackMonitor(poller, (translation) => forgotten.push(translation));
    });
    netlink = new Netlink();
    // Its socket is opened with the first request.
    network.inside('athos', () => {
      assert.throws(() => ask(forgetTracked(UNKNOWN)), { code: 'ENOENT' });
    });
  });

  after(() => {
    monitor.close();
    netlink.close();
    poller.close();
  });

  const ask = (message: Uint8Array) =>
    netlink.request(message, 'change what is tracked', NETLINK_NETFILTER);
  const UNKNOWN = {
    ...{ source: address('192.0.2.77'), sourcePort: 1 },
    ...{ destination: address('192.0.2.78'), destinationPort: 2 },
  };

  for (const family of [4, 6] as const) {
    const { address: lent, length, router } = UPLINK[family];
    const remove = () => network.ip('athos', [`addr del ${lent}/${length} dev up0`]);
    const putBack = () => {
      const nodad = family === 6 ? ' nodad' : '';
      network.ip('athos', [
        `addr add ${lent}/${length} dev up0${nodad}`,
        `route replace default via ${router} dev up0`,
      ]);
    };
    const open = async () => {
      await network.reaches(family, PORT);
      const connection = await Connection.open(vmAddress('athos', family), FAR[family], PORT);
      await says(connection, 'before');
      return connection;
    };
    const says = async (connection: Connection, text: string) =>
      assert.ok(await connection.works(text), text);
    const forgets = (connection: Connection) =>
      until('the notification', () =>
        forgotten.find(({ original }) => original.sourcePort === connection.socket.localPort),
      );

    it(`IPv${family}: forgotten with the address, and told`, async () => {
      const connection = await open();
      remove();
      const { original, reply } = await forgets(connection);
      putBack();
      assert.equal(original.source, connection.local);
      assert.equal(original.destination, FAR[family]);
      assert.equal(reply.destination, lent);
      assert.equal(reply.source, FAR[family]);
      connection.socket.destroy();
    });

    it(`IPv${family}: put back, it is translated as before`, async () => {
      const connection = await open();
      remove();
      const translation = await forgets(connection);
      ask(restoreTranslation(translation));
      assert.throws(() => ask(restoreTranslation(translation)), { code: 'EEXIST' });
      putBack();
      await says(connection, 'after');
      const seen = network.run('aramis', 'ss', '-Htn', `sport = :${PORT}`);
      assert.ok(seen.includes(`:${translation.reply.destinationPort}`), seen);
      connection.socket.destroy();
    });

    it(`IPv${family}: what was tracked meanwhile under the same name can be forgotten`, async () => {
      const connection = await open();
      remove();
      const translation = await forgets(connection);
      ask(restoreTranslation(translation));
      ask(forgetTracked(translation.original));
      ask(restoreTranslation(translation));
      putBack();
      await says(connection, 'after');
      connection.socket.destroy();
    });
  }
});
