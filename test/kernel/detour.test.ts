/*
 * The peer has left an address on our own link (topology: ../link/network.ts; the peer is
 * 'stranger' at athos): what a socket that is connected to it sends gets past neighbour resolution
 * by a detour (src/link/detour.ts), at once, and learns the path MTU of the detour.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { plugStranger } from '../../src/lab/topology.js';
import { until } from '../../src/lab/wait.js';
import { RawSender } from '../../src/libc/raw.js';
import { DetourTable } from '../../src/link/detour.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { address } from '../../src/wire/address.js';
import { packetTooBig } from '../../src/wire/icmp.js';
import { Network, vmAddress } from '../link/network.js';
import { Capture } from './capture.js';
import { Connection } from './connection.js';

/* Neighbour discovery gives up after 3 s, and is begun again by the next retransmission. */
const AWAY_MS = [700, 4_000] as const;
const AT_ONCE_MS = 150;
const SEGMENT_BYTES = 1_300;

const PEERS = [
  { family: 4, old: address('192.0.2.50'), gateway: address('192.0.2.1'), mtu: 1000 },
  { family: 6, old: address('2001:db8:1::50'), gateway: address('2001:db8:1::1'), mtu: 1290 },
] as const;

const network = new Network();
const netlink = new Netlink();
after(() => {
  netlink.close();
  network.close();
});

describe('a connection to an address on the link that its owner has left', () => {
  const table = new DetourTable(netlink, { table: 21_578 });
  const raw = new RawSender();

  before(async () => {
    network.plug('athos');
    network.configure('athos');
    plugStranger(network.names, 'athos', PEERS[0].old);
    network.ip('stranger', [`addr add ${PEERS[1].old}/64 dev eth0 nodad`]);
    // What comes by the gateway would be sent on to the link, with a redirect to us.
    for (const { old } of PEERS) network.ip('athos', [`route add blackhole ${old}`]);
    await network.echo('stranger', 7000);
  });

  after(() => {
    table.removeAll();
    raw.close();
  });

  /** Connected; then the peer is gone, and what is sent is stuck for so long. */
  const stuck = async (family: 4 | 6, old: Connection['remote'], awayMs: number) => {
    network.ip('athos', ['link set stranger0 up']);
    network.ip('vm', ['neigh flush dev eth0']);
    await until('the peer', () => network.connects('vm', old, 7000));
    const connection = await Connection.open(vmAddress('athos', family), old, 7000);
    assert.ok(await connection.works('before'));
    network.ip('athos', ['link set stranger0 down']);
    network.ip('vm', ['neigh flush dev eth0']);
    const capture = new Capture('eth0');
    connection.write('x'.repeat(SEGMENT_BYTES));
    await sleep(awayMs);
    const sent = () => capture.packets().filter((p) => p.payload.length > 0);
    assert.equal(sent().length, 0, 'nothing gets past neighbour resolution');
    return { connection, capture, sent };
  };

  const detour = (connection: Connection, gateway: Connection['remote']) => {
    const localPort = connection.socket.localPort ?? 0;
    const flows = [{ localPort, remotePort: 7000 }];
    return table.set(connection.remote, { via: { interface: 'eth0', gateway }, flows });
  };

  for (const { family, old, gateway, mtu } of PEERS) {
    for (const awayMs of AWAY_MS) {
      it(`IPv${family}: sends by the detour at once, after ${awayMs} ms`, async () => {
        const { connection, capture, sent } = await stuck(family, old, awayMs);
        assert.ok(detour(connection, gateway));
        connection.kick(raw, 5);
        await until('a segment on the link', () => sent().length > 0, AT_ONCE_MS);
        connection.close();
        capture.close();
      });
    }

    it(`IPv${family}: learns the path MTU, which is not the stranger's`, async () => {
      const { connection, capture, sent } = await stuck(family, old, AWAY_MS[0]);
      detour(connection, gateway);
      connection.kick(raw, 5);
      await until('a segment on the link', () => sent().length > 0, AT_ONCE_MS);
      const quoted = connection.quoted(connection.position().sndUna);
      raw.toKernel(packetTooBig(quoted, gateway, mtu));
      await until('the path MTU', () => connection.info().pathMtu === mtu, 1000);
      const own = network.run('vm', 'ip', 'route', 'get', old);
      assert.doesNotMatch(own, /mtu/);
      connection.close();
      capture.close();
    });

    it(`IPv${family}: goes to the address itself again without the detour`, async () => {
      const { connection, capture, sent } = await stuck(family, old, AWAY_MS[0]);
      detour(connection, gateway);
      table.set(old, undefined);
      network.ip('athos', ['link set stranger0 up']);
      assert.notEqual(await connection.echoed('x'.repeat(SEGMENT_BYTES), 4000), undefined);
      assert.ok(sent().length > 0);
      connection.close();
      capture.close();
    });
  }
});
