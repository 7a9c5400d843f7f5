/**
 * A host of a lab as a machine of its own: beside its network namespace a mount namespace in which
 * the paths that programs use by default are its own, so that /run/tiflow, /etc and /var/lib mean
 * on two hosts what they mean on two machines.
 *
 *     /run              a tmpfs; the lab's directory is carried over into it
 *     /etc, /var/lib    this machine's, changes are the host's own (overlay)
 *     /usr/local/bin    likewise
 *     /root/.ssh        empty
 *     /sys, /usr        if wanted: of the host's own network; with more programs below this machine's
 *
 * The mount namespace lives as long as its holder, a process that does nothing else.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, openSync } from 'node:fs';
import { insideNamespace, LabError } from './namespace.js';
import {
  type HostRecord,
  isRunning,
  type LabRecord,
  processStart,
  saveRecord,
} from './registry.js';
import { until } from './wait.js';

export interface OwnMounts {
  /** directories that get a tmpfs with so many bytes of room */
  room?: Record<string, number>;
  /** a directory whose `usr` lies over this machine's /usr */
  programs?: string;
  /** /sys is that of the host's network, and cannot be written, as in a container */
  sys?: boolean;
}

/** $1: the lab's directory, $2: what to touch at the end, $3: more commands. */
const MOUNTS = `set -e
exec 9< "$1"
mount -t tmpfs -o mode=755 tiflow-lab /run
mkdir -p "$1"
mount --no-canonicalize --bind /proc/self/fd/9 "$1"
exec 9<&-
for of in /etc /var/lib /usr/local/bin; do
  own=/run/overlay$of
  mkdir -p "$own/upper" "$own/work"
  mount -t overlay -o "lowerdir=$of,upperdir=$own/upper,workdir=$own/work" tiflow-lab "$of"
done
[ ! -d /root/.ssh ] || mount -t tmpfs -o mode=700 tiflow-lab /root/.ssh
eval "$3"
touch "$2"
exec sleep infinity
`;

function moreMounts({ room = {}, programs, sys = false }: OwnMounts): string {
  const rooms = Object.entries(room).map(
    ([path, bytes]) =>
      `mkdir -p ${path} && mount -t tmpfs -o mode=755,size=${bytes} tiflow-lab ${path}`,
  );
  const over = `mount -t overlay -o lowerdir=${programs}/usr:/usr tiflow-lab /usr`;
  return [
    ...rooms,
    ...(programs === undefined ? [] : [over]),
    ...(sys ? ['mount -t sysfs -o ro sysfs /sys'] : []),
  ].join('\n');
}

/** Gives the host its mount namespace, with an empty run directory for a daemon. */
export async function giveMounts(
  record: LabRecord,
  host: HostRecord,
  mounts: OwnMounts,
): Promise<void> {
  const { directory } = record;
  const ready = `${directory}/${host.name}/mounted`;
  mkdirSync(`${directory}/${host.name}`, { recursive: true });
  const log = openSync(`${directory}/${host.name}/holder.log`, 'a');
  const unshare = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', MOUNTS, 'sh'];
  const argv = [...unshare, directory, ready, moreMounts(mounts)];
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
}

/** The path under which this process reaches a path of the host. */
export function seenFromOutside(host: HostRecord, path: string): string {
  if (!host.holder) throw new LabError(`${host.name} has no mounts of its own`);
  return `/proc/${host.holder.pid}/root${path}`;
}
