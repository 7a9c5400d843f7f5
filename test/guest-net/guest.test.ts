/*
 * Real DHCP clients and the kernel's autoconfiguration in a guest that is moved and never told
 * (topology: cable.ts).
 */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { until, within } from '../../src/lab/wait.js';
import { address } from '../../src/wire/address.js';
import { end } from '../link/network.js';
import { Cable, GUEST_MAC, STAND_IN } from './cable.js';

const cable = new Cable();
after(() => cable.close());

/* Each line: what happened, the address, the lease time, T1 from the options. */
const EVENTS = join(cable.directory, 'events');
const events = (what: RegExp) =>
  existsSync(EVENTS)
    ? readFileSync(EVENTS, 'utf8')
        .split('\n')
        .filter((line) => what.test(line))
    : [];

const udhcpcScript = cable.script(
  'udhcpc.script',
  `#!/bin/sh
case "$1" in
deconfig) ip -4 addr flush dev "$interface" ;;
bound | renew) ip addr replace "$ip/24" dev "$interface" ;;
esac
echo "$1 $ip $lease $domain" >> ${EVENTS}
exit 0
`,
);

const dhclientScript = cable.script(
  'dhclient-script',
  `#!/bin/sh
case "$reason" in
BOUND | RENEW | REBIND | REBOOT) ip -4 addr replace "$new_ip_address/24" dev "$interface" ;;
EXPIRE | FAIL | RELEASE | STOP) ip -4 addr flush dev "$interface" ;;
esac
echo "$reason $new_ip_address $new_dhcp_lease_time $new_domain_name" >> ${EVENTS}
exit 0
`,
);

const CLIENTS: Record<string, { argv: string[]; bound: RegExp; renewed: RegExp; bad: RegExp }> = {
  udhcpc: {
    argv: ['udhcpc', '-f', '-i', 'eth0', '-s', udhcpcScript, '-t', '5', '-T', '1', '-A', '1'],
    bound: /^bound 192\.0\.2\.10 120 home\.example$/,
    renewed: /^renew 192\.0\.2\.10 120 home\.example$/,
    bad: /^(deconfig|nak|leasefail)/,
  },
  dhclient: {
    argv: [
      ...['dhclient', '-d', '-q', '-sf', dhclientScript, '-cf', '/dev/null'],
      ...['-lf', join(cable.directory, 'dhclient.leases')],
      ...['-pf', join(cable.directory, 'dhclient.pid'), 'eth0'],
    ],
    bound: /^BOUND 192\.0\.2\.10 120 home\.example$/,
    renewed: /^(RENEW|REBIND) 192\.0\.2\.10 120 home\.example$/,
    bad: /^(EXPIRE|FAIL|TIMEOUT)/,
  },
};

/* T1 that is verbatim in what the guest is told away, so that it renews often. */
const HOME = [
  '--dhcp-range=192.0.2.100,192.0.2.110,255.255.255.0,2m',
  `--dhcp-host=${GUEST_MAC},192.0.2.10`,
  ...['--dhcp-option=option:T1,8', '--dhcp-option=option:T2,60'],
  '--dhcp-option=option:domain-name,home.example',
];
const AWAY = ['--dhcp-range=198.51.100.100,198.51.100.110,255.255.255.0,1h'];

const moveTo = async (site: 'athos' | 'porthos') => {
  const state = JSON.parse(JSON.stringify(cable.care.state()));
  await within('release', cable.care.release(), 3000);
  cable.care.close();
  cable.move(site, { away: true });
  cable.care = cable.newCare();
  cable.care.restore(state);
  return within('settling', cable.care.settle(['dhcp']), 15_000);
};

function comeHome(): void {
  cable.care.home();
  cable.move('athos', { away: false });
  cable.care.announce();
}

before(async () => {
  await cable.serve('athos', ...HOME);
  await cable.serve('porthos', ...AWAY);
});

for (const [client, { argv, bound, renewed, bad }] of Object.entries(CLIENTS)) {
  describe(client, () => {
    let child: ChildProcess;

    afterEach(async () => {
      await end(child);
      cable.run('guest', 'ip', '-4', 'addr', 'flush', 'dev', 'eth0');
    });

    it('learned at home, renewed away as if at home, and at home again', async () => {
      cable.move('athos', { away: false });
      child = cable.start('guest', ...argv);
      await until('the lease', () => events(bound).length > 0, 20_000);
      await until('the state', () => cable.care.state().inside4?.address === '192.0.2.10');
      const { dhcp, inside4 } = cable.care.state();
      assert.equal(inside4?.gateway, '192.0.2.1');
      assert.equal(inside4?.lease_s, 120);
      assert.ok(dhcp.parameters, 'it asks for something');

      const outside = await moveTo('porthos');
      assert.match(outside.outside4?.address ?? '', /^198\.51\.100\.1\d\d$/);
      const [failed, homes] = [events(bad).length, cable.logged('athos', /DHCPREQUEST/)];
      const before = events(renewed).length;
      cable.care.away();
      // udhcpc goes by the lease time, not by T1.
      const renew = () => client === 'udhcpc' && child.kill('SIGUSR1');
      for (const more of [1, 2]) {
        renew();
        await until('a renewal', () => events(renewed).length >= before + more, 20_000);
      }
      assert.equal(cable.logged('athos', /DHCPREQUEST/), homes);
      assert.equal(cable.logged('porthos', /192\.0\.2\.10.*DHCPNAK|DHCPNAK.*192\.0\.2\.10/), 0);

      const { outside4 } = await moveTo('athos');
      assert.equal(outside4?.address, '192.0.2.10');
      comeHome();
      const asked = cable.logged('athos', /DHCPACK/);
      renew();
      await until('a renewal at home', () => cable.logged('athos', /DHCPACK/) > asked, 20_000);
      assert.equal(events(bad).length, failed, 'it never noticed');
    });
  });
}

describe('IPv6 of a guest', () => {
  const guest = (...argv: string[]) => cable.run('guest', ...argv);
  const addresses = () => guest('ip', '-6', '-o', 'addr', 'show', 'dev', 'eth0', 'scope', 'global');
  const routes = () => guest('ip', '-6', 'route', 'show', 'default');

  it("keeps its home's prefix and router while away, and never hears of others", async () => {
    comeHome();
    await until('an address', () => addresses().includes('2001:db8:1:'), 20_000);
    await until('the router', () => cable.care.state().inside6?.prefix === '2001:db8:1::');
    const home = cable.care.state().inside6?.router ?? '';
    assert.match(routes(), new RegExp(`via ${home}`));

    const { outside6 } = await moveTo('porthos');
    assert.equal(outside6?.prefix, '2001:db8:2::');
    guest('sysctl', '-qw', 'net.ipv6.conf.eth0.accept_ra=0');
    guest('ip', '-6', 'route', 'flush', 'default');
    guest('ip', '-6', 'neigh', 'flush', 'dev', 'eth0');
    guest('sysctl', '-qw', 'net.ipv6.conf.eth0.accept_ra=2');
    cable.care.away();
    // dnsmasq advertises every 4 s, which makes the stand-in do the same in the home's name.
    await until('the default route', () => routes().includes(`via ${home}`), 20_000);
    assert.match(guest('ip', '-6', 'neigh', 'show', 'to', home), new RegExp(STAND_IN));
    assert.match(addresses(), /2001:db8:1:/);
    assert.doesNotMatch(addresses(), /2001:db8:2:/);
    assert.equal(routes().trim().split('\n').length, 1);
  });

  it('at home again the announcement tells it where its router is', async () => {
    await moveTo('athos');
    comeHome();
    const { inside6 } = cable.care.state();
    const entry = () => guest('ip', '-6', 'neigh', 'show', 'to', inside6?.router ?? '');
    await until('the router', () => entry().includes(inside6?.router_mac ?? 'none'));
  });
});

describe('inform', () => {
  it('a hypervisor that comes later learns the lease from the server', async () => {
    comeHome();
    guestAddress();
    cable.care.close();
    cable.care = cable.newCare();
    assert.equal(cable.care.state().inside4, null);
    const informed = cable.care.inform(address('192.0.2.10'));
    assert.equal(await within('the answer', informed, 5000), true);
    const { inside4 } = cable.care.state();
    assert.equal(inside4?.address, '192.0.2.10');
    assert.equal(inside4?.gateway, '192.0.2.1');
    assert.equal(inside4?.prefix_length, 24);
  });

  /* Somebody must answer ARP for it. */
  const guestAddress = () =>
    cable.run('guest', 'ip', 'addr', 'replace', '192.0.2.10/24', 'dev', 'eth0');
});
