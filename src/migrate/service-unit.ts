/* The service manager behind a running QEMU: does it start the VM again when it ends here?  Then it
 * would run twice.  systemd.service(5), systemctl(1).
 */

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

export interface ServiceUnit {
  name: string;
  /** Why the VM must not be moved as it is. */
  problem: string | undefined;
  notes: string[];
}

const PROPERTIES = ['MainPID', 'Restart', 'UnitFileState'];

/** Undefined: it is in no service, or nobody can say. */
export async function serviceOf(pid: number): Promise<ServiceUnit | undefined> {
  const name = unitOf(readFileSync(`/proc/${pid}/cgroup`, 'utf8'));
  if (name === undefined) return undefined;
  const asked = ['show', name, '--property', PROPERTIES.join(',')];
  const { status, stdout } = spawnSync('systemctl', asked, { encoding: 'utf8' });
  return status === 0 ? serviceUnit(name, pid, stdout) : undefined;
}

/** The innermost service of /proc/PID/cgroup: cgroups(7). */
export function unitOf(cgroups: string): string | undefined {
  const [path = ''] = cgroups
    .split('\n')
    .flatMap((line) => /^\d+:(?:name=systemd)?:(.*)$/.exec(line)?.[1] ?? []);
  return path.split('/').findLast((part) => part.endsWith('.service'));
}

/** `shown`: what `systemctl show` prints of it. */
export function serviceUnit(name: string, pid: number, shown: string): ServiceUnit {
  const of = Object.fromEntries(shown.split('\n').map((line) => line.split('=', 2)));
  const { Restart: restart = 'no', UnitFileState: state = '' } = of as Record<string, string>;
  const notes: string[] = [];
  // QEMU quits with exit code 0.
  const always = restart === 'always' || restart === 'on-success';
  const again = `${name} has Restart=${restart}`;
  const advice = `systemctl edit --runtime ${name}: [Service] Restart=no`;
  const problem =
    always && of.MainPID === String(pid)
      ? `${again} and would start the VM here again when it has moved; first: ${advice}`
      : undefined;
  if (restart !== 'no' && problem === undefined) {
    notes.push(`${again}: see that it does not start the VM here again when it has moved`);
  }
  if (state.startsWith('enabled')) {
    notes.push(`${name} is enabled: it starts the VM here again at the next boot; disable it`);
  }
  return { name, problem, notes };
}
