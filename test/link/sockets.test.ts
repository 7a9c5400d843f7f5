/* Listing and ending TCP sockets of all kinds (topology: network.ts). */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { isTracked, socketOfWire, wireOfSocket } from '../../src/link/conntrack-look-up.js';
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

  for (const host of ['127.0.0.1', '::1']) {
    it(`${host}: the kernel picks those of an address, mapped ones too`, async () => {
      const client = connect(port, host);
      await Promise.all([once(client, 'connect'), once(server, 'connection')]);
      const local = address(host);
      const ports = tcpSockets(netlink, local)
        .filter(({ state }) => state === 'established')
        .map(({ tuple }) => tuple.localPort);
      assert.deepEqual(new Set(ports), new Set([port, client.localPort]));
      assert.deepEqual(tcpSockets(netlink, address(`${host.slice(0, -1)}9`)), []);
      client.on('error', () => undefined).resetAndDestroy();
    });
  }

  it('a transparent socket, and one that is bound to any address, are told apart', async () => {
    const program = `
import signal, socket
kept = []
for option in (19, 15, 0):  # IP_TRANSPARENT, IP_FREEBIND, none
    s = socket.socket()
    if option: s.setsockopt(0, option, 1)
    s.bind(('198.51.100.99' if option else '0.0.0.0', 7100 + option))
    s.listen()
    kept.append(s)
print('ready', flush=True)
signal.pause()`;
    const python = network.start('vm', 'python3', '-c', program);
    assert.ok(python.stdout);
    await once(python.stdout, 'data');
    const found = new Map(tcpSockets(netlink).map((each) => [each.tuple.localPort, each]));
    const told = [19, 15, 0].map((option) => {
      const each = found.get(7100 + option);
      return [each?.transparent, each?.freebind];
    });
    assert.deepEqual(told, [
      [true, false],
      [false, true],
      [false, false],
    ]);
  });

  it('the pair on the other side of our own NAT, from either side', async () => {
    const far = address('10.96.0.10');
    network.run('vm', 'ip', 'addr', 'add', '10.96.0.1/24', 'dev', 'lo');
    const rules = [
      'add table ip t',
      'add chain ip t c { type nat hook output priority -100; }',
      `add rule ip t c ip daddr ${far} tcp dport 80 dnat to 10.96.0.1:${port}`,
    ];
    network.run('vm', 'nft', rules.join('; '));
    const client = connect({ host: far, port: 80, localAddress: '10.96.0.1' });
    await Promise.all([once(client, 'connect'), once(server, 'connection')]);
    const local = address('10.96.0.1');
    const socket: Tuple = {
      ...{ local, localPort: client.localPort ?? 0, remote: far, remotePort: 80 },
    };
    const wire: Tuple = { ...socket, remote: local, remotePort: port };
    assert.deepEqual(wireOfSocket(netlink, socket), wire);
    assert.deepEqual(socketOfWire(netlink, wire), socket);
    assert.equal(wireOfSocket(netlink, { ...socket, localPort: 1 }), undefined);
    client.on('error', () => undefined).resetAndDestroy();
    network.run('vm', 'nft', 'delete table ip t');
  });

  it('one that does not exist is not ended', () => {
    for (const host of ['127.0.0.1', '::1']) {
      const local = address(host);
      const tuple = { local, localPort: 1, remote: local, remotePort: 2 };
      assert.equal(destroySocket(netlink, tuple), false);
      assert.equal(progressOf(netlink, tuple), undefined);
    }
  });
});
