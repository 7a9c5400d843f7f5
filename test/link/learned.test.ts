/* What on an interface is the routers' gift, and so may go when they do; all else is others'. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { interfaceIndex } from '../../src/libc/socket.js';
import { dropLearned, learnedFromRouters } from '../../src/link/learned.js';
import { solicitRouters } from '../../src/link/router-solicitation.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { Network, vmAddress } from './network.js';

const LIFETIME = 'valid_lft 3600 preferred_lft 1800';

describe('what routers have given', () => {
  const network = new Network();
  const netlink = new Netlink();
  const given = vmAddress('athos', 6);
  const show = (what: string) => network.run('vm', 'ip', '-6', what, 'show', 'dev', 'eth0');

  before(async () => {
    await network.dnsmasq('athos');
    network.plug('athos');
    await until('the address of athos', () => show('addr').includes(`${given}/64`));
  });

  after(() => {
    netlink.close();
    network.close();
  });

  it('is told from what DHCPv6, other programs and people have given', () => {
    network.ip('vm', [
      `addr add 2001:db8:6::6/128 dev eth0 nodad ${LIFETIME}`, // as dhclient -6 does
      `addr add 2001:db8:7::7/64 dev eth0 nodad ${LIFETIME}`,
      `addr add 2001:db8:8::8/64 dev eth0 nodad`,
    ]);
    const learned = learnedFromRouters(netlink, interfaceIndex('eth0') ?? 0);
    const dropped = dropLearned(netlink, 'eth0', learned, new Set(['2001:db8:2::/64']));
    assert.deepEqual(dropped, [given]);
    for (const kept of ['2001:db8:6::6/128', '2001:db8:7::7/64', '2001:db8:8::8/64']) {
      assert.ok(show('addr').includes(kept), `${kept} is gone`);
    }
    for (const kept of ['2001:db8:7::/64', '2001:db8:8::/64']) {
      assert.ok(show('route').includes(kept), `the route to ${kept} is gone`);
    }
  });

  it('includes temporary addresses of a prefix of theirs only', async () => {
    network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.use_tempaddr=2');
    network.ip('vm', [`addr add 2001:db8:9::9/64 dev eth0 nodad mngtmpaddr ${LIFETIME}`]);
    solicitRouters(netlink, interfaceIndex('eth0') ?? 0);
    const temporary = () => show('addr').match(/2001:db8:[19]:\S+(?=.*temporary)/g) ?? [];
    await until('temporary addresses', () => temporary().length >= 2);
    const learned = learnedFromRouters(netlink, interfaceIndex('eth0') ?? 0);
    const theirs = learned.addresses.map((a) => a.address);
    for (const text of temporary()) {
      const [bare = ''] = text.split('/');
      const isTheirs = bare.startsWith('2001:db8:1:');
      assert.equal(
        theirs.some((a) => a === bare),
        isTheirs,
        bare,
      );
    }
  });
});
