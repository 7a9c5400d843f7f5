/*
 * BIRD announces connected routes (protocol direct), as routers and hosts with service addresses have it
 * do: an address that is kept for flows is none of them (topology: network.ts).
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { RetainedAddresses } from '../../src/link/retained-kernel.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { address } from '../../src/wire/address.js';
import { Network } from './network.js';

const CONFIGURATION = `
router id 192.0.2.10;
protocol device { scan time 1; }
protocol direct { ipv4; ipv6; }
`;

const network = new Network();
const netlink = new Netlink();
after(() => {
  netlink.close();
  network.close();
});

test('a service address on lo is announced, retained addresses are not', async () => {
  const retained = new RetainedAddresses(netlink, {
    ...{ table: 0x5449, interfaces: () => ['eth0'], forwards: () => false },
  });
  retained.keep([address('198.51.100.9'), address('2001:db8:99::9')]);
  network.ip('vm', ['addr add 203.0.113.80/32 dev lo', 'addr add 2001:db8:80::80/128 dev lo']);
  const file = (name: string) => join(network.directory, name);
  writeFileSync(file('bird.conf'), CONFIGURATION);
  network.start('vm', 'bird', '-f', '-c', file('bird.conf'), '-s', file('bird.ctl'));
  const routes = () => {
    try {
      return network.run('vm', 'birdc', '-s', file('bird.ctl'), 'show', 'route');
    } catch {
      return ''; // not up yet
    }
  };
  await until('the service addresses', () =>
    ['203.0.113.80/32', '2001:db8:80::80/128'].every((prefix) => routes().includes(prefix)),
  );
  // Later ones as well, which it hears of.
  retained.keep([address('198.51.100.9'), address('198.51.100.10')]);
  network.ip('vm', ['addr add 203.0.113.81/32 dev lo']);
  await until('the next service address', () => routes().includes('203.0.113.81/32'));
  assert.doesNotMatch(routes(), /198\.51\.100|2001:db8:99|127\./);
});
