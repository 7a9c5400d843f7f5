/*
 * What retaining an address leaves in the kernel.  What that is good for: the programs in
 * test/kernel/retained.test.ts.
 */
import assert from 'node:assert/strict';
import { after, afterEach, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { SystemError } from '../../src/libc/errno.js';
import { RetainedAddresses } from '../../src/link/retained-kernel.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { address } from '../../src/wire/address.js';
import { Network } from './network.js';

const TABLE = 0x5449;
const OPTIONS = { table: TABLE, interfaces: () => ['eth0'], forwards: () => false };
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
  const retained = new RetainedAddresses(netlink, OPTIONS);

  afterEach(() => retained.keep([]));

  for (const [a, family] of [
    [V4, 4],
    [V6, 6],
  ] as const) {
    const version = `IPv${family}`;
    const icmp = family === 4 ? 1 : 58;
    const all = [
      `${version} route default dev lo table ${TABLE}`,
      `${version} route local ${a} dev lo table ${TABLE}`,
      `${version} rule 99: iif eth0 ipproto 6 lookup ${TABLE} suppress_prefixlength 0`,
      `${version} rule 99: iif eth0 ipproto ${icmp} lookup ${TABLE} suppress_prefixlength 0`,
      `${version} rule 99: oif lo lookup ${TABLE} suppress_prefixlength 0`,
      `${version} rule 33000: from ${a} lookup ${TABLE}`,
      ...(family === 4 ? [`address ${a} peer 127.84.73.1/8 dev lo`] : []),
    ];

    it(`${a} is listed until it is released, by another object too`, () => {
      retained.keep([a]);
      assert.deepEqual(retained.list(), [a]);
      const another = new RetainedAddresses(netlink, OPTIONS);
      assert.deepEqual(another.list(), [a]);
      another.keep([]);
      assert.deepEqual(retained.list(), []);
      assert.equal(everything(), before);
    });

    it(`${a} is not in table local, and to no packet of ours`, () => {
      retained.keep([a]);
      assert.equal(ip(`-${family} route show table local ${a}`), '');
      assert.throws(() => ip(`route get ${a}`), /unreachable/);
      assert.throws(() => ip(`route get ${a} mark 0x5449`), /unreachable/);
      assert.equal(retained.isLocal(a), false);
    });

    it(`${a}: the steps are what is missing, in an order that works; then none`, () => {
      const steps = retained.plan([a]);
      assert.deepEqual(
        steps.map(({ verb, object }) => `${verb} ${object.text}`),
        all.map((text) => `add ${text}`),
      );
      assert.deepEqual(retained.apply(steps), []);
      assert.deepEqual(retained.plan([a]), []);
      const once = everything();
      assert.deepEqual(retained.apply(steps), [], 'each can be done again');
      assert.equal(everything(), once);
      const away = retained.plan([]).map(({ verb, object }) => `${verb} ${object.text}`);
      assert.deepEqual(new Set(away), new Set(all.map((text) => `remove ${text}`)));
    });

    it(`${a}: whatever somebody has removed is one step, and is there again`, () => {
      retained.keep([a]);
      const once = everything();
      ip(`-${family} rule del priority 99 oif lo`);
      ip(`-${family} rule del priority 33000`);
      ip(`-${family} route flush table ${TABLE}`);
      if (family === 4) ip('addr flush dev lo scope host to 192.0.2.0/24');
      const missing = retained.plan([a]).map(({ object }) => object.text);
      assert.deepEqual(missing, retained.lacking([a]));
      assert.deepEqual(new Set(missing), new Set([...all.slice(0, 2), ...all.slice(4)]));
      retained.keep([a]);
      assert.equal(everything(), once);
    });

    it(`${a} is as before when it has been told of changed routes`, () => {
      retained.keep([a]);
      const once = everything();
      retained.routesChanged();
      assert.equal(everything(), once);
    });

    it(`${a}: a route in table local that came back is taken out again, and is no word of the kernel`, () => {
      retained.keep([a]);
      const once = everything();
      ip('link set lo down');
      ip('link set lo up');
      assert.equal(retained.isLocal(a), false);
      retained.keep([a]);
      assert.equal(everything(), once);
    });

    it(`${a}: what others make local is local, and theirs`, () => {
      retained.keep([a]);
      const theirs: [string, string][] = [
        [`route add local ${a} dev eth0 proto 66`, `route del local ${a} dev eth0 proto 66`],
        [`addr add ${a} dev lo`, `addr del ${a} dev lo`],
      ];
      for (const [add, del] of theirs) {
        const without = everything();
        ip(add);
        assert.equal(retained.isLocal(a), true, add);
        const withIt = everything();
        assert.ok(!retained.plan([a]).some(({ verb }) => verb === 'remove'), add);
        retained.keep([a]);
        assert.equal(everything(), withIt);
        ip(del);
        retained.keep([a]);
        assert.equal(everything(), without);
      }
    });

    it(`${a} stays usable on an interface while it is retained and afterwards`, async () => {
      retained.keep([a]);
      const prefix = family === 4 ? 24 : 64;
      const isLocal = () => ip(`route get ${a}`).startsWith('local');
      ip(`addr add ${a}/${prefix} dev eth0`);
      await until('the address to be usable', isLocal);
      retained.keep([a]);
      assert.ok(isLocal());
      retained.keep([]);
      assert.ok(isLocal());
      ip(`addr del ${a}/${prefix} dev eth0`);
    });
  }

  it('one stays when another is released', () => {
    const other = address('192.0.2.11');
    retained.keep([V4]);
    const one = everything();
    retained.keep([V4, other]);
    assert.deepEqual(retained.list(), [V4, other]);
    retained.keep([V4]);
    assert.equal(everything(), one);
  });

  it('a step that fails keeps none of the others from being done', () => {
    const steps = retained.plan([V4]);
    ip('route add default dev eth0 table 21577 metric 7');
    const [first, ...more] = steps;
    assert.ok(first?.object.kind === 'route');
    const broken = {
      ...first,
      object: { ...first.object, route: { ...first.object.route, index: 999 } },
    };
    const failures = retained.apply([broken, ...more]);
    assert.deepEqual(
      failures.map(({ step }) => step),
      [broken],
    );
    assert.deepEqual(retained.lacking([V4]), [first.object.text]);
    ip('route del default table 21577 metric 7');
  });

  it('removes what a crash, or a former version, has left halfway, and nothing of others', () => {
    ip('rule add pref 99 to 192.0.2.50 fwmark 0x5449 lookup 21577 protocol 84');
    ip('-6 rule add pref 33000 from 2001:db8::50 lookup 21577 protocol 84');
    ip('route add default dev lo table 21577 protocol 84');
    ip('addr add 192.0.2.50 peer 127.84.73.1/8 dev lo scope host');
    ip('rule add pref 50 from 192.0.2.51 lookup 21577');
    ip('addr add 192.0.2.52/32 dev lo scope host');
    retained.keep([]);
    assert.match(ip('rule'), /50:\tfrom 192\.0\.2\.51 lookup 21577/);
    assert.match(ip('addr show dev lo'), /192\.0\.2\.52\/32 scope host/);
    ip('rule del pref 50');
    ip('addr del 192.0.2.52/32 dev lo');
    assert.equal(everything(), before);
  });

  it('is never chosen as the source of something else', () => {
    retained.keep([V4]);
    ip('route add 198.18.0.0/15 dev eth0');
    assert.doesNotMatch(ip('route get 198.18.0.1'), /src 192\.0\.2\.10/);
    ip('route del 198.18.0.0/15 dev eth0');
  });

  it('says so if lo is down, and does it when it is up', () => {
    ip('link set lo down');
    for (const a of [V4, V6]) {
      assert.throws(
        () => retained.keep([a]),
        (error) => error instanceof SystemError && /ip link set lo up/.test(error.message),
      );
    }
    ip('link set lo up');
    retained.keep([V4, V6]);
    assert.deepEqual(retained.list(), [V4, V6]);
  });
});
