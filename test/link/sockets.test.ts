/* Listing and ending TCP sockets of all kinds (topology: network.ts). */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { isTracked } from '../../src/link/conntrack-look-up.js';
import { destroySocket, hasSocket, progressOf, tcpSockets } from '../../src/link/sockets.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { address } from '../../src/wire/address.js';
import { type Tuple, tupleReverse } from '../../src/wire/tuple.js';
import { Network } from './network.js';

const network = new Network();
const netlink = new Netlink();

describe('TCP sockets', () => {
  let server: Server;
  let port: number;
  const accepted: Socket[] = [];

  before(async () => {
    // Dual stack: what comes over IPv4 is an IPv6 socket with a mapped address.
    server = createServer((socket) => {
      socket.on('error', () => undefined);
      accepted.push(socket);
    });
    server.listen(0, '::');
    await once(server, 'listening');
    port = (server.address() as { port: number }).port;
  });

  after(() => {
    for (const socket of accepted) socket.destroy();
    server.close();
    netlink.close();
    network.close();
  });

  it('a listening socket is listed', () => {
    const listening = tcpSockets(netlink).filter(({ state }) => state === 'listen');
    assert.deepEqual(
      listening.map(({ tuple }) => tuple),
      [{ local: '::', localPort: port, remote: '::', remotePort: 0 }],
    );
  });

  for (const host of ['127.0.0.1', '::1']) {
    it(`${host}: whether a tuple has a socket; a listening one is not it`, async () => {
      // conntrack looks at what a rule asks it to.
      const rules = [
        'add table inet t',
        'add chain inet t c { type filter hook output priority 0; }',
      ];
      network.run('vm', 'nft', [...rules, 'add rule inet t c ct state new counter'].join('; '));
      const client = connect(port, host);
      await Promise.all([once(client, 'connect'), once(server, 'connection')]);
      const local = address(host);
      const theirs: Tuple = {
        ...{ local, localPort: port, remote: local, remotePort: client.localPort ?? 0 },
      };
      const unused = { ...theirs, remotePort: theirs.remotePort ^ 1 };
      assert.equal(hasSocket(netlink, theirs), true);
      assert.equal(hasSocket(netlink, unused), false);
      assert.equal(isTracked(netlink, theirs), true);
      assert.equal(isTracked(netlink, tupleReverse(theirs)), true);
      assert.equal(isTracked(netlink, unused), false);
      destroySocket(netlink, theirs);
      client.on('error', () => undefined).destroy();
      network.run('vm', 'nft', 'delete table inet t');
    });

    it(`${host}: both ends are listed and can be ended`, async () => {
      const client = connect(port, host);
      await Promise.all([once(client, 'connect'), once(server, 'connection')]);
      const local = address(host);
      const ours: Tuple = {
        ...{ local, localPort: client.localPort ?? 0, remote: local, remotePort: port },
      };
      const theirs: Tuple = {
        ...{ local, localPort: port, remote: local, remotePort: ours.localPort },
      };
      const established = tcpSockets(netlink).filter(({ state }) => state === 'established');
      const byPort = (a: Tuple, b: Tuple) => a.localPort - b.localPort;
      assert.deepEqual(
        established.map(({ tuple }) => tuple).sort(byPort),
        [ours, theirs].sort(byPort),
      );

      // More than one in flight: test/kernel/stand-in.test.ts.
      assert.deepEqual(progressOf(netlink, ours), { unacked: 0, retransmits: 0 });

      // The mapped one, for IPv4: the accepted end.
      const end = accepted.at(-1);
      assert.ok(end);
      const told = once(end, 'error');
      const reset = once(client, 'error');
      assert.equal(destroySocket(netlink, theirs), true);
      const [error] = (await told) as [NodeJS.ErrnoException];
      assert.equal(error.code, 'ECONNABORTED');
      assert.equal(((await reset)[0] as NodeJS.ErrnoException).code, 'ECONNRESET');
    });
  }

  it('one that does not exist is not ended', () => {
    for (const host of ['127.0.0.1', '::1']) {
      const local = address(host);
      const tuple = { local, localPort: 1, remote: local, remotePort: 2 };
      assert.equal(destroySocket(netlink, tuple), false);
      assert.equal(progressOf(netlink, tuple), undefined);
    }
  });
});
