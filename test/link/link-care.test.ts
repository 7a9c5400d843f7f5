/*
 * The care for a link with a real DHCP client: dnsmasq at both sites, udhcpc in the vm, and the vm's cable
 * pulled, put back, plugged in at the other site, or nothing of that (topology: network.ts).
 */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { after, before, describe, it } from 'node:test';
import pino from 'pino';
import { LinkCare } from '../../src/daemon/host/link-care.js';
import { Settling } from '../../src/daemon/host/settling.js';
import type { NewEvent } from '../../src/daemon/view/monitor-events.js';
import { udhcpc } from '../../src/lab/services.js';
import { NETWORKS, type Site } from '../../src/lab/topology.js';
import { until } from '../../src/lab/wait.js';
import { monotonicMs } from '../../src/libc/monotonic.js';
import { Poller } from '../../src/libc/poller.js';
import { gatewayOf } from '../../src/link/gateways.js';
import { type LinkChange, LinkMonitor } from '../../src/link/monitor.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { end, Network, vmAddress } from './network.js';

const CLOCK = {
  now: monotonicMs,
  setTimer: (ms: number, f: () => void) => setTimeout(f, ms),
  clearTimer: (timer: unknown) => clearTimeout(timer as NodeJS.Timeout),
};

const network = new Network();
after(() => network.close());

describe('the care for a link', () => {
  const netlink = new Netlink();
  const poller = new Poller();
  const events: NewEvent[] = [];
  const seen: LinkChange[] = [];
  const settling = new Settling(CLOCK, () => undefined);
  let servers: ChildProcess[];
  let care: LinkCare | undefined;
  let monitor: LinkMonitor;

  before(async () => {
    servers = await Promise.all([network.dnsmasq('athos'), network.dnsmasq('porthos')]);
    network.plug('athos');
    network.start('vm', ...udhcpc(network.directory));
    await has('athos');
    network.run('vm', 'bash', '-c', `echo > /dev/udp/${NETWORKS.athos.gateway4}/9`);
    await until('the gateway to be known', () => gatewayOf(netlink, 'eth0', vmAddress('athos', 4)));
    monitor = new LinkMonitor(poller, (change) => {
      seen.push(change);
      care?.changed(change);
    });
    care = new LinkCare({
      ...{ netlink, poller, monitor, settling, clock: CLOCK, renew: undefined },
      boundary: { attached: () => ['eth0'] },
      runDir: network.directory,
      emit: (event) => events.push(event),
      log: pino({ level: 'silent' }),
    });
    care.attached();
  });

  after(async () => {
    care?.close();
    settling.close();
    monitor.close();
    poller.close();
    netlink.close();
    await Promise.all(servers.map((server) => end(server)));
  });

  const has = (site: Site) =>
    until(`the address of ${site}`, () =>
      network.run('vm', 'ip', '-4', '-o', 'addr').includes(`${vmAddress(site, 4)}/24`),
    );
  const verdicts = () =>
    events.flatMap(({ event, reason }) => (event === 'verified' ? reason : []));
  const asked = () => events.filter(({ event }) => event === 'dhcp-renewed').length;
  const removals = () => seen.filter(({ type }) => type === 'address-removed');

  function forget(): void {
    events.splice(0);
    seen.splice(0);
  }

  async function pull(): Promise<void> {
    network.unplug();
    await until('no carrier', () => monitor.links().some((l) => l.name === 'eth0' && !l.carrier));
  }

  it('put back: settled within a round trip, and nobody is asked', async () => {
    forget();
    await pull();
    network.plug('athos');
    await until('the carrier', () => seen.some((c) => c.type === 'carrier' && c.up));
    const since = performance.now();
    await until('it to have settled', () => !settling.isSettling('eth0', 4));
    const tookMs = performance.now() - since;
    assert.ok(tookMs < 1_000, `took ${tookMs} ms`);
    assert.deepEqual([verdicts()[0], asked(), removals().length], ['IPv4 same', 0, 0]);
  });

  it('the server is away, and the gateway silent: the address stays', async () => {
    forget();
    const [server] = servers;
    assert.ok(server);
    server.kill('SIGSTOP');
    network.ip('athos', ['link set br0 arp off']);
    await pull();
    network.plug('athos');
    await until('the verdict', () => verdicts().length > 0, 8_000);
    assert.deepEqual([verdicts()[0], asked(), removals().length], ['IPv4 unknown', 0, 0]);
    network.ip('athos', ['link set br0 arp on']);
    server.kill('SIGCONT');
  });

  it('plugged in elsewhere: asked once, and it has the address of there', async () => {
    forget();
    await pull();
    network.plug('porthos');
    await has('porthos');
    await until('it to have settled', () => !settling.isSettling('eth0', 4));
    assert.deepEqual([verdicts()[0], asked()], ['IPv4 other', 1]);
  });
});
