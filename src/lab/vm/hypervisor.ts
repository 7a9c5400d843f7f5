/**
 * A hypervisor of the lab as a machine of its own (../own-mounts.ts): /run/tiflow,
 * /run/vm/NAME.qmp and /var/lib/vm mean on both hypervisors what they mean on two machines.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { giveMounts, seenFromOutside } from '../own-mounts.js';
import type { HostRecord, LabRecord } from '../registry.js';
import { tiflow } from '../services.js';
import { NETWORKS, type Site } from '../topology.js';

/** Where the hypervisors reach each other: their links to the router, not their VMs' subnets. */
export const MANAGEMENT: Record<Site, string> = { athos: '10.0.1.2', porthos: '10.0.2.2' };

/** Gives the host its mount namespace and what is in it. `diskBytes`: room for disk images. */
export async function furnish(
  record: LabRecord,
  host: HostRecord,
  diskBytes: number,
): Promise<void> {
  await giveMounts(record, host, { room: { '/var/lib/vm': diskBytes } });
  for (const path of ['/run/sshd', '/run/vm']) mkdirSync(seenFromOutside(host, path));
  writeConfiguration(record.directory, host);
}

function writeConfiguration(directory: string, host: HostRecord): void {
  const write = (path: string, text: string, mode = 0o644): void =>
    writeFileSync(seenFromOutside(host, path), text, { mode });
  const [node, main] = tiflow();
  write('/usr/local/bin/tiflow', `#!/bin/sh\nexec ${node} ${main} "$@"\n`, 0o755);
  const names = Object.entries(MANAGEMENT).map(([name, address]) => `${address} ${name}`);
  write('/etc/hosts', `127.0.0.1 localhost\n${names.join('\n')}\n`);
  write(
    '/etc/ssh/ssh_config',
    [
      `IdentityFile ${directory}/keys/user_key`,
      'IdentitiesOnly yes',
      'IdentityAgent none',
      `GlobalKnownHostsFile ${directory}/keys/known_hosts`,
      'StrictHostKeyChecking yes',
      'BatchMode yes',
      '',
    ].join('\n'),
  );
  write(
    '/etc/ssh/sshd_config',
    [
      `ListenAddress ${MANAGEMENT[host.name as Site]}`,
      `HostKey ${directory}/keys/host_key`,
      'PidFile /run/sshd.pid',
      `AuthorizedKeysFile ${directory}/keys/user_key.pub`,
      ...['StrictModes no', 'UsePAM no', 'UseDNS no', 'PrintMotd no', 'PrintLastLog no'],
      'PermitRootLogin prohibit-password',
      'PasswordAuthentication no',
      '',
    ].join('\n'),
  );
}

/** The DHCP reservations of a site for the VMs. */
export const reservations = (site: Site, macs: readonly string[]): Record<string, string> =>
  Object.fromEntries(macs.map((mac) => [mac, vmAddress(site, mac, 4)]));

/** What a VM with this MAC address gets at a site: by reservation, by SLAAC. */
export function vmAddress(site: Site, mac: string, family: 4 | 6): string {
  const { prefix4, prefix6 } = NETWORKS[site];
  const last = mac.slice(-2);
  if (family === 4) return `${prefix4}.${Number.parseInt(last, 16)}`;
  return `${prefix6}:ff:fe00:${last.replace(/^0/, '')}`;
}
