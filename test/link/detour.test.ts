/*
 * What a detour leaves in the kernel.  What that is good for: test/kernel/detour.test.ts.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { SystemError } from '../../src/libc/errno.js';
import { type Detour, DetourTable } from '../../src/link/detour.js';
import { RetainedAddresses } from '../../src/link/retained-kernel.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { address } from '../../src/wire/address.js';
import { Network } from './network.js';

const TABLE = 21_578;

const network = new Network();
const netlink = new Netlink();
after(() => {
  netlink.close();
  network.close();
});

const ip = (what: string) => network.run('vm', 'ip', ...what.split(' ')).trim();

/** Everything that could be left behind. */
const everything = () =>
  ['-4 rule', '-6 rule', '-4 route show table all', '-6 route show table all']
    .map(ip)
    .join('\n--\n');

const flows = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ localPort: 40_000 + i, remotePort: 22 }));

const FAMILIES = [
  { family: 4, old: address('192.0.2.50'), gateway: address('192.0.2.1'), rules: 3 },
  { family: 6, old: address('2001:db8:1::50'), gateway: address('fe80::1'), rules: 0 },
] as const;

describe('a detour', () => {
  const table = new DetourTable(netlink, { table: TABLE, flowsMax: 4 });
  let bare: string;

  before(async () => {
    network.plug('athos');
    network.configure('athos');
    // What the kernel itself still adds when a link comes up.
    await until('the link-local address', () => ip('-6 addr show dev eth0').includes('fe80::'));
    await until('its routes', () => ip('-6 route show table local').includes('fe80::'));
    bare = everything();
  });

  afterEach(() => table.removeAll());

  for (const { family, old, gateway, rules } of FAMILIES) {
    const via = { interface: 'eth0', gateway };
    const detour = (count: number): Detour => ({ via, flows: flows(count) });
    const way = (more: string) => ip(`route get ${old} ${more}`);
    const rulesNow = () =>
      ip(`-${family} rule`)
        .split('\n')
        .filter((line) => line.includes(`to ${old}`));

    it(`IPv${family}: is for its flows and for nothing else`, () => {
      assert.equal(table.set(old, detour(2)), true);
      for (const port of [40_000, 40_001]) {
        assert.match(way(`ipproto tcp sport ${port} dport 22`), / via .* table 21578/);
      }
      for (const other of [
        'tcp sport 40002 dport 22',
        'tcp sport 40000 dport 23',
        'udp sport 40000 dport 22',
      ]) {
        assert.doesNotMatch(way(`ipproto ${other}`), / via /);
      }
      assert.doesNotMatch(ip(`route get ${old}`), / via /);
    });

    it(`IPv${family}: is there once if it is set twice, and known to another object`, () => {
      table.set(old, detour(2));
      const once = everything();
      assert.equal(table.set(old, detour(2)), false);
      const another = new DetourTable(netlink, { table: TABLE, flowsMax: 4 });
      assert.deepEqual(another.destinations(), [old]);
      assert.equal(another.set(old, detour(2)), false);
      assert.equal(everything(), once);
      another.set(old, undefined);
      assert.deepEqual(another.destinations(), []);
      assert.equal(everything(), bare);
      table.refresh();
      assert.deepEqual(table.destinations(), []);
    });

    it(`IPv${family}: flows come and go, without telling them apart beyond the bound`, () => {
      for (const count of [1, 4, 5, 1000, 4, 1]) {
        table.set(old, detour(count));
        assert.equal(rulesNow().length, count <= 4 ? count + rules : 1);
        assert.match(way('ipproto tcp sport 40000 dport 22'), / via /);
        const stranger = way('ipproto tcp sport 50000 dport 80').includes(' via ');
        assert.equal(stranger, count > 4);
      }
    });

    it(`IPv${family}: another next hop replaces the first, a host on the link too`, () => {
      table.set(old, detour(1));
      const host = address(family === 4 ? '192.0.2.77' : '2001:db8:1::77');
      assert.equal(table.set(old, { via: { ...via, gateway: host }, flows: flows(1) }), true);
      const routes = ip(`-${family} route show table ${TABLE}`).split('\n');
      assert.equal(routes.length, 1);
      assert.ok(routes[0]?.includes(`via ${host} `));
    });

    it(`IPv${family}: a route that the kernel has removed is made again`, () => {
      table.set(old, detour(1));
      const once = everything();
      ip(`-${family} route flush table ${TABLE}`);
      table.refresh();
      assert.equal(table.set(old, detour(1)), true);
      assert.equal(everything(), once);
    });

    it(`IPv${family}: lives beside retained addresses`, () => {
      const retained = new RetainedAddresses(netlink, {
        ...{ table: TABLE - 1, interfaces: () => ['eth0'], forwards: () => false },
      });
      retained.keep([old]);
      const before = everything();
      table.set(old, detour(1));
      retained.keep([]);
      assert.match(way('ipproto tcp sport 40000 dport 22'), / via /);
      retained.keep([old]);
      table.removeAll();
      assert.equal(everything(), before);
      retained.keep([]);
    });
  }

  it('IPv4 goes by an IPv6 gateway', () => {
    const via = { interface: 'eth0', gateway: address('fe80::1') };
    table.set(address('192.0.2.50'), { via, flows: flows(1) });
    assert.match(ip('route get 192.0.2.50 ipproto tcp sport 40000 dport 22'), / via inet6 fe80::1/);
    table.refresh();
    assert.equal(table.set(address('192.0.2.50'), { via, flows: flows(1) }), false);
  });

  it('the bound is for all addresses together', () => {
    const via = { interface: 'eth0', gateway: address('192.0.2.1') };
    const told = (of: string) => ip('rule').includes(`100:\tfrom all to ${of} `);
    table.set(address('192.0.2.50'), { via, flows: flows(3) });
    table.set(address('192.0.2.51'), { via, flows: flows(2) });
    assert.deepEqual([told('192.0.2.50'), told('192.0.2.51')], [true, false]);
    table.set(address('192.0.2.51'), { via, flows: flows(1) });
    assert.deepEqual([told('192.0.2.50'), told('192.0.2.51')], [true, true]);
  });

  it('removeAll leaves nothing of ours and all of others', () => {
    ip('rule add pref 100 to 192.0.2.51 lookup 21578');
    const others = everything();
    for (const { old, gateway } of FAMILIES) {
      table.set(old, { via: { interface: 'eth0', gateway }, flows: flows(9) });
    }
    new DetourTable(netlink, { table: TABLE }).removeAll();
    assert.equal(everything(), others);
    ip('rule del pref 100');
  });

  it('says which interface it has not found', () => {
    const via = { interface: 'eth9', gateway: address('192.0.2.1') };
    assert.throws(
      () => table.set(address('192.0.2.50'), { via, flows: flows(1) }),
      (error) =>
        error instanceof SystemError && /192\.0\.2\.50 by eth9: ENODEV/.test(error.message),
    );
    assert.equal(everything(), bare);
  });
});
