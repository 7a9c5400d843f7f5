/**
 * What a guest consists of beside Debian's binaries: busybox init and its configuration. A guest
 * is a machine that knows nothing of tiflow and of the lab: DHCP, SLAAC, sshd, a web server,
 * an echo server (RFC 862).
 */

/** Users, and where sshd finds its keys: those come in the layer of the lab (initrd.ts). */
const SSHD_CONFIG = `Port 22
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_key
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
StrictModes no
PrintMotd no
PrintLastLog no
`;

/* Duplicate address detection would keep a new IPv6 address unusable for a second: as on the
 * lab's other hosts, it is off.
 */
const RC = `#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /run/sshd /var/empty
mount -t devpts devpts /dev/pts
chmod 0755 / /run/sshd /var/empty
hostname vm
modprobe -a virtio_pci virtio_net virtio_blk
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
ip link set lo up
ip link set eth0 up
cd /www && dd if=/dev/urandom of=new bs=1M count=16 2>/dev/null && sha256sum < new > big.sha256 &&
  mv new big &
`;

const DHCP = '/sbin/udhcpc -f -i eth0 -s /etc/udhcpc.script -t 5 -T 1 -A 1';
const INITTAB = `::sysinit:/etc/rc
::respawn:${DHCP}
::respawn:/usr/sbin/sshd -D -e
::respawn:/bin/busybox httpd -f -p 80 -h /www
::respawn:/bin/busybox nc -ll -p 7 -e /bin/cat
`;

/** What makes the second variant of the guest: its own tiflow, as a service of its init. */
const INITTAB_WITH_TIFLOW = `${INITTAB}::respawn:/usr/bin/tiflow daemon --interface eth0\n`;

const TIFLOW = `#!/bin/sh
exec /usr/bin/node /opt/tiflow/dist/src/cli/main.js "$@"
`;

/** A file of a guest: its path, its mode, its content. */
export type GuestFile = readonly [path: string, mode: number, content: string];

export const baseFiles = (udhcpcScript: string): GuestFile[] => [
  ['etc/inittab', 0o644, INITTAB],
  ['etc/rc', 0o755, RC],
  ['etc/udhcpc.script', 0o755, udhcpcScript],
  ['etc/passwd', 0o644, 'root:x:0:0:root:/root:/bin/sh\nsshd:x:100:100::/run/sshd:/bin/false\n'],
  ['etc/group', 0o644, 'root:x:0:\nsshd:x:100:\n'],
  ['etc/ssh/sshd_config', 0o644, SSHD_CONFIG],
];

export const tiflowFiles: readonly GuestFile[] = [
  ['etc/inittab', 0o644, INITTAB_WITH_TIFLOW],
  ['usr/bin/tiflow', 0o755, TIFLOW],
];
