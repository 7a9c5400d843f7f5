/*
 * Stateless autoconfiguration by the kernel, router advertisements by dnsmasq at both sites, and
 * the vm plugged in at the other site (topology: network.ts).
 */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import type { Site } from '../../src/lab/topology.js';
import { until } from '../../src/lab/wait.js';
import { Poller } from '../../src/libc/poller.js';
import { interfaceIndex } from '../../src/libc/socket.js';
import { Autoconfiguration } from '../../src/link/autoconf.js';
import { prefixOf } from '../../src/link/learned.js';
import { type LinkChange, LinkMonitor } from '../../src/link/monitor.js';
import { routerSolicitation, solicitRouters } from '../../src/link/router-solicitation.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { type Address, address } from '../../src/wire/address.js';
import { end, Network, vmAddress } from './network.js';

const network = new Network();
after(() => network.close());

const ip = (...argv: string[]) => network.run('vm', 'ip', '-6', '-o', ...argv);
const addresses = () => ip('addr', 'show', 'dev', 'eth0', 'scope', 'global');
const has = (site: Site) => addresses().includes(vmAddress(site, 6));
const routes = () => ip('route', 'show', 'dev', 'eth0');

/** The link-local address of a site's router, as default routes have it. */
function router(site: Site): string {
  const [, found] = /inet6 (fe80::\S+)\/64/.exec(
    network.run(site, 'ip', '-6', 'addr', 'show', 'dev', 'br0', 'scope', 'link'),
  ) ?? ['', ''];
  return found ?? '';
}

describe('autoconfiguration', () => {
  const netlink = new Netlink();
  let servers: ChildProcess[];
  let poller: Poller;
  let monitor: LinkMonitor;
  let autoconf: Autoconfiguration | undefined;
  let seen: LinkChange[];
  /** What each judgement has dropped. */
  let judged: Address[][];

  before(async () => {
    servers = await Promise.all([network.dnsmasq('athos'), network.dnsmasq('porthos')]);
  });

  after(async () => {
    await Promise.all(servers.map((server) => end(server)));
    netlink.close();
  });

  beforeEach(async () => {
    seen = [];
    judged = [];
    poller = new Poller();
    monitor = new LinkMonitor(poller, (change) => {
      seen.push(change);
      if (change.type !== 'carrier') return;
      if (change.up) autoconf?.carrierUp(change.interface);
      else autoconf?.carrierDown(change.interface);
    });
    autoconf = new Autoconfiguration(netlink, poller, judge);
    network.plug('athos');
    await until('the address of athos', () => has('athos') && told('athos'));
    await until('the first judgement', () => judged.length > 0);
    judged = [];
  });

  function judge(interfaceName: string, dropped: Address[]): void {
    assert.equal(interfaceName, 'eth0');
    judged.push(dropped);
  }

  const told = (site: Site) =>
    seen.some((c) => c.type === 'address-added' && c.address === vmAddress(site, 6));

  afterEach(async () => {
    network.unplug();
    await until('no carrier', () => monitor.links()[1]?.carrier === false);
    autoconf?.close();
    monitor.close();
    network.ip('vm', ['addr flush dev eth0 scope global', 'route flush dev eth0'], 6);
    network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.accept_ra=1');
    network.ip('vm', ['link set eth0 down', 'link set eth0 up']);
  });

  async function move(site: Site): Promise<void> {
    network.unplug();
    await until('no carrier', () => monitor.links()[1]?.carrier === false);
    network.plug(site);
  }

  it('gets an address of the other site at once and forgets the old one', async () => {
    const since = performance.now();
    await move('porthos');
    await until('the address of porthos', () => has('porthos'));
    const tookMs = performance.now() - since;
    assert.ok(tookMs < 1000, `took ${tookMs} ms`);
    await until('the old address to go', () => !has('athos'), 1000);
    assert.deepEqual(judged, [[vmAddress('athos', 6)]]);
    assert.doesNotMatch(routes(), /2001:db8:1::/);
    const defaults = routes()
      .split('\n')
      .filter((line) => line.startsWith('default'));
    assert.deepEqual(
      defaults.map((line) => line.split(' ')[2]),
      [router('porthos')],
    );
    await until('the monitor', () =>
      seen.some((c) => c.type === 'address-removed' && c.address === vmAddress('athos', 6)),
    );
  });

  it('comes back', async () => {
    await move('porthos');
    await until('the address of porthos', () => has('porthos') && !has('athos'));
    await move('athos');
    await until('the address of athos', () => has('athos') && !has('porthos'));
    assert.match(routes(), new RegExp(`default via ${router('athos')} `));
    assert.doesNotMatch(routes(), new RegExp(`default via ${router('porthos')} `));
  });

  it('forgets the old one also if it sees the change late', async () => {
    // All in one turn of our event loop.
    network.unplug();
    network.plug('porthos');
    network.run('vm', 'sleep', '0.1');
    await until('the address of porthos', () => has('porthos'));
    await until('the old address to go', () => !has('athos'), 6000);
    assert.ok(has('porthos'));
  });

  it('keeps everything if the link is the same', async () => {
    const before = [addresses(), routes()].map(withoutLifetimes);
    const lifetimeS = () => Number(/default .*expires (\d+)sec/.exec(routes())?.[1] ?? 0);
    await until('the lifetime to run down', () => lifetimeS() < 1798);
    await move('athos');
    await until('the answer of the router', () => lifetimeS() >= 1798);
    await until('the judgement', () => judged.length > 0, 200);
    // What else there is is judged only later, as there may be more routers.
    await until('the lifetime to run down', () => lifetimeS() < 1795);
    assert.deepEqual([addresses(), routes()].map(withoutLifetimes), before);
    assert.deepEqual(judged, [[]]);
    assert.deepEqual(
      seen.filter((change) => change.type === 'address-removed'),
      [],
    );
  });

  /** A new one takes over when the kernel has already heard the routers of porthos. */
  async function takeOverLate(): Promise<void> {
    autoconf?.close();
    autoconf = undefined;
    await move('porthos');
    await until('the carrier', () => monitor.links()[1]?.carrier);
    solicitRouters(netlink, interfaceIndex('eth0') ?? 0);
    await until('both addresses', () => has('athos') && has('porthos'));
    judged = [];
    autoconf = new Autoconfiguration(netlink, poller, judge);
    autoconf.carrierDown('eth0');
    autoconf.carrierUp('eth0');
  }

  it('begins late: forgets the old link when its router does not answer', async () => {
    await takeOverLate();
    await until('the old address to go', () => !has('athos'), 1500);
    await until('the judgement', () => judged.length > 1);
    assert.deepEqual(judged, [[], [vmAddress('athos', 6)]]);
    assert.ok(has('porthos'));
    assert.doesNotMatch(routes(), new RegExp(`default via ${router('athos')} `));
  });

  it('begins late: leaves a router that is there the time to advertise itself', async () => {
    // Deprecated: it answers, but porthos's own advertisements do not come from it.
    const other = `${router('athos')}/64 dev br0`;
    network.ip('porthos', [`addr add ${other} nodad preferred_lft 0`]);
    await takeOverLate();
    const since = performance.now();
    await until('the old address to go', () => !has('athos'), 8000);
    const tookMs = performance.now() - since;
    network.ip('porthos', [`addr del ${other}`]);
    assert.ok(tookMs > 3500, `took ${tookMs} ms`);
  });

  it('keeps a default route that the new router has, too', async () => {
    for (const site of ['athos', 'porthos'] as const) {
      network.ip(site, [
        'addr add fe80::1/64 dev br0 nodad',
        `addr del ${router(site)}/64 dev br0`,
      ]);
    }
    await move('porthos');
    await until('the address of porthos', () => has('porthos') && !has('athos'));
    await move('athos');
    await until('the address of athos', () => has('athos') && !has('porthos'));
    assert.equal(routes().match(/default via fe80::1 /g)?.length, 1);
  });

  it('leaves addresses and routes alone that no router has given', async () => {
    network.ip('vm', [
      'addr add 2001:db8:77::1/64 dev eth0 nodad',
      'route add 2001:db8:78::/64 dev eth0',
    ]);
    await move('porthos');
    await until('the address of porthos', () => has('porthos') && !has('athos'));
    assert.match(addresses(), /2001:db8:77::1/);
    assert.match(routes(), /2001:db8:77::\/64/);
    assert.match(routes(), /2001:db8:78::\/64/);
  });

  it('does nothing on an interface of a network manager', async () => {
    network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.accept_ra=0');
    await move('porthos');
    await until('the carrier', () => seen.some((c) => c.type === 'carrier' && c.up));
    network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.accept_ra=1');
    assert.ok(has('athos'));
    assert.ok(!has('porthos'));
  });

  it('does not fail on an interface without IPv6, or one that is gone', () => {
    network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.disable_ipv6=1');
    autoconf?.carrierDown('eth0');
    autoconf?.carrierUp('eth0');
    network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.disable_ipv6=0');
    autoconf?.carrierDown('eth9');
    autoconf?.carrierUp('eth9');
  });
});

const withoutLifetimes = (text: string) =>
  text
    .replace(/(valid_lft|preferred_lft|expires) \S+/g, '')
    .split('\n')
    .sort();

describe('router solicitation', () => {
  it('carries the link-layer address', () => {
    const mac = Uint8Array.of(2, 0, 0, 0, 0, 10);
    assert.equal(
      Buffer.from(routerSolicitation(mac)).toString('hex'),
      '8500000000000000' + '010102000000000a',
    );
  });

  it('leaves it out where there is none', () => {
    const bytes = routerSolicitation(new Uint8Array());
    assert.equal(Buffer.from(bytes).toString('hex'), '8500000000000000');
  });
});

describe('prefix', () => {
  for (const [text, length, prefix] of [
    ['2001:db8:1:2:3:4:5:6', 64, '2001:db8:1:2::/64'],
    ['2001:db8:1:2:3:4:5:6', 60, '2001:db8:1::/60'],
    ['2001:db8:1:2:3:4:5:6', 128, '2001:db8:1:2:3:4:5:6/128'],
    ['2001:db8:1:2:3:4:5:6', 0, '::/0'],
    ['192.0.2.77', 26, '192.0.2.64/26'],
  ] as const) {
    it(`${text}/${length}`, () => assert.equal(prefixOf(address(text), length), prefix));
  }
});
