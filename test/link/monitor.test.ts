/* What the monitor sees when things happen to a real interface (topology: network.ts). */
import assert from 'node:assert/strict';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { Poller } from '../../src/libc/poller.js';
import { type LinkChange, LinkMonitor } from '../../src/link/monitor.js';
import { address as canonical } from '../../src/wire/address.js';
import { Network } from './network.js';

const network = new Network();
network.plug('athos');
after(() => network.close());

describe('link monitor', () => {
  let poller: Poller;
  let monitor: LinkMonitor;
  let seen: LinkChange[];

  beforeEach(async () => {
    await until('the carrier', () => network.run('vm', 'ip', 'link').includes('state UP'));
    poller = new Poller();
    seen = [];
    monitor = new LinkMonitor(poller, (change) => seen.push(change));
  });

  afterEach(() => {
    monitor.close();
    network.ip('vm', ['addr flush dev eth0 scope global']);
  });

  const sees = (expected: LinkChange) =>
    until(JSON.stringify(expected), () =>
      seen.some((change) => JSON.stringify(change) === JSON.stringify(expected)),
    );

  it('knows links and addresses at the start without telling of them', () => {
    assert.deepEqual(
      monitor.links().map((link) => [link.name, link.up, link.carrier, link.ethernet]),
      [
        ['lo', true, true, false],
        ['eth0', true, true, true],
      ],
    );
    assert.equal(monitor.links()[1]?.mtu, 1500);
    assert.deepEqual(seen, []);
  });

  it('sees the carrier go and come', async () => {
    network.unplug();
    await sees({ type: 'carrier', interface: 'eth0', up: false });
    assert.equal(monitor.links()[1]?.carrier, false);
    network.plug('athos');
    await sees({ type: 'carrier', interface: 'eth0', up: true });
  });

  for (const [text, prefixLength] of [
    ['192.0.2.77', 24],
    ['2001:db8:1::77', 64],
  ] as const) {
    it(`sees ${text} come and go`, async () => {
      const address = canonical(text);
      network.ip('vm', [`addr add ${address}/${prefixLength} dev eth0`]);
      await sees({ type: 'address-added', interface: 'eth0', address, prefixLength });
      const known = monitor.addresses().find((a) => a.address === address);
      assert.deepEqual(known, {
        ...{ address, prefixLength, interface: 'eth0' },
        ...{ deprecated: false, tentative: false, dynamic: false },
      });
      network.ip('vm', [`addr del ${address}/${prefixLength} dev eth0`]);
      await sees({ type: 'address-removed', interface: 'eth0', address });
    });
  }

  it('tells of an IPv6 address only once duplicate address detection has passed it', async () => {
    network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.accept_dad=1');
    network.ip('vm', ['addr add 2001:db8:1::78/64 dev eth0']);
    const known = () => monitor.addresses().find((a) => a.address === '2001:db8:1::78');
    await until('the tentative address', () => known()?.tentative === true);
    assert.deepEqual(added(), []);
    await until('the address to be usable', () => added().includes('2001:db8:1::78'));
    assert.equal(known()?.tentative, false);
  });

  const added = (): string[] => seen.flatMap((c) => (c.type === 'address-added' ? c.address : []));

  it('sees a route come, once however many they are', async () => {
    network.ip('vm', ['addr add 192.0.2.77/24 dev eth0']);
    await until('the address', () => added().length === 1);
    seen.length = 0;
    const routes = Array.from({ length: 20 }, (_, i) => `route add 10.${i}.0.0/16 via 192.0.2.1`);
    network.ip('vm', routes);
    await until('a route', () => seen.length > 0);
    assert.deepEqual(seen, [{ type: 'route-changed' }]);
  });

  it('sees a route that makes an address local, and that it goes; not those that the kernel keeps', async () => {
    for (const verb of ['add', 'del']) {
      seen.length = 0;
      network.ip('vm', [`route ${verb} local 10.20.0.20 dev eth0 proto 66`]);
      await until('the route', () => seen.length > 0);
      assert.deepEqual(seen, [{ type: 'route-changed', local: true }]);
    }
    seen.length = 0;
    network.ip('vm', ['addr add 10.20.0.21/32 dev lo', 'addr del 10.20.0.21/32 dev lo']);
    await until('the address to go', () => seen.some(({ type }) => type === 'address-removed'));
    assert.ok(!seen.some(({ type }) => type === 'route-changed'));
  });

  it('sees that something of ours is removed, and that a rule of others changes the routes', async () => {
    const ours: [string, string][] = [
      ['rule add pref 99 iif eth0 lookup 77 protocol 84', 'rule del pref 99'],
      ['-6 rule add pref 99 iif eth0 lookup 77 protocol 84', '-6 rule del pref 99'],
      ['route add local 10.9.9.9 dev lo table 77 proto 84', 'route flush table 77'],
      ['addr add 10.9.9.9 peer 127.84.73.1/8 dev lo scope host', 'addr flush dev lo to 10.9.9.9'],
    ];
    const ip = (line: string) => network.run('vm', 'ip', ...line.split(' '));
    for (const [add, del] of ours) {
      seen.length = 0;
      ip(add);
      ip(del);
      await until('it to be told', () => seen.length > 0);
      assert.deepEqual(seen, [{ type: 'ours-removed' }], del);
    }
    seen.length = 0;
    ip('rule add pref 77 from 10.9.9.9 lookup 77');
    await until('the rule', () => seen.length > 0);
    assert.deepEqual(seen, [{ type: 'route-changed' }]);
  });

  it('misses nothing when the kernel has had to drop notifications', async () => {
    network.ip('vm', ['addr add 192.0.2.77/24 dev eth0', 'addr add 192.0.2.79/24 dev eth0']);
    await until('the addresses', () => added().length === 2);
    seen.length = 0;
    // All in one turn of our event loop, so that nothing is read meanwhile.
    const flood = Array.from(
      { length: 6000 },
      (_, i) => `route add 10.${i >> 8}.${i & 255}.0/24 via 192.0.2.1`,
    );
    network.ip('vm', flood);
    network.ip('vm', ['addr add 192.0.2.78/24 dev eth0', 'addr del 192.0.2.79/24 dev eth0']);
    await until('the new address', () => added().includes('192.0.2.78'));
    assert.deepEqual(
      seen.map((change) => ('address' in change ? [change.type, change.address] : change.type)),
      [
        ...[
          ['address-removed', '192.0.2.79'],
          ['address-added', '192.0.2.78'],
        ],
        ...['route-changed', 'ours-removed'],
      ],
    );
  });

  it('goes on after that', async () => {
    network.ip('vm', ['addr add 192.0.2.80/24 dev eth0']);
    await until('the address', () => added().includes('192.0.2.80'));
  });

  it('leaves nothing open', () => {
    poller.close();
  });
});
