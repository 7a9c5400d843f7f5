/* Can this VM come here?  Every obstacle at once, and nothing is changed. */

import { existsSync, statfsSync } from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { canRead, LUGGAGE_FORMAT } from '../daemon/api/client.js';
import { run } from '../libc/command.js';
import type { DestinationSide } from './destination-log.js';
import { isListening } from './discard.js';
import type { Journals } from './journal.js';
import type { CheckAnswer, CheckBody } from './protocol.js';
import { neededFiles, socketPaths } from './qemu-command.js';
import { findQemus } from './qemu-process.js';
import { chooseBridge } from './tap.js';
import type { VmDaemon } from './vm-daemon.js';

const GIB = 2 ** 30;

/** How a VM is set up here: what the receiving QEMU's command line needs to know. */
export interface PlaceHere {
  /** Bridge by TapNetdev.at. */
  bridges: Map<number, string>;
  /** Where copied disks will be, by device. */
  targets: Map<string, string>;
  /** Path here by path at the source, where they differ. */
  paths: Map<string, string>;
}

export async function checkDestination(
  body: CheckBody,
  { journals, daemon }: DestinationSide,
): Promise<{ answer: CheckAnswer; place: PlaceHere }> {
  const problems: string[] = [];
  const note = async <T>(work: Promise<T>): Promise<T | undefined> => {
    try {
      return await work;
    } catch (error) {
      problems.push(error instanceof Error ? error.message : String(error));
      return undefined;
    }
  };
  const qemu = (await note(programHere(body))) ?? '';
  await note(journalHere(journals));
  await note(flowsHere(body, daemon));
  if (findQemus(body.name).length > 0) problems.push(`a VM named ${body.name} runs already`);
  problems.push(...missingFiles(body));
  const bridges = new Map<number, string>();
  for (const tap of body.taps) {
    const bridge = await note(chooseBridge(body.bridge, tap.bridge));
    if (bridge !== undefined) bridges.set(tap.at, bridge);
  }
  const targets = diskTargets(body);
  problems.push(...(await diskProblems(body, targets)));
  const paths = await socketsHere(body);
  for (const disk of body.disks) paths.set(disk.path, targets.get(disk.device) ?? disk.path);
  const answer = { host: hostname(), qemu, problems, targets: Object.fromEntries(targets) };
  return { answer, place: { bridges, targets, paths } };
}

/* Found out now, and not with the VM stopped.  A daemon that is still to be started is our own. */
async function flowsHere({ luggage }: CheckBody, daemon: VmDaemon): Promise<void> {
  if (luggage === undefined) return;
  const here = (await daemon.luggage()) ?? LUGGAGE_FORMAT;
  if (canRead(here, luggage)) return;
  const text = `the daemon here takes in flows of version ${here.version}, and the VM's are of ${luggage.version}`;
  throw new Error(`${text}; install the same tiflow on both, and restart the daemons`);
}

/* Without it nobody could say later what has become of the VM. */
async function journalHere(journals: Journals): Promise<void> {
  try {
    journals.probe();
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`write the journal in ${journals.directory}: ${why}`, { cause });
  }
}

/* The version that the program says, and that it has the machine. */
async function programHere({ program, machine }: CheckBody): Promise<string> {
  const text = await run(`ask ${program} for its version`, [program, '--version']);
  const version = /version (\d+(?:\.\d+)+)/.exec(text)?.[1] ?? text.trim();
  const machines = await run(`ask ${program} for its machines`, [program, '-machine', 'help']);
  const names = machines.split('\n').map((line) => line.split(' ')[0]);
  if (names.includes(machine)) return version;
  const advice = `install a QEMU that has it, or start the VM with a machine that both have`;
  throw new Error(`QEMU ${version} here has no machine ${machine}; ${advice}`);
}

function missingFiles(body: CheckBody): string[] {
  const devices = body.devices.filter((path) => !existsSync(path));
  const disks = body.storage === 'shared' ? body.disks.map(({ path }) => path) : [];
  const shared = disks.filter((path) => path.startsWith('/') && !existsSync(path));
  const needed = neededFiles(body.argv).filter((path) => !existsSync(path));
  return [
    ...devices.map((path) => `${path} is not here, and the VM uses it where it is${advice(path)}`),
    ...needed.map((path) => `${path} is not here, and the VM needs it to start`),
    ...shared.map((path) => `disk ${path} is not here; share it, or copy it (--storage copy)`),
  ];
}

const MODULES: Record<string, string> = { '/dev/vhost-net': 'vhost_net', '/dev/kvm': 'kvm' };

const advice = (path: string): string =>
  MODULES[path] === undefined ? '' : ` (modprobe ${MODULES[path]})`;

function diskTargets({ storage, storageDir, disks }: CheckBody): Map<string, string> {
  if (storage === 'shared') return new Map();
  return new Map(
    disks.map(({ device, path }) => [
      device,
      storageDir === undefined ? path : join(storageDir, basename(path)),
    ]),
  );
}

async function diskProblems(body: CheckBody, targets: Map<string, string>): Promise<string[]> {
  if (targets.size === 0) return [];
  const problems: string[] = [];
  const needed = new Map<string, number>();
  for (const { device, allocated } of body.disks) {
    const path = targets.get(device) ?? '';
    const directory = dirname(path);
    if (existsSync(path)) {
      problems.push(`${path} exists: move it away, or copy to elsewhere (--storage-dir DIR)`);
    } else if (!existsSync(directory)) {
      problems.push(`no directory ${directory} for the disk: make it, or say --storage-dir DIR`);
    } else needed.set(directory, (needed.get(directory) ?? 0) + allocated);
  }
  for (const [directory, bytes] of needed) {
    const { bavail, bsize } = statfsSync(directory);
    if (bavail * bsize >= bytes) continue;
    const [has, needs] = [bavail * bsize, bytes].map((each) => (each / GIB).toFixed(2));
    problems.push(`${directory} has ${has} GiB free, and the disks need ${needs} GiB`);
  }
  const image = await run('run qemu-img', ['qemu-img', '--version']).catch((error: Error) => error);
  if (image instanceof Error) problems.push(`${image.message} (install qemu-utils)`);
  return problems;
}

/* The same path as at the source, unless somebody listens there. */
async function socketsHere(body: CheckBody): Promise<Map<string, string>> {
  const paths = new Map<string, string>();
  for (const path of socketPaths(body.argv)) {
    if (await isListening(path)) paths.set(path, `${path}.${body.id}`);
  }
  return paths;
}
