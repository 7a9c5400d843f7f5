/* Where the kernel would send from (topology: network.ts). */
import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { routeTo, routeType } from '../../src/link/route.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { address } from '../../src/wire/address.js';
import { FAR, Network, vmAddress } from './network.js';

const network = new Network();
network.plug('athos');
const netlink = new Netlink();
after(() => {
  netlink.close();
  network.close();
});

function unconfigure(): void {
  network.ip('vm', ['addr flush dev eth0 scope global', 'route flush table main']);
  network.ip('vm', ['route flush table main'], 6);
}

describe('routeType', () => {
  it("an address of this machine, another's, everybody's, nobody's", () => {
    network.configure('athos');
    const types = ([a, is]: readonly [string, string | undefined]) =>
      assert.equal(routeType(netlink, address(a)), is, a);
    [
      ...[[vmAddress('athos', 4), 'local'] as const, [vmAddress('athos', 6), 'local'] as const],
      ...[[FAR[4], 'unicast'] as const, [FAR[6], 'unicast'] as const],
      ...[['192.0.2.255', 'broadcast'] as const, ['224.0.0.251', 'multicast'] as const],
      ['127.0.0.1', 'local'] as const,
    ].forEach(types);
    unconfigure();
    assert.equal(routeType(netlink, FAR[4]), undefined);
  });
});

describe('routeTo', () => {
  for (const family of [4, 6] as const) {
    const gateway = family === 4 ? '192.0.2.1' : '2001:db8:1::1';

    it(`IPv${family}: no address, no route: undefined`, () => {
      assert.equal(routeTo(netlink, FAR[family]), undefined);
    });

    it(`IPv${family}: source, interface and gateway`, () => {
      network.configure('athos');
      assert.deepEqual(routeTo(netlink, FAR[family]), {
        source: vmAddress('athos', family),
        interface: 'eth0',
        gateway: address(gateway),
      });
    });

    it(`IPv${family}: no gateway on the link`, () => {
      assert.deepEqual(routeTo(netlink, address(gateway)), {
        source: vmAddress('athos', family),
        interface: 'eth0',
      });
    });

    for (const type of ['unreachable', 'blackhole', 'prohibit']) {
      it(`IPv${family}: ${type}: undefined`, () => {
        network.ip('vm', [`route add ${type} ${FAR[family]}`], family);
        assert.equal(routeTo(netlink, FAR[family]), undefined);
        network.ip('vm', [`route del ${type} ${FAR[family]}`], family);
      });
    }

    it(`IPv${family}: by the mark`, () => {
      const add = ['rule add fwmark 7 lookup 77', 'route add unreachable default table 77'];
      network.ip('vm', add, family);
      assert.equal(routeTo(netlink, FAR[family], { mark: 7 }), undefined);
      assert.notEqual(routeTo(netlink, FAR[family], { mark: 8 }), undefined);
      network.ip('vm', ['rule del fwmark 7', 'route flush table 77'], family);
    });

    it(`IPv${family}: gone again: undefined`, () => {
      unconfigure();
      assert.equal(routeTo(netlink, FAR[family]), undefined);
    });
  }

  for (const family of [4, 6] as const) {
    it(`IPv${family}: by the source, whose rule names a table, and by the interface`, () => {
      const [near, other] = [vmAddress('athos', family), vmAddress('porthos', family)];
      const gateway = family === 4 ? '198.51.100.1' : '2001:db8:2::1';
      const length = family === 4 ? '/24' : '/64 nodad';
      const byRule = { source: other, interface: 'eth1', gateway: address(gateway) };
      network.ip('vm', ['link add eth1 type veth peer name far1', 'link set far1 up']);
      network.ip('vm', ['link set eth1 up', `addr add ${near}${length} dev eth0`]);
      network.ip(
        'vm',
        [`addr add ${other}${length} dev eth1`, `rule add from ${other} lookup 77`],
        family,
      );
      network.ip('vm', [`route add default via ${gateway} dev eth1 table 77`], family);
      assert.equal(routeTo(netlink, FAR[family]), undefined, 'nothing in main');
      assert.equal(routeTo(netlink, FAR[family], { from: near }), undefined);
      assert.deepEqual(routeTo(netlink, FAR[family], { from: other }), byRule);
      assert.deepEqual(routeTo(netlink, FAR[family], { from: other, by: 'eth1' }), byRule);
      assert.equal(routeTo(netlink, FAR[family], { from: near, by: 'eth0' }), undefined);
      assert.equal(routeTo(netlink, FAR[family], { by: 'eth9' }), undefined, 'no such interface');
      network.ip('vm', [`route add default via ${gateway} dev eth1`], family);
      assert.deepEqual(routeTo(netlink, FAR[family], { by: 'eth1' }), byRule);
      network.ip('vm', ['link del eth1', `rule del from ${other} lookup 77`], family);
      unconfigure();
    });
  }

  it('an IPv4 route with an IPv6 gateway', () => {
    const route = 'route add default via inet6 fe80::1 dev eth0';
    network.ip('vm', ['addr add 192.0.2.10/32 dev eth0', route], 4);
    assert.equal(routeTo(netlink, FAR[4])?.gateway, 'fe80::1');
    unconfigure();
  });

  it('while an IPv6 address is tentative there is no route; then there is', async () => {
    network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.accept_dad=1');
    network.ip('vm', [
      'addr add fe80::2/64 dev eth0 nodad',
      'addr add 2001:db8:1::10/64 dev eth0',
      'route add default via 2001:db8:1::1 dev eth0',
    ]);
    assert.equal(routeTo(netlink, FAR[6]), undefined);
    await until('the route', () => routeTo(netlink, FAR[6])?.source === '2001:db8:1::10');
  });
});
