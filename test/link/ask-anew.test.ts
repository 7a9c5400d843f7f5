/*
 * DHCP clients as they are, dnsmasq at both sites, and the vm plugged in at the other site
 * (topology: network.ts).  Both servers can be reached from both sites, so a RELEASE would arrive.
 */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { udhcpc } from '../../src/lab/services.js';
import type { Site } from '../../src/lab/topology.js';
import { until } from '../../src/lab/wait.js';
import { SystemError } from '../../src/libc/errno.js';
import { askAnew, runRenewal } from '../../src/link/ask-anew.js';
import { findLeaseOwner } from '../../src/link/lease-owner.js';
import { programsHere } from '../../src/link/processes.js';
import { end, Network, vmAddress } from './network.js';

const network = new Network();
after(() => network.close());

const eth0 = () => network.run('vm', 'ip', '-4', '-o', 'addr', 'show', 'dev', 'eth0');
const has = (site: Site, boundMs = 15_000) =>
  until(`the address of ${site}`, () => eth0().includes(`${vmAddress(site, 4)}/24`), boundMs);

const isStopped = (pid: number | undefined): boolean =>
  readFileSync(`/proc/${pid}/status`, 'utf8').includes('\nState:\tT');

describe('askAnew', () => {
  let client: ChildProcess | undefined;

  before(() => Promise.all([network.dnsmasq('athos'), network.dnsmasq('porthos')]));

  afterEach(async () => {
    for (const { pid } of await programsHere(['udhcpc', 'dhclient'])) process.kill(pid, 'SIGKILL');
    if (client !== undefined) await end(client);
    client = undefined;
    network.unplug();
    network.ip('vm', ['addr flush dev eth0'], 4);
  });

  async function startUdhcpc(site: Site): Promise<void> {
    network.plug(site);
    client = network.start('vm', ...udhcpc(network.directory));
    await has(site);
  }

  async function startDhclient(site: Site): Promise<void> {
    network.plug(site);
    client = network.start('vm', ...dhclient(network.directory));
    await has(site);
  }

  function move(site: Site): void {
    network.unplug();
    network.plug(site);
  }

  async function ask(): Promise<string> {
    const owner = await findLeaseOwner('eth0');
    assert.ok(owner);
    await askAnew(owner, 'eth0');
    return owner.name;
  }

  /** What a site's server has heard from this kind of message. */
  function heard(site: Site, type: string): number {
    const log = join(network.directory, site, 'dnsmasq.log');
    return existsSync(log) ? readFileSync(log, 'utf8').split(type).length - 1 : 0;
  }

  it('finds nobody: undefined', async () => {
    assert.equal(await findLeaseOwner('eth0'), undefined);
  });

  it('leaves a client of another namespace alone, and one of another interface', async () => {
    const other = network.start('stranger', ...udhcpc(network.directory));
    await startUdhcpc('athos');
    const owner = await findLeaseOwner('eth0');
    assert.equal(owner?.kind === 'client' && owner.program.pid, client?.pid);
    assert.equal(await findLeaseOwner('eth1'), undefined);
    await end(other);
  });

  it('udhcpc gets the address of the other site, there and back', async () => {
    await startUdhcpc('athos');
    for (const site of ['porthos', 'athos'] as const) {
      move(site);
      const since = performance.now();
      assert.equal(await ask(), 'udhcpc');
      await has(site);
      const tookMs = performance.now() - since;
      assert.ok(tookMs < 2500, `took ${tookMs} ms`);
    }
    assert.equal(heard('athos', 'DHCPRELEASE') + heard('porthos', 'DHCPRELEASE'), 0);
  });

  it('udhcpc that has no lease yet asks at once', async () => {
    network.plug('athos');
    network.unplug();
    client = network.start('vm', ...udhcpc(network.directory));
    await until('udhcpc', async () => (await findLeaseOwner('eth0')) !== undefined);
    move('porthos');
    await ask();
    await has('porthos');
  });

  it('udhcpc stays with the old address for long if it is only told to renew', async () => {
    await startUdhcpc('athos');
    move('porthos');
    const since = performance.now();
    client?.kill('SIGUSR1');
    await has('porthos');
    const tookMs = performance.now() - since;
    assert.ok(tookMs > 2500, `took ${tookMs} ms: one signal is enough by now`);
  });

  it('a udhcpc that is stopped is reported, not waited for', async () => {
    await startUdhcpc('athos');
    client?.kill('SIGSTOP');
    // Two signals that are pending together would be one.
    await until('udhcpc to stop', () => isStopped(client?.pid));
    await assert.rejects(ask(), (error) => {
      assert.ok(error instanceof SystemError);
      assert.match(
        error.message,
        /have udhcpc get the addresses of eth0 anew: ETIMEDOUT.*is it stopped/,
      );
      return true;
    });
    client?.kill('SIGCONT');
  });

  it('dhclient gets the address of the other site, there and back', async () => {
    await startDhclient('athos');
    for (const site of ['porthos', 'athos'] as const) {
      move(site);
      assert.equal(await ask(), 'dhclient');
      await has(site);
    }
    assert.equal(heard('athos', 'DHCPRELEASE') + heard('porthos', 'DHCPRELEASE'), 0);
  });

  it('the command of the configuration has the interface as $1', async () => {
    const file = join(network.directory, 'renewed');
    await runRenewal(`echo "$1" > ${file}`, 'eth0');
    assert.equal(readFileSync(file, 'utf8'), 'eth0\n');
  });

  it('a command that fails is an error that says how', async () => {
    await assert.rejects(
      runRenewal('echo no such modem >&2; exit 3', 'eth0'),
      /renew the addresses of eth0: EIO \(.*exit code 3: no such modem\)/,
    );
  });
});

/* Debian's script writes /etc/resolv.conf: this one only does the addresses. */
const DHCLIENT_SCRIPT = `#!/bin/sh
case "$reason" in
BOUND | RENEW | REBIND | REBOOT)
  ip -4 addr replace "$new_ip_address/24" dev "$interface"
  ip route replace default via "$new_routers" dev "$interface" ;;
EXPIRE | FAIL | RELEASE | STOP)
  ip -4 addr flush dev "$interface" ;;
PREINIT)
  ip link set "$interface" up ;;
esac
exit 0
`;

function dhclient(directory: string): string[] {
  const script = join(directory, 'dhclient-script');
  writeFileSync(script, DHCLIENT_SCRIPT, { mode: 0o755 });
  const files = ['-cf', '/dev/null', '-lf', `${directory}/dhclient.leases`];
  return ['dhclient', '-d', '-sf', script, ...files, '-pf', `${directory}/dhclient.pid`, 'eth0'];
}
