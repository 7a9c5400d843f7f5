/**
 * What the labs on this machine consist of, written down before it exists: one directory a lab
 * with `lab.json` in it. Thus any later command can use a lab or take it down, and what a killed
 * run left behind is found by its dead owner.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { deleteNamespace, endProcess, LabError, namespaceExists, runCommand } from './namespace.js';

const LABS = '/run/tiflow-lab';

/** A process by pid and start time, so that a recycled pid is never mistaken for it. */
export interface ProcessRecord {
  pid: number;
  start: string;
  what: string;
  host: string;
}

export interface HostRecord {
  name: string;
  namespace: string;
  /** of its tiflow daemon, whether one runs or not; as seen from outside of the host */
  run_dir: string;
  /** keeps the host's own mount namespace; absent: the host has this machine's mounts */
  holder?: { pid: number; start: string };
}

export interface LabRecord {
  version: 1;
  name: string;
  topology: string;
  /** the process whose end makes this lab stale; null: kept until `lab down` */
  owner: { pid: number; start: string } | null;
  directory: string;
  hosts: HostRecord[];
  processes: ProcessRecord[];
  /** where the VM's cable is; of a real VM: not known here */
  plugged: string | null;
}

/** Field 22 of /proc/PID/stat, or undefined if there is no such process. */
export function processStart(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

export const isRunning = (p: { pid: number; start: string }): boolean =>
  processStart(p.pid) === p.start;

export const labDirectory = (name: string): string => `${LABS}/${name}`;

/** A lab on record, so that it can be taken down from now on, but not built yet. */
export function newRecord(
  name: string,
  topology: string,
  hosts: readonly string[],
  owned: boolean,
): LabRecord {
  const directory = labDirectory(name);
  const records = hosts.map((host) => ({
    name: host,
    namespace: `tl-${name}-${host}`,
    run_dir: `${directory}/${host}/tiflow`,
  }));
  const taken = records.find((host) => namespaceExists(host.namespace));
  if (taken) {
    const advice = `tiflow lab down --name ${name}`;
    throw new LabError(`lab ${name}: ${taken.namespace} exists (${advice})`);
  }
  const owner = owned ? { pid: process.pid, start: processStart(process.pid) ?? '' } : null;
  const record: LabRecord = {
    version: 1,
    name,
    topology,
    owner,
    directory,
    hosts: records,
    processes: [],
    plugged: null,
  };
  saveRecord(record);
  return record;
}

export function saveRecord(record: LabRecord): void {
  mkdirSync(record.directory, { recursive: true });
  const file = `${record.directory}/lab.json`;
  writeFileSync(`${file}.new`, JSON.stringify(record, null, 2));
  renameSync(`${file}.new`, file);
}

/** Throws LabError if there is no such lab. */
export function loadRecord(name: string): LabRecord {
  const file = `${labDirectory(name)}/lab.json`;
  if (!existsSync(file)) {
    throw new LabError(`lab ${name}: there is none (tiflow lab list shows what there is)`);
  }
  return JSON.parse(readFileSync(file, 'utf8')) as LabRecord;
}

export function listRecords(): LabRecord[] {
  if (!existsSync(LABS)) return [];
  return readdirSync(LABS)
    .filter((name) => existsSync(`${LABS}/${name}/lab.json`))
    .map(loadRecord);
}

export const isStale = (record: LabRecord): boolean =>
  record.owner !== null && !isRunning(record.owner);

/** Takes down the labs of runs that died without doing so; returns their names. */
export function sweepStale(): string[] {
  const stale = listRecords().filter(isStale);
  for (const record of stale) removeLab(record);
  return stale.map((record) => record.name);
}

/**
 * Ends all processes of the lab, its mounts, its namespaces, its directory. Synchronous, so that
 * it also works while this process is ending; idempotent; goes on after a failure and throws
 * the first one at the end.
 */
export function removeLab(record: LabRecord): void {
  const steps: Array<() => void> = [
    () => {
      for (const p of record.processes) if (isRunning(p)) endProcess(p.pid);
    },
    ...record.hosts.map((host) => () => deleteNamespace(host.namespace)),
    () => unmountBelow(record.directory),
    () => rmSync(record.directory, { recursive: true, force: true }),
  ];
  let first: unknown;
  for (const step of steps) {
    try {
      step();
    } catch (error) {
      first ??= error;
    }
  }
  if (first !== undefined) throw first;
}

export const mountsBelow = (directory: string): string[] =>
  readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((mount) => mount.startsWith(`${directory}/`));

export function unmountBelow(directory: string): void {
  for (const mount of mountsBelow(directory).reverse()) runCommand(['umount', '-l', mount]);
}
