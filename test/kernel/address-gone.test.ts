/*
 * A socket whose address is taken away (topology: ../link/network.ts): it lives on, its program
 * sees no error, nothing is sent; and what is different if the address is retained.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { RetainedAddresses } from '../../src/link/retained-kernel.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { FAR, Network, vmAddress } from '../link/network.js';
import { Capture } from './capture.js';
import { Connection } from './connection.js';

const TABLE = 0x5449;
const ESTABLISHED = 1;
const ENETUNREACH = 101;
const BLACK_MS = 1500;

const network = new Network();
const netlink = new Netlink();
after(() => {
  netlink.close();
  network.close();
});

describe('a socket whose address is gone', () => {
  const retained = new RetainedAddresses(netlink, {
    ...{ table: TABLE, interfaces: () => ['eth0'], forwards: () => false },
  });
  let connection: Connection;

  before(async () => {
    await network.echo('aramis', 7000);
    network.plug('athos');
  });

  beforeEach(() => network.configure('athos'));

  afterEach(() => {
    connection.close();
    retained.keep([]);
    network.run('vm', 'sysctl', '-qw', 'net.ipv4.ip_forward=0', 'net.ipv6.conf.all.forwarding=0');
    network.ip('vm', ['addr flush dev eth0 scope global']);
  });

  /** Writes every 50 ms; the errors that a program could see meanwhile. */
  async function writeFor(ms: number): Promise<number[]> {
    const seen: number[] = [];
    for (const end = performance.now() + ms; performance.now() < end; await sleep(50)) {
      connection.write('x');
      const error = connection.error();
      if (error !== 0) seen.push(error);
    }
    return seen;
  }

  for (const family of [4, 6] as const) {
    const local = vmAddress('athos', family);

    const start = async () => {
      await network.reaches(family, 7000);
      connection = await Connection.open(local, FAR[family], 7000);
      assert.ok(await connection.works('before'));
    };

    it(`IPv${family}: stays established, takes data, and sends nothing`, async () => {
      await start();
      network.deconfigure('athos');
      const capture = new Capture('eth0');
      await writeFor(500);
      assert.equal(connection.info().state, ESTABLISHED);
      assert.deepEqual(connection.errors, []);
      assert.deepEqual(capture.packets(), []);
      capture.close();
    });

    it(`IPv${family}: without any route, new data stays in the zero-window probe timer`, async () => {
      await start();
      network.deconfigure('athos');
      await writeFor(BLACK_MS);
      const { unacked, probes, backoff } = connection.info();
      assert.equal(unacked, 0);
      assert.ok(probes >= 2 && backoff >= 2);
    });

    it(`IPv${family}: retained, it looks sent and no error is seen`, async () => {
      await start();
      network.deconfigure('athos');
      retained.keep([local]);
      assert.deepEqual(await writeFor(BLACK_MS), []);
      const { unacked, retransmits, probes } = connection.info();
      assert.notEqual(unacked, 0);
      assert.ok(retransmits >= 2);
      assert.equal(probes, 0);
    });

    it(`IPv${family}: retained on a host that forwards, nothing goes round`, async () => {
      network.run('vm', 'sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
      await start();
      network.deconfigure('athos');
      retained.keep([local]);
      const capture = new Capture('lo');
      assert.deepEqual(await writeFor(BLACK_MS), []);
      // A packet that goes round would be seen 64 times.
      assert.ok(capture.packets().length < 40);
      capture.close();
    });

    it(`IPv${family}: between its removal and its retention no error is seen either`, async () => {
      await start();
      network.deconfigure('athos');
      const seen = await writeFor(100);
      retained.keep([local]);
      assert.deepEqual(await writeFor(200), []);
      assert.deepEqual(connection.errors, []);
      // IPv6 shows it to whoever asks for SO_ERROR; write() and poll() do not.
      assert.ok(seen.every((error) => family === 6 && error === ENETUNREACH));
    });
  }

  it('IPv4: ip_nonlocal_bind does not help', async () => {
    connection = await Connection.open(vmAddress('athos', 4), FAR[4], 7000);
    const settings = ['net.ipv4.ip_nonlocal_bind', 'net.ipv4.conf.eth0.promote_secondaries'];
    network.run('vm', 'sysctl', '-qw', ...settings.map((name) => `${name}=1`));
    network.ip('vm', ['addr add 192.0.2.77/24 dev eth0', 'addr del 192.0.2.10/24 dev eth0']);
    network.ip('vm', ['route replace default via 192.0.2.1']);
    const capture = new Capture('eth0');
    await writeFor(500);
    assert.deepEqual(capture.packets(), []);
    capture.close();
    network.run('vm', 'sysctl', '-qw', ...settings.map((name) => `${name}=0`));
  });

  it('IPv6: with a route left, it goes on sending from an address that it has not', async () => {
    connection = await Connection.open(vmAddress('athos', 6), FAR[6], 7000);
    network.ip('vm', [`addr del ${vmAddress('athos', 6)}/64 dev eth0`]);
    const capture = new Capture('eth0');
    await writeFor(300);
    assert.notEqual(capture.packets().length, 0);
    capture.close();
  });
});
