/*
 * A stranger at athos has the vm's old addresses, which the vm, at porthos now, has retained
 * (topology: ../link/network.ts): they can talk to each other, whatever the source validation.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { RetainedAddresses } from '../../src/link/retained-kernel.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { Network, vmAddress } from '../link/network.js';

const network = new Network();
const netlink = new Netlink();
after(() => {
  netlink.close();
  network.close();
});

describe('a stranger with a retained address', () => {
  before(async () => {
    const retained = new RetainedAddresses(netlink, {
      ...{ table: 0x5449, interfaces: () => ['eth0'], forwards: () => false },
    });
    network.plug('porthos');
    network.configure('porthos');
    network.plugStranger('athos');
    retained.keep([vmAddress('athos', 4), vmAddress('athos', 6)]);
    await network.echo('vm', 22);
    await network.echo('stranger', 2222);
  });

  for (const family of [4, 6] as const) {
    const shared = vmAddress('athos', family);
    const here = vmAddress('porthos', family);

    for (const rpFilter of [0, 1, 2]) {
      it(`IPv${family}, rp_filter ${rpFilter}: connects to us, and we to it`, () => {
        for (const name of ['all', 'eth0']) {
          network.run('vm', 'sysctl', '-qw', `net.ipv4.conf.${name}.rp_filter=${rpFilter}`);
        }
        assert.ok(network.connects('vm', shared, 2222));
        assert.ok(network.connects('stranger', here, 22));
      });
    }

    it(`IPv${family}: neither, were the address in table local`, () => {
      const route = `local ${shared} dev lo table local`;
      network.ip('vm', [`route add ${route}`], family);
      assert.ok(!network.connects('vm', shared, 2222));
      assert.ok(!network.connects('stranger', here, 22));
      network.ip('vm', [`route del ${route}`], family);
    });
  }
});
