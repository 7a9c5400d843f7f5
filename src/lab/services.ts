/**
 * The servers and clients of the lab's hosts as argument vectors and configuration files below
 * the lab's directory: the real dnsmasq, udhcpc, sshd and ssh, and the tiflow daemon. Nothing
 * outside of that directory is written: udhcpc has its own script that leaves /etc/resolv.conf
 * alone, sshd has its own keys.
 */
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { runCommand } from './namespace.js';
import { NETWORKS, type Site, VM_MAC } from './topology.js';

const CLI = fileURLToPath(new URL('../cli/main.js', import.meta.url));

/**
 * DHCPv4 and router advertisements for one site, authoritative, answering at once. `reserved`:
 * MAC address → IPv4 address.
 */
export function dnsmasq(
  directory: string,
  site: Site,
  reserved: Record<string, string> = { [VM_MAC]: NETWORKS[site].vm4 },
): string[] {
  const { gateway4, prefix4, prefix6 } = NETWORKS[site];
  return [
    ...['dnsmasq', '--conf-file=/dev/null', '--keep-in-foreground', '--user=root', '--port=0'],
    ...['--interface=br0', '--except-interface=lo', '--bind-interfaces', '--dhcp-authoritative'],
    '--no-ping',
    `--pid-file=${directory}/${site}/dnsmasq.pid`,
    `--dhcp-leasefile=${directory}/${site}/leases`,
    `--log-facility=${directory}/${site}/dnsmasq.log`,
    `--dhcp-range=${prefix4}.100,${prefix4}.199,255.255.255.0,1h`,
    ...Object.entries(reserved).map(([mac, address]) => `--dhcp-host=${mac},${address}`),
    `--dhcp-option=option:router,${gateway4}`,
    '--enable-ra',
    `--dhcp-range=${prefix6}:,ra-only,64,2h`,
    '--ra-param=br0,high,4,1800',
  ];
}

/* `deconfig` must leave IPv6 alone: it is SLAAC's. On a renewal without change nothing may flap. */
export const UDHCPC_SCRIPT = `#!/bin/sh
bits() {
  n=0
  for octet in $(echo "$1" | tr . ' '); do
    while [ "$octet" -gt 0 ]; do n=$((n + (octet & 1))); octet=$((octet >> 1)); done
  done
  echo "$n"
}
case "$1" in
deconfig)
  ip -4 addr flush dev "$interface"
  ip link set "$interface" up
  ;;
bound|renew)
  new="$ip/\${mask:-$(bits "$subnet")}"
  if ! ip -4 -o addr show dev "$interface" | grep -q " $new "; then
    ip -4 addr flush dev "$interface"
    ip addr add "$new" dev "$interface"
  fi
  [ -z "$router" ] || ip route replace default via "\${router%% *}" dev "$interface"
  ;;
esac
exit 0
`;

/** The DHCP client of the VM; it asks every second until it has a lease. */
export function udhcpc(directory: string): string[] {
  const script = `${directory}/vm/udhcpc.script`;
  mkdirSync(`${directory}/vm`, { recursive: true });
  writeFileSync(script, UDHCPC_SCRIPT);
  chmodSync(script, 0o755);
  const pidFile = `${directory}/vm/udhcpc.pid`;
  const timing = ['-t', '5', '-T', '1', '-A', '1'];
  return ['udhcpc', '-f', '-i', 'eth0', '-s', script, '-p', pidFile, ...timing];
}

/**
 * Debian's sshd insists on a directory below /run that exists only where sshd is installed as a
 * service; it gets one on a /run of its own, so that nothing is left on the machine. The lab's
 * directory is carried over into that /run by a descriptor: its path leads nowhere there.
 */
export function sshd(directory: string, host = 'vm'): string[] {
  const home = `${directory}/${host}/sshd`;
  const keys = generateKeys(directory);
  mkdirSync(home, { recursive: true });
  const settings = [
    'Port 22',
    'ListenAddress 0.0.0.0',
    'ListenAddress ::',
    `HostKey ${keys}/host_key`,
    `PidFile ${home}/sshd.pid`,
    `AuthorizedKeysFile ${keys}/user_key.pub`,
    ...['StrictModes no', 'UsePAM no', 'UseDNS no', 'PrintMotd no', 'PrintLastLog no'],
    'Subsystem sftp /usr/lib/openssh/sftp-server',
    ...['PermitRootLogin prohibit-password', 'PasswordAuthentication no', 'PermitUserRC no'],
  ];
  writeFileSync(`${home}/sshd_config`, `${settings.join('\n')}\n`);
  const start = [
    `exec 9< ${directory}`,
    'mount -t tmpfs -o mode=755 tiflow-lab /run',
    `mkdir -p -m 0755 /run/sshd ${directory}`,
    `mount --no-canonicalize --bind /proc/self/fd/9 ${directory}`,
    'exec 9<&-',
    `exec /usr/sbin/sshd -D -e -f ${home}/sshd_config`,
  ].join(' && ');
  return ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', start];
}

/** The keys of a lab: that of its ssh servers, that of its one user. Returns their directory. */
export function generateKeys(directory: string): string {
  const keys = `${directory}/keys`;
  mkdirSync(keys, { recursive: true });
  for (const name of ['host_key', 'user_key']) generateKey(`${keys}/${name}`);
  return keys;
}

function generateKey(file: string): void {
  if (existsSync(file)) return;
  runCommand(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'tiflow-lab', '-f', file]);
}

/** The stock ssh client, told nothing of this machine's own configuration and known hosts. */
export function ssh(directory: string, address: string, command: string): string[] {
  const options = {
    IdentityFile: `${directory}/keys/user_key`,
    IdentitiesOnly: 'yes',
    IdentityAgent: 'none',
    UserKnownHostsFile: '/dev/null',
    GlobalKnownHostsFile: '/dev/null',
    StrictHostKeyChecking: 'no',
    BatchMode: 'yes',
    LogLevel: 'ERROR',
  };
  const flags = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  return ['ssh', '-T', '-F', '/dev/null', ...flags, `root@${address}`, command];
}

/** The tiflow command of this very build. */
export const tiflow = (...argv: string[]): string[] => [process.execPath, CLI, ...argv];

/**
 * A daemon with its run directory and a configuration file of its own. `seen`: how its host sees
 * the run directory, if otherwise than we, and the interfaces to attach.
 */
export function daemon(
  runDir: string,
  settings: Record<string, string | number | readonly string[]>,
  seen: { runDir: string; interfaces: readonly string[] } = { runDir, interfaces: ['eth0'] },
): string[] {
  mkdirSync(runDir, { recursive: true });
  const lines = Object.entries(settings).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  writeFileSync(`${runDir}.toml`, `${lines.join('\n')}\n`);
  const attach = seen.interfaces.flatMap((name) => ['--interface', name]);
  return tiflow('daemon', '--config', `${seen.runDir}.toml`, '--run-dir', seen.runDir, ...attach);
}
