/*
 * An address that no interface has any more, kept as src/link/retained.ts does (topology:
 * ../link/network.ts).
 *
 * The vm has moved from athos to porthos.  The router sends what is for its old address after
 * it, as if a boundary had translated it.  What comes in by an interface with a boundary is local,
 * whatever a firewall writes on it; what comes in by others, and what this machine sends, is not.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { RawSender } from '../../src/libc/raw.js';
import { RetainedAddresses } from '../../src/link/retained-kernel.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { FAR, Network, vmAddress } from '../link/network.js';
import { Capture } from './capture.js';
import { Connection } from './connection.js';

const TABLE = 0x5449;

/* What VPNs and balancers do: a mark is everybody's. */
const FIREWALL = [
  'add table inet marks',
  'add chain inet marks in { type filter hook prerouting priority mangle; }',
  'add rule inet marks in meta mark set ct mark',
  'add chain inet marks out { type route hook output priority mangle; }',
  'add rule inet marks out meta mark set 0x10000',
];
const STRICT = ['net.ipv4.conf.all.rp_filter=1', 'net.ipv4.conf.all.src_valid_mark=1'];
const LOOSE = ['net.ipv4.conf.all.rp_filter=0', 'net.ipv4.conf.all.src_valid_mark=0'];

const INSIDE = { 4: '10.77.0.1/24', 6: '2001:db8:77::1/64' } as const;

const network = new Network();
const netlink = new Netlink();
after(() => {
  netlink.close();
  network.close();
});

describe('a retained address', () => {
  let isGateway = false;
  const retained = new RetainedAddresses(netlink, {
    ...{ table: TABLE, interfaces: () => ['eth0'], forwards: () => isGateway },
  });
  const raw = new RawSender();
  after(() => raw.close());
  const way = (...what: string[]) => network.run('vm', 'ip', 'route', 'get', ...what);

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
        network.ip('vm', ['link add in0 type veth peer name in1', 'link set in0 up']);
        network.ip('vm', [`addr add ${INSIDE[family]} dev in0`]);
        network.run('vm', 'nft', FIREWALL.join('; '));
        retained.keep([old]);
      });

      after(() => {
        connection.close();
        retained.keep([]);
        network.run('vm', 'nft', 'delete table inet marks');
        network.ip('vm', ['link del in0']);
        network.redirectNoMore('athos', 'porthos');
        network.deconfigure('porthos');
        network.unplug();
        network.plug('athos');
      });

      it('its socket sends through the interface, and receives', async () => {
        const capture = new Capture('eth0');
        assert.ok(await connection.works('kept'));
        const sent = capture.packets().filter((p) => p.source === old && p.payload.length > 0);
        assert.notEqual(sent.length, 0);
        capture.close();
      });

      it('with strict source validation, by marks or not', async () => {
        network.run('vm', 'sysctl', '-qw', ...STRICT);
        assert.ok(await connection.works('strict'));
        assert.ok(network.connects('aramis', old, 22), 'not only what has a socket already');
        network.run('vm', 'sysctl', '-qw', ...LOOSE);
      });

      it('it is local for what comes in there, and for nothing else', () => {
        const forwarding = ['net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'];
        network.run('vm', 'sysctl', '-qw', ...forwarding);
        const inside = INSIDE[family].replace(/1\/.*/, '2');
        const [icmp, other] = family === 4 ? ['icmp', '198.18.0.1'] : ['58', '2001:db8:99::1'];
        const [comesIn, tcp] = [
          ['from', FAR[family], 'iif', 'eth0'],
          ['ipproto', 'tcp'],
        ];
        assert.match(way(old, ...comesIn, ...tcp), /^local /);
        assert.match(way(old, ...comesIn, 'ipproto', icmp), /^local /);
        assert.match(way(old, ...comesIn, 'ipproto', 'udp'), /dev eth0/);
        assert.match(way(old, ...comesIn), /dev eth0/, 'a request for its hardware address');
        assert.match(way(other, ...comesIn, ...tcp), /dev eth0/, 'nor is the default of its table');
        assert.doesNotMatch(way(old, 'from', inside, 'iif', 'in0', ...tcp), /^local/);
        assert.match(way(old, 'from', inside, 'iif', 'in0', ...tcp), /dev eth0/);
        assert.match(way(old), /dev eth0/);
        assert.match(way(old, 'mark', '0x5449'), /dev eth0/);
        assert.match(way(old, 'oif', 'lo'), /^local /);
        network.run('vm', 'sysctl', '-qw', ...forwarding.map((each) => each.replace('=1', '=0')));
      });

      it('the rule of an interface outlives it, and is of the next one with its name', () => {
        const by = new RetainedAddresses(netlink, {
          ...{ table: TABLE, interfaces: () => ['eth0', 'dock0'], forwards: () => false },
        });
        by.keep([old]);
        const add = ['link add dock0 type veth peer name dock1', 'link set dock0 up'];
        const asked = [old, 'from', FAR[family], 'iif', 'dock0', 'ipproto', 'tcp'];
        for (const _ of ['first', 'again']) {
          network.ip('vm', add);
          assert.match(way(...asked), /^local /);
          network.ip('vm', ['link del dock0']);
        }
        retained.keep([old]);
      });

      it('on a gateway, for raw packets that are bound to nothing as well', () => {
        isGateway = true;
        retained.keep([old]);
        // One that changes marks on output has them routed again, where only NAT leads on.
        network.run('vm', 'nft', 'flush chain inet marks out');
        const capture = new Capture('lo');
        raw.toKernel(connection.fromPeer(connection.position().sndUna));
        assert.ok(capture.packets().some((packet) => packet.destination === old));
        capture.close();
        assert.match(way(old, 'ipproto', 'tcp'), /dev eth0/);
        isGateway = false;
        retained.keep([old]);
      });

      it('nobody on the link is told that it is here', () => {
        network.run('porthos', 'ip', 'route', 'replace', old, 'dev', 'br0');
        network.connects('porthos', old, 22);
        const neighbour = network.run('porthos', 'ip', 'neigh', 'show', old, 'dev', 'br0');
        assert.match(neighbour, /INCOMPLETE|FAILED/);
        assert.doesNotMatch(neighbour, /lladdr/);
      });

      it('an interface may have it again before it is released, and its socket goes on', async () => {
        network.redirectNoMore('athos', 'porthos');
        network.deconfigure('porthos');
        network.unplug();
        network.plug('athos');
        network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.accept_dad=1');
        network.configure('athos');
        assert.ok(await connection.works('back'));
        retained.keep([]);
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
