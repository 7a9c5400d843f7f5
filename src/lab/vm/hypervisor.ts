/**
 * A hypervisor of the lab as a machine of its own: a network namespace and a mount namespace in
 * which the paths that tiflow and QEMU use by default are its own, so that /run/tiflow,
 * /run/vm/NAME.qmp and /var/lib/vm mean on both hypervisors what they mean on two machines.
 *
 *     /run              a tmpfs; the lab's directory is carried over into it
 *     /etc, /var/lib    this machine's, changes are the host's own (overlay)
 *     /usr/local/bin    likewise: `tiflow` is in it
 *     /root/.ssh        empty
 *
 * The mount namespace lives as long as its holder, a process that does nothing else.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { insideNamespace, LabError } from '../namespace.js';
import {
  type HostRecord,
  isRunning,
  type LabRecord,
  processStart,
  saveRecord,
} from '../registry.js';
import { tiflow } from '../services.js';
import { NETWORKS, type Site } from '../topology.js';
import { until } from '../wait.js';

/** Where the hypervisors reach each other: their links to the router, not their VMs' subnets. */
export const MANAGEMENT: Record<Site, string> = { athos: '10.0.1.2', porthos: '10.0.2.2' };

/** $1: the lab's directory, $2: what to touch at the end, $3: bytes of /var/lib/vm. */
const MOUNTS = `set -e
exec 9< "$1"
mount -t tmpfs -o mode=755 tiflow-lab /run
mkdir -p "$1" /run/sshd /run/vm
mount --no-canonicalize --bind /proc/self/fd/9 "$1"
exec 9<&-
for of in /etc /var/lib /usr/local/bin; do
  own=/run/overlay$of
  mkdir -p "$own/upper" "$own/work"
  mount -t overlay -o "lowerdir=$of,upperdir=$own/upper,workdir=$own/work" tiflow-lab "$of"
done
mkdir -p /var/lib/vm
mount -t tmpfs -o "mode=755,size=$3" tiflow-lab /var/lib/vm
[ ! -d /root/.ssh ] || mount -t tmpfs -o mode=700 tiflow-lab /root/.ssh
touch "$2"
exec sleep infinity
`;

/** Gives the host its mount namespace and what is in it. `diskBytes`: room for disk images. */
export async function furnish(
  record: LabRecord,
  host: HostRecord,
  diskBytes: number,
): Promise<void> {
  const { directory } = record;
  const ready = `${directory}/${host.name}/mounted`;
  mkdirSync(`${directory}/${host.name}`, { recursive: true });
  const log = openSync(`${directory}/${host.name}/holder.log`, 'a');
  const unshare = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', MOUNTS, 'sh'];
  const argv = [...unshare, directory, ready, String(diskBytes)];
  const [file = '', ...rest] = insideNamespace(host.namespace, argv);
  const child = spawn(file, rest, { stdio: ['ignore', log, log], detached: true, cwd: '/' });
  child.on('error', () => {});
  child.unref();
  if (child.pid === undefined) throw new LabError(`${host.name}: ${file} cannot be run`);
  const holder = { pid: child.pid, start: processStart(child.pid) ?? '' };
  record.processes.push({ ...holder, what: 'holder', host: host.name });
  host.holder = holder;
  host.run_dir = seenFromOutside(host, '/run/tiflow');
  saveRecord(record);
  await until(`the mounts of ${host.name} (${directory}/${host.name}/holder.log)`, () => {
    if (!isRunning(holder)) throw new LabError(`${host.name}: its mounts failed`);
    return existsSync(ready);
  });
  writeConfiguration(directory, host);
}

/** The path under which this process reaches a path of the host. */
export function seenFromOutside(host: HostRecord, path: string): string {
  if (!host.holder) throw new LabError(`${host.name} has no mounts of its own`);
  return `/proc/${host.holder.pid}/root${path}`;
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
