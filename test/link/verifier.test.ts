/*
 * A verification against real servers and routers: dnsmasq at both sites, the vm plugged in here or
 * there (topology: network.ts).
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import type { Site } from '../../src/lab/topology.js';
import { NETWORKS } from '../../src/lab/topology.js';
import { until } from '../../src/lab/wait.js';
import { Poller } from '../../src/libc/poller.js';
import { interfaceIndex } from '../../src/libc/socket.js';
import { gatewayOf } from '../../src/link/gateways.js';
import { LinkMonitor } from '../../src/link/monitor.js';
import type { Claim, LeaseIdentity } from '../../src/link/verification.js';
import { Verifier } from '../../src/link/verifier.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { macFromBytes } from '../../src/wire/ethernet.js';
import { Network, vmAddress } from './network.js';

const HARDWARE: LeaseIdentity = { clientId: 'hardware', certain: true };

const network = new Network();
const netlink = new Netlink();
const poller = new Poller();
const monitor = new LinkMonitor(poller, () => undefined);

after(() => {
  monitor.close();
  poller.close();
  netlink.close();
  network.close();
});

describe('verification on the wire', () => {
  const index = interfaceIndex('eth0') ?? 0;
  const running: Verifier[] = [];

  before(() => Promise.all([network.dnsmasq('athos'), network.dnsmasq('porthos')]));

  afterEach(async () => {
    for (const verifier of running.splice(0)) verifier.close();
    network.ip('vm', ['addr flush dev eth0'], 4);
    network.unplug();
  });

  /** Plugged in with the address of a site, as if leased there. */
  function settleIn(site: Site): void {
    network.plug(site);
    network.ip('vm', [
      `addr add ${vmAddress(site, 4)}/24 dev eth0`,
      `route replace default via ${NETWORKS[site].gateway4} dev eth0`,
    ]);
  }

  function claim(site: Site, more: Partial<Claim> = {}): Claim {
    const link = monitor.links().find(({ name }) => name === 'eth0');
    const v4 = { address: vmAddress(site, 4), prefixLength: 24, gateways: [] };
    return { mac: macFromBytes(link?.mac ?? new Uint8Array()), v4, v6: [], ...more };
  }

  /** The first verdict, and after how long. */
  async function verdict(of: Claim, identity?: LeaseIdentity): Promise<string> {
    const said: string[] = [];
    const onVerdict = (family: 4 | 6, what: string) => said.push(`IPv${family} ${what}`);
    const verifier = new Verifier({ netlink, poller, index, claim: of, onVerdict });
    running.push(verifier);
    if (identity !== undefined) verifier.lease(identity);
    await until('a verdict', () => said.length > 0, 6_000);
    return said[0] ?? '';
  }

  const leases = () =>
    readFileSync(join(network.directory, 'athos', 'leases'), 'utf8')
      .split('\n')
      .filter((line) => line.includes(vmAddress('athos', 4)));

  it('the gateway is there: the same, within a round trip', async () => {
    settleIn('athos');
    network.run('vm', 'bash', '-c', `echo > /dev/udp/${NETWORKS.athos.gateway4}/9`);
    const look = () => gatewayOf(netlink, 'eth0', vmAddress('athos', 4));
    await until('the gateway to be known', () => look() !== undefined);
    const gateway = look();
    assert.ok(gateway);
    assert.equal(gateway.address, NETWORKS.athos.gateway4);
    const of = claim('athos');
    const v4 = of.v4 && { ...of.v4, gateways: [gateway] };
    const since = performance.now();
    assert.equal(await verdict({ ...of, v4 }), 'IPv4 same');
    const tookMs = performance.now() - since;
    assert.ok(tookMs < 1_000, `took ${tookMs} ms`);
  });

  it('the server would offer the address: the same, and the lease is not touched', async () => {
    settleIn('athos');
    const before = leases();
    assert.equal(await verdict(claim('athos'), HARDWARE), 'IPv4 same');
    assert.deepEqual(leases(), before);
  });

  it('a server of another network refuses it', async () => {
    network.plug('porthos');
    assert.equal(await verdict(claim('athos'), HARDWARE), 'IPv4 other');
  });

  it('routers tell by their prefixes', async () => {
    network.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.accept_ra=0');
    network.plug('porthos');
    const of = (site: Site) => claim(site, { v4: undefined, v6: [vmAddress(site, 6)] });
    assert.equal(await verdict(of('porthos')), 'IPv6 same');
    assert.equal(await verdict(of('athos')), 'IPv6 other');
  });

  it('goes on without a link', async () => {
    network.ip('vm', ['link set eth0 down']);
    const gateways = [{ address: vmAddress('porthos', 4), mac: claim('athos').mac }];
    const v4 = { address: vmAddress('athos', 4), prefixLength: 24, gateways };
    const verifier = new Verifier({
      ...{ netlink, poller, index, onVerdict: () => assert.fail() },
      claim: claim('athos', { v4 }),
    });
    verifier.lease(HARDWARE);
    verifier.close();
    network.ip('vm', ['link set eth0 up']);
  });
});
