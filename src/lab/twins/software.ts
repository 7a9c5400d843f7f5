/**
 * The network managers, routing daemons and DHCP clients of the hosts' cases: Debian's packages,
 * fetched by apt and unpacked, never installed. Installed, NetworkManager or dhcpcd would take
 * over this machine's own network at its next boot.
 *
 * A machine of the lab has them below its /usr (../own-mounts.ts).
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { buildInCache, CACHE, withNewLists } from '../cache.js';
import { runCommand } from '../namespace.js';

export const SOFTWARE = [
  'bird2',
  'dbus-daemon',
  'dhcpcd-base',
  'keepalived',
  'network-manager',
  'systemd',
] as const;

/** What apt has to fetch depends on what this machine has. */
const INSTALLED = '/var/lib/dpkg/status';

/** The directory that they are unpacked in; made now if there is none. Throws LabError. */
export function unpackedSoftware(cache = CACHE): string {
  const of = createHash('sha256').update(SOFTWARE.join(' ')).update(readFileSync(INSTALLED));
  const directory = `${cache}/software-${of.digest('hex').slice(0, 16)}`;
  if (!existsSync(directory)) {
    buildInCache(cache, directory, (work) => {
      const archives = `${work}/archives`;
      mkdirSync(`${archives}/partial`, { recursive: true });
      withNewLists(() => fetchInto(archives));
      unpack(archives, `${work}/image`);
    });
  }
  return directory;
}

/** With all that they need and this machine has not. */
function fetchInto(archives: string): void {
  runCommand([
    ...['apt-get', 'install', '-q', '-y', '--no-install-recommends', '--download-only'],
    ...['-o', `Dir::Cache::archives=${archives}`, '-o', 'APT::Sandbox::User=root'],
    ...SOFTWARE,
  ]);
}

/* Packages have files in /lib and /sbin still; on the machine these are links into /usr. */
function unpack(archives: string, into: string): void {
  for (const name of ['lib', 'sbin', 'bin']) {
    mkdirSync(`${into}/usr/${name}`, { recursive: true });
    symlinkSync(`usr/${name}`, `${into}/${name}`);
  }
  const script = 'dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"';
  for (const name of readdirSync(archives).filter((file) => file.endsWith('.deb'))) {
    runCommand(['sh', '-ec', script, 'sh', `${archives}/${name}`, into]);
  }
}
