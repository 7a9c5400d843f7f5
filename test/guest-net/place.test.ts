/* Addresses at a place from real servers (topology: cable.ts; nobody is in the guest). */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, unlinkSync } from 'node:fs';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { unknownGuest } from '../../src/guest/identity.js';
import { until, within } from '../../src/lab/wait.js';
import { address } from '../../src/wire/address.js';
import { mac } from '../../src/wire/ethernet.js';
import { encodeNeighbour, prefixOption, sourceMacOption } from '../../src/wire/neighbour.js';
import { end } from '../link/network.js';
import { Cable, GUEST_MAC } from './cable.js';

const CLIENT_ID = 'ff00112233445566';

/** A guest whose home is elsewhere, with a client identifier that is not its MAC. */
function state() {
  const options = [
    sourceMacOption(mac('02:00:00:00:00:01')),
    prefixOption({
      prefix: address('2001:db8:1::'),
      prefixLength: 64,
      onLink: true,
      autonomous: true,
      validS: 7200,
      preferredS: 3600,
    }),
  ];
  const advertisement = encodeNeighbour({
    source: address('fe80::1'),
    destination: address('ff02::1'),
    message: {
      kind: 'router-advertisement',
      hopLimit: 64,
      flags: 0,
      routerLifetimeS: 1800,
      reachableMs: 0,
      retransMs: 0,
      options,
    },
  });
  return {
    ...unknownGuest(GUEST_MAC),
    dhcp: { client_id: CLIENT_ID, host_name: Buffer.from('musketeer').toString('hex') },
    inside4: {
      address: '192.0.2.10',
      prefix_length: 24,
      gateway: '192.0.2.1',
      server: '192.0.2.1',
      lease_s: 3600,
      options: [],
    },
    inside6: {
      prefix: '2001:db8:1::',
      prefix_length: 64,
      router: 'fe80::1',
      router_mac: null,
      advertisement: Buffer.from(advertisement).toString('hex'),
    },
  };
}

const cable = new Cable();
after(() => cable.close());

const RANGE = (from: number, to: number, time = '1h') =>
  `--dhcp-range=198.51.100.${from},198.51.100.${to},255.255.255.0,${time}`;

/* dnsmasq has no leases under two minutes, and takes a random part of a sixteenth off T1. */
const SHORT = ['--dhcp-option=option:T1,8', '--dhcp-option=option:T2,60'];
const lease = () => {
  const file = cable.leases('porthos');
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
};

describe('at porthos', () => {
  let server: ChildProcess | undefined;

  before(() => cable.move('porthos', { away: true }));

  beforeEach(() => {
    cable.care = cable.newCare();
    cable.care.restore(state());
    cable.told.length = 0;
  });

  afterEach(async () => {
    cable.care.close();
    await stop();
    if (existsSync(cable.leases('porthos'))) unlinkSync(cable.leases('porthos'));
  });

  async function stop(): Promise<void> {
    if (server !== undefined) await end(server);
    server = undefined;
  }

  const settle = (...request: string[]) => within('settling', cable.care.settle(request), 15_000);

  it("both families, by the guest's name, in a second", async () => {
    server = await cable.serve('porthos', RANGE(100, 110));
    const since = performance.now();
    const { outside4, outside6, gatewayMac4, gatewayMac6 } = await settle('dhcp');
    const tookMs = performance.now() - since;
    const br0 = gatewayMac();
    assert.match(outside4?.address ?? '', /^198\.51\.100\.1\d\d$/);
    assert.equal(outside4?.gateway, '198.51.100.1');
    assert.equal(outside4?.leaseS, 3600);
    assert.equal(outside6?.prefix, '2001:db8:2::');
    assert.equal(gatewayMac4, br0);
    assert.equal(gatewayMac6, br0);
    const [line = ''] = lease().split('\n');
    assert.match(
      line,
      new RegExp(`${GUEST_MAC} ${outside4?.address} musketeer ff:00:11:22:33:44:55:66`),
    );
    assert.ok(tookMs < 1000, `took ${tookMs} ms`);
  });

  const gatewayMac = () =>
    /link\/ether ([0-9a-f:]+)/.exec(cable.run('porthos', 'ip', '-o', 'link', 'show', 'br0'))?.[1];

  it('the lease is renewed by unicast before it ends, and is the same', async () => {
    server = await cable.serve('porthos', RANGE(100, 110, '2m'), ...SHORT);
    const { outside4 } = await settle('dhcp');
    const asked = new RegExp(`DHCPREQUEST\\(br0\\) ${outside4?.address}`);
    const given = new RegExp(`DHCPACK\\(br0\\) ${outside4?.address}`);
    await until('two renewals', () => cable.logged('porthos', asked) >= 3, 20_000);
    await until('their answers', () => cable.logged('porthos', given) >= 3);
    assert.equal(cable.logged('porthos', /DHCPDISCOVER/), 1);
    assert.deepEqual(cable.told, []);
  });

  it('a server that knows of nothing refuses the renewal: another address', async () => {
    server = await cable.serve('porthos', RANGE(100, 110, '2m'), ...SHORT);
    const { outside4 } = await settle('dhcp');
    await stop();
    unlinkSync(cable.leases('porthos'));
    server = await cable.serve('porthos', RANGE(200, 210));
    await until('another address', () => cable.told.length >= 2, 20_000);
    assert.equal(cable.told[0], `lost ${outside4?.address} refused`);
    assert.match(cable.told[1] ?? '', /^outside 198\.51\.100\.2\d\d$/);
    assert.ok(cable.logged('porthos', /DHCPNAK/) >= 1);
  });

  it('released: the server has no lease any more', async () => {
    server = await cable.serve('porthos', RANGE(100, 110));
    await settle('dhcp');
    assert.match(lease(), new RegExp(GUEST_MAC));
    await within('release', cable.care.release(), 3000);
    await until('the lease to go', () => !lease().includes(GUEST_MAC));
    assert.equal(cable.logged('porthos', /DHCPRELEASE/), 1);
  });

  it('an address that somebody has without asking is declined, the other one taken', async () => {
    cable.giveStranger('198.51.100.120/24');
    server = await cable.serve('porthos', RANGE(120, 121), '--dhcp-sequential-ip');
    const { outside4 } = await settle('dhcp');
    assert.equal(outside4?.address, '198.51.100.121');
    assert.equal(cable.logged('porthos', /DHCPDECLINE\(br0\) 198\.51\.100\.120/), 1);
  });

  it('given: refused if somebody has it, else taken without a server', async () => {
    cable.giveStranger('198.51.100.77/24');
    await assert.rejects(settle('198.51.100.77/24'), { code: 'address-refused' });
    const { outside4 } = await settle('198.51.100.78/24');
    assert.equal(outside4?.address, '198.51.100.78');
  });

  it('no server: no lease, within ten seconds', async () => {
    const since = performance.now();
    await assert.rejects(settle('dhcp'), { code: 'no-lease' });
    const tookMs = performance.now() - since;
    assert.ok(tookMs > 9000 && tookMs < 11_500, `took ${tookMs} ms`);
  });

  it('announced: the gateway knows where it is', async () => {
    server = await cable.serve('porthos', RANGE(100, 110));
    const { outside4 } = await settle('dhcp');
    const own = outside4?.address ?? '';
    const six = '2001:db8:2::ff:fe00:a';
    for (const each of [own, six]) {
      const foreign = ['lladdr', '02:00:00:00:00:99', 'dev', 'br0', 'nud', 'stale'];
      cable.run('porthos', 'ip', 'neigh', 'replace', each, ...foreign);
    }
    cable.care.away();
    cable.care.announce();
    const entry = (each: string) => cable.run('porthos', 'ip', 'neigh', 'show', 'to', each);
    for (const each of [own, six]) {
      await until(`the entry of ${each}`, () => entry(each).includes(GUEST_MAC));
    }
  });
});
