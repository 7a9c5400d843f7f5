/*
 * Announcements of an address to a gateway that has asked for it in vain, or knows another owner
 * (topology: network.ts; the gateway is athos).
 */
import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import {
  AF_INET,
  AF_INET6,
  closeFd,
  inetSockaddr,
  openSocket,
  SOCK_DGRAM,
  sendTo,
} from '../../src/libc/socket.js';
import { Announcer } from '../../src/link/announce.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { type Address, address } from '../../src/wire/address.js';
import { Network, vmAddress } from './network.js';

const PORT = 7001;

/* The kernel asks again after a second. */
const AT_ONCE_MS = 300;

const network = new Network();
const netlink = new Netlink();
const announcer = new Announcer(netlink);
const announce = (name: string, a: Address) => announcer.announce(name, a);
after(() => {
  announcer.close();
  netlink.close();
  network.close();
});

describe('announcement', () => {
  before(() => network.plug('athos'));

  for (const family of [4, 6] as const) {
    const ours = vmAddress('athos', family);
    const bits = family === 4 ? 24 : 64;
    const neighbour = () =>
      network.run('athos', 'ip', `-${family}`, 'neigh', 'show', 'to', ours, 'dev', 'br0');

    const foreign = (state: string) =>
      network.ip('athos', [`neigh replace ${ours} lladdr 02:00:00:00:00:99 dev br0 nud ${state}`]);

    describe(`IPv${family}`, () => {
      let gateway: number;
      let receiver: Socket;
      let arrivedAt: number[];

      before(async () => {
        gateway = network.inside('athos', () =>
          openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0),
        );
        receiver = createSocket(family === 4 ? 'udp4' : 'udp6');
        receiver.on('message', () => arrivedAt.push(performance.now()));
        receiver.bind(PORT);
        await once(receiver, 'listening');
      });

      after(() => {
        closeFd(gateway);
        receiver.close();
      });

      beforeEach(() => {
        arrivedAt = [];
      });

      afterEach(() => {
        network.ip('vm', [`addr del ${ours}/${bits} dev eth0`]);
        network.ip('athos', [`neigh flush to ${ours} dev br0`]);
      });

      const send = () => sendTo(gateway, Buffer.from('waiting'), inetSockaddr(ours, PORT));
      const comeBack = () => network.ip('vm', [`addr add ${ours}/${bits} dev eth0 nodad`]);

      /** How long it took until something had arrived. */
      async function arrival(sinceMs: number, boundMs: number): Promise<number> {
        return (await until('the datagram', () => arrivedAt[0], boundMs)) - sinceMs;
      }

      async function askInVain(): Promise<void> {
        send();
        await until('the question', () => neighbour().includes('INCOMPLETE'));
      }

      it('without it, what the gateway has queued waits until it asks again', async () => {
        await askInVain();
        comeBack();
        const tookMs = await arrival(performance.now(), 2000);
        assert.ok(tookMs > AT_ONCE_MS, `took ${tookMs} ms`);
      });

      it('what the gateway has queued arrives at once', async () => {
        await askInVain();
        comeBack();
        const since = performance.now();
        announce('eth0', ours);
        const tookMs = await arrival(since, 2000);
        assert.ok(tookMs < AT_ONCE_MS, `took ${tookMs} ms`);
      });

      for (const state of ['stale', 'reachable']) {
        it(`a former owner's hardware address, ${state}, is replaced`, async () => {
          foreign(state);
          comeBack();
          announce('eth0', ours);
          await until('the entry', () => neighbour().includes('02:00:00:00:00:0a'), AT_ONCE_MS);
          const since = performance.now();
          send();
          assert.ok((await arrival(since, 2000)) < AT_ONCE_MS);
        });
      }

      it('an entry that was given up does not matter, with or without it', async () => {
        for (const announced of [false, true]) {
          arrivedAt = [];
          network.ip('athos', [`neigh replace ${ours} dev br0 nud failed`]);
          network.ip('vm', [`addr replace ${ours}/${bits} dev eth0 nodad`]);
          if (announced) announce('eth0', ours);
          const since = performance.now();
          send();
          assert.ok((await arrival(since, 2000)) < AT_ONCE_MS);
        }
      });
    });
  }

  it('does nothing where there are no neighbours to tell', () => {
    network.ip('vm', [
      'tuntap add dev tun9 mode tun',
      'link set tun9 up',
      'link add down9 type veth peer name far9',
    ]);
    for (const name of ['lo', 'tun9', 'down9', 'gone9']) {
      for (const family of [4, 6] as const) announce(name, vmAddress('athos', family));
    }
  });

  it('says that the node is a router if it forwards, as neighbours must not forget it', async () => {
    const linkLocal = address('fe80::ff:fe00:a');
    const entry = () => network.run('athos', 'ip', '-6', 'neigh', 'show', 'dev', 'br0');
    const known = () =>
      entry()
        .split('\n')
        .find((line) => line.startsWith(linkLocal)) ?? '';
    network.ip('athos', [`neigh replace ${linkLocal} lladdr 02:00:00:00:00:99 dev br0 nud stale`]);
    network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.forwarding=1');
    announce('eth0', linkLocal);
    await until('a router', () => / 02:00:00:00:00:0a router /.test(known()));
    network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.forwarding=0');
    announce('eth0', linkLocal);
    await until('a host', () => !known().includes('router'));
  });

  it('an address that is perhaps still being checked overrides nobody', async () => {
    const ours = vmAddress('athos', 6);
    const entry = () => network.run('athos', 'ip', '-6', 'neigh', 'show', 'to', ours);
    network.ip('athos', [`neigh replace ${ours} lladdr 02:00:00:00:00:99 dev br0 nud reachable`]);
    network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.optimistic_dad=1');
    announce('eth0', ours);
    // RFC 4861, section 7.2.5: without override, another hardware address makes it stale.
    await until('the entry', () => entry().includes('STALE'));
    assert.match(entry(), /02:00:00:00:00:99/);
    network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.optimistic_dad=0');
    network.ip('athos', [`neigh flush to ${ours} dev br0`]);
  });

  it('fails with the reason where the kernel refuses', () => {
    const program = `
      import { Announcer } from '${new URL('../../src/link/announce.js', import.meta.url)}';
      import { Netlink } from '${new URL('../../src/netlink/netlink.js', import.meta.url)}';
      const announcer = new Announcer(new Netlink());
      try { announcer.announce('eth0', '192.0.2.10'); } catch (e) { console.log(e.name, e.code); }`;
    const node = [process.execPath, '--input-type=module', '--eval', program];
    const told = network.run('vm', 'setpriv', '--bounding-set=-net_raw', ...node);
    assert.equal(told.trim(), 'SystemError EPERM');
  });
});
