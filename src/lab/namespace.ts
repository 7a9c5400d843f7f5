/**
 * Network namespaces as the hosts of a lab: make one, run something in it, end it.
 *
 * Commands enter by `nsenter --net`, never by `ip netns exec`: that one also makes a private
 * mount namespace, and what a daemon pins below its run directory would vanish with it.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';

const NAMESPACES = '/run/netns';

/** A lab command that failed: what was run, where, and what it said. */
export class LabError extends Error {
  override name = 'LabError';
}

export const namespacePath = (namespace: string): string => `${NAMESPACES}/${namespace}`;

export const namespaceExists = (namespace: string): boolean => existsSync(namespacePath(namespace));

/** The argument vector that runs `argv` inside the namespace, same pid, same mounts. */
export const insideNamespace = (namespace: string, argv: readonly string[]): string[] => [
  'nsenter',
  `--net=${namespacePath(namespace)}`,
  '--',
  ...argv,
];

/** Runs a command to its end; returns its standard output. Throws LabError if it fails. */
export function runCommand(argv: readonly string[], input = ''): string {
  const [file = '', ...rest] = argv;
  try {
    return execFileSync(file, rest, {
      input,
      encoding: 'utf8',
      stdio: ['pipe', 'pipe', 'pipe'],
      maxBuffer: 64 << 20,
    });
  } catch (cause) {
    const stderr = (cause as { stderr?: string }).stderr ?? '';
    const why = stderr.trim() || (cause as Error).message;
    throw new LabError(`run ${argv.join(' ')}: ${why}`, { cause });
  }
}

export const runInside = (namespace: string, argv: readonly string[], input = ''): string =>
  runCommand(insideNamespace(namespace, argv), input);

/** Runs `ip` commands, one a line, in the namespace; all or a LabError at the first that fails. */
export const ipBatch = (namespace: string, lines: readonly string[]): void => {
  runCommand(['ip', '-n', namespace, '-batch', '-'], `${lines.join('\n')}\n`);
};

/** Writes below /proc/sys/net of the namespace: `{'ipv4/ip_forward': '1'}`. */
export function writeSysctls(namespace: string, settings: Record<string, string>): void {
  const lines = Object.entries(settings).map(
    ([name, value]) => `echo ${value} > /proc/sys/net/${name}`,
  );
  runInside(namespace, ['sh', '-e'], `${lines.join('\n')}\n`);
}

export function createNamespace(namespace: string): void {
  runCommand(['ip', 'netns', 'add', namespace]);
  ipBatch(namespace, ['link set lo up']);
}

/** Ends every process in the namespace, then the namespace. Nothing happens if there is none. */
export function deleteNamespace(namespace: string): void {
  if (!namespaceExists(namespace)) return;
  const deadline = Date.now() + END_BOUND_MS;
  for (;;) {
    const pids = namespacePids(namespace);
    if (pids.length === 0 || Date.now() > deadline) break;
    for (const pid of pids) endProcess(pid);
    Atomics.wait(ASLEEP, 0, 0, END_PROBE_MS);
  }
  runCommand(['ip', 'netns', 'del', namespace]);
}

/** A process that waits for a disk may take its time to die. */
const END_BOUND_MS = 2_000;
const END_PROBE_MS = 2;
/** Never woken: a sleep that also works while this process is ending. */
const ASLEEP = new Int32Array(new SharedArrayBuffer(4));

export const namespacePids = (namespace: string): number[] =>
  runCommand(['ip', 'netns', 'pids', namespace]).split('\n').filter(Boolean).map(Number);

/** SIGKILL; a process that is gone already is fine. */
export function endProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
