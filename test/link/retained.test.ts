/*
 * What retaining an address leaves in the kernel.  What that is good for: the programs in
 * test/kernel/retained-*.test.ts.
 */
import assert from 'node:assert/strict';
import { after, afterEach, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { SystemError } from '../../src/libc/errno.js';
import { RetainedAddresses } from '../../src/link/retained.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { address } from '../../src/wire/address.js';
import { Network } from './network.js';

const MARK_AND_TABLE = { mark: 0x5449, table: 0x5449 };
const V4 = address('192.0.2.10');
const V6 = address('2001:db8:1::10');

const network = new Network();
network.plug('athos');
const netlink = new Netlink();
after(() => {
  netlink.close();
  network.close();
});

/** Everything that could be left behind. */
const everything = () =>
  ['-4 addr', '-6 addr', '-4 rule', '-6 rule', '-4 route show table all', '-6 route show table all']
    .map((what) => network.run('vm', 'ip', ...what.split(' ')))
    .join('--\n');

const ip = (what: string) => network.run('vm', 'ip', ...what.split(' ')).trim();

// What the kernel itself still adds when a link comes up.
await until('the link-local address', () => ip('-6 addr show dev eth0').includes('fe80::'));

describe('retained addresses', () => {
  const before = everything();
  const retained = new RetainedAddresses(netlink, MARK_AND_TABLE);

  afterEach(() => retained.releaseAll());

  for (const [a, family] of [
    [V4, 4],
    [V6, 6],
  ] as const) {
    it(`${a} is listed until it is released, by another object too`, () => {
      retained.retain(a);
      assert.deepEqual(retained.list(), [a]);
      const another = new RetainedAddresses(netlink, MARK_AND_TABLE);
      assert.deepEqual(another.list(), [a]);
      another.release(a);
      assert.deepEqual(retained.list(), []);
      assert.equal(everything(), before);
    });

    it(`${a} is not local to what has no mark, and local to what has`, () => {
      retained.retain(a);
      assert.equal(ip(`-${family} route show table local ${a}`), '');
      assert.throws(() => ip(`route get ${a}`), /unreachable/);
      assert.match(ip(`route get ${a} mark 0x5449`), /^local/);
    });

    it(`${a} is not there twice if it is retained twice`, () => {
      retained.retain(a);
      const once = everything();
      retained.retain(a);
      assert.equal(everything(), once);
    });

    it(`${a}: what somebody has removed is told, and is there again if it is retained again`, () => {
      const table = MARK_AND_TABLE.table;
      const all = [
        `rule 99: to ${a} fwmark 0x5449 lookup ${table}`,
        `rule 33000: from ${a} lookup ${table}`,
        `route local ${a} dev lo table ${table}`,
        `route default dev lo table ${table}`,
        ...(family === 4 ? [`address ${a}/32 dev lo`] : []),
      ];
      assert.deepEqual(retained.missing(a), all);
      retained.retain(a);
      assert.deepEqual(retained.missing(a), []);
      ip(`-${family} rule del priority 99`);
      assert.deepEqual(retained.missing(a), all.slice(0, 1));
      ip(`-${family} rule del priority 33000`);
      ip(`-${family} route flush table ${table}`);
      assert.deepEqual(retained.missing(a), all.slice(0, 4));
      retained.retain(a);
      assert.deepEqual(retained.missing(a), []);
    });

    it(`${a} is as before when it has been told of changed routes`, () => {
      retained.retain(a);
      const once = everything();
      retained.routesChanged();
      assert.equal(everything(), once);
    });

    it(`${a}: a route in table local that came back is taken out again`, () => {
      retained.retain(a);
      const once = everything();
      ip('link set lo down');
      ip('link set lo up');
      retained.retain(a);
      assert.equal(everything(), once);
    });

    it(`${a} stays usable on an interface while it is retained and afterwards`, async () => {
      retained.retain(a);
      const prefix = family === 4 ? 24 : 64;
      const isLocal = () => ip(`route get ${a}`).startsWith('local');
      ip(`addr add ${a}/${prefix} dev eth0`);
      await until('the address to be usable', isLocal);
      retained.retain(a);
      assert.ok(isLocal());
      retained.release(a);
      assert.ok(isLocal());
      ip(`addr del ${a}/${prefix} dev eth0`);
    });
  }

  it('one stays when another is released', () => {
    const other = address('192.0.2.11');
    retained.retain(V4);
    const one = everything();
    retained.retain(other);
    assert.deepEqual(retained.list(), [V4, other]);
    retained.release(other);
    assert.equal(everything(), one);
  });

  it('release of what is not retained changes nothing', () => {
    retained.retain(V4);
    const one = everything();
    retained.release(address('192.0.2.99'));
    retained.release(V6);
    assert.equal(everything(), one);
  });

  it('releaseAll removes what a crash has left halfway, and nothing of others', () => {
    ip('rule add pref 99 to 192.0.2.50 lookup 21577 protocol 84');
    ip('-6 rule add pref 33000 from 2001:db8::50 lookup 21577 protocol 84');
    ip('route add default dev lo table 21577 protocol 84');
    ip('rule add pref 50 from 192.0.2.51 lookup 21577');
    retained.releaseAll();
    assert.match(ip('rule'), /50:\tfrom 192\.0\.2\.51 lookup 21577/);
    ip('rule del pref 50');
    assert.equal(everything(), before);
  });

  it('is never chosen as the source of something else', () => {
    retained.retain(V4);
    ip('route add 198.18.0.0/15 dev eth0');
    assert.doesNotMatch(ip('route get 198.18.0.1'), /src 192\.0\.2\.10/);
    ip('route del 198.18.0.0/15 dev eth0');
  });

  it('says so if lo is down, and leaves nothing', () => {
    ip('link set lo down');
    const down = everything();
    for (const a of [V4, V6]) {
      assert.throws(
        () => retained.retain(a),
        (error) => error instanceof SystemError && /ip link set lo up/.test(error.message),
      );
    }
    assert.equal(everything(), down);
    ip('link set lo up');
  });
});
