/* VMs that libvirt manages: `virsh migrate` drives, and libvirt's hook on both hosts asks the
 * daemons for what has to be done for the flows.  Here only: whose VM it is, and virsh's words.
 *
 * Not here: the hook.  Our own driver must not touch such a VM: libvirt holds its QMP, and would
 * take what we do for a crash.
 */

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import type { MigrationRequest } from './survey.js';

const MIB = 2 ** 20;
const STDERR_SHOWN = 1_000;

/** Does libvirt know a VM of this name?  Without libvirt: no. */
export function isLibvirtDomain(name: string): boolean {
  if (name.includes('/')) return false;
  return spawnSync('virsh', ['domstate', name], { stdio: 'ignore' }).status === 0;
}

/**
 * The words of the commands; what virsh cannot do is in `refused`.  `migrate` leaves the VM paused at
 * the destination, so that its flows have moved when `resume` continues it: libvirt has no hook
 * between the two (etc/libvirt-hook).
 */
export function virshCommands(request: MigrationRequest): {
  migrate: string[];
  resume: string[];
  refused: string[];
} {
  const refused = [
    ...(request.storageDir === undefined ? [] : ['--storage-dir']),
    ...(request.bridge === undefined ? [] : ['--bridge']),
    ...(request.addresses.some((each) => each !== 'dhcp') ? ['--address'] : []),
  ];
  const uri = `qemu+ssh://${request.host}/system`;
  // Disks are mirrored by a connection of their own, which libvirt does not tunnel.
  const tunnelled = !request.direct && request.storage === 'shared';
  const migrate = [
    ...['virsh', 'migrate', '--verbose', '--suspend'],
    ...(request.mode === 'live' ? ['--live'] : []),
    ...(request.storage === 'copy' ? ['--copy-storage-all'] : []),
    ...(tunnelled ? ['--p2p', '--tunnelled'] : []),
    ...(request.bandwidth === undefined
      ? []
      : ['--bandwidth', String(Math.max(1, Math.round(request.bandwidth / MIB)))]),
    ...[request.vm, uri],
  ];
  return { migrate, resume: ['virsh', '-c', uri, 'resume', request.vm], refused };
}

/** Runs virsh; its own progress goes to `progress`.  Why it failed, or undefined. */
export async function runVirsh(
  argv: string[],
  o: { signal: AbortSignal; progress(text: string): void },
): Promise<string | undefined> {
  const [program = 'virsh', ...rest] = argv;
  const child = spawn(program, rest, { detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', o.progress);
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_SHOWN);
    o.progress(text);
  });
  // virsh cancels the migration when it is interrupted.
  o.signal.addEventListener('abort', () => child.kill('SIGINT'), { once: true });
  const [code] = await once(child, 'close');
  return code === 0 ? undefined : stderr.trim() || `virsh ended with ${code}`;
}
