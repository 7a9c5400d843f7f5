/* What has to be known of the VM before anything is asked of the destination. */

import type { CheckBody } from './protocol.js';
import { changesUser, tapNetdevs } from './qemu-command.js';
import { openDevices, type QemuProcess } from './qemu-process.js';
import { type ServiceUnit, serviceOf } from './service-unit.js';
import { type Disk, SourceQemu, VmError } from './source-qemu.js';
import { linkOf } from './tap.js';
import type { VmDaemon } from './vm-daemon.js';

export interface MigrationRequest {
  id: string;
  /** A guest's name, or the path of a QMP socket. */
  vm: string;
  host: string;
  rsh: string[];
  /** How tiflow is called there. */
  tiflow: string;
  mode: 'live' | 'pause-and-copy';
  storage: 'shared' | 'copy';
  storageDir: string | undefined;
  /** "dhcp", or addresses like "198.51.100.7/24". */
  addresses: string[];
  bridge: string | undefined;
  /** Bytes per second; undefined: as fast as it goes. */
  bandwidth: number | undefined;
  downtimeMs: number | undefined;
  direct: boolean;
  placement: 'auto' | 'hypervisor' | 'guest';
}

export interface Survey {
  source: SourceQemu;
  body: CheckBody;
  disks: Disk[];
  /** What will be otherwise there, and keeps nobody from moving. */
  notes: string[];
  /** Names of the taps that have a boundary. */
  protectedTaps: string[];
}

/** Throws VmError, QmpError: the VM cannot be moved as it is. */
export async function survey(request: MigrationRequest, daemon: VmDaemon): Promise<Survey> {
  const source = await SourceQemu.connect(request.vm);
  try {
    return await surveyOf(source, request, daemon);
  } catch (error) {
    source.qmp.close();
    throw error;
  }
}

async function surveyOf(
  source: SourceQemu,
  request: MigrationRequest,
  daemon: VmDaemon,
): Promise<Survey> {
  await requireMovable(source, request.vm);
  const { argv, program, name = request.id, qmpPath = '' } = source.qemu;
  const macs = await protectedMacs(source, request, daemon);
  const disks = await source.disks();
  if (request.storage === 'copy') requireFiles(disks);
  const taps: CheckBody['taps'] = [];
  for (const { at, id: netdev } of tapNetdevs(argv)) {
    const tap = source.taps.get(at);
    if (tap === undefined) throw new VmError(`the tap of -netdev ${netdev ?? at} cannot be found`);
    const [{ master: bridge, mtu }, mac] = [await linkOf(tap), macs.get(tap)];
    const isProtected = macs.has(tap);
    taps.push({
      ...{ at, name: tap, isProtected },
      ...(netdev !== undefined && { netdev }),
      ...(bridge !== undefined && { bridge }),
      ...(mtu !== undefined && { mtu }),
      ...(mac !== undefined && { mac }),
    });
  }
  const luggage = macs.size > 0 ? await daemon.luggage() : undefined;
  const body: CheckBody = {
    ...{ id: request.id, name, program, argv, qmp: qmpPath, taps, disks },
    ...{ machine: await source.machine(), storage: request.storage, direct: request.direct },
    placement: macs.size > 0 ? 'hypervisor' : 'guest',
    devices: openDevices(source.qemu.mark.pid),
    ...(luggage !== undefined && { luggage }),
    ...(request.bridge !== undefined && { bridge: request.bridge }),
    ...(request.storageDir !== undefined && { storageDir: request.storageDir }),
  };
  const unit = await serviceOf(source.qemu.mark.pid);
  if (unit?.problem !== undefined) throw new VmError(unit.problem);
  const notes = notesOf(source.qemu, request.host, unit);
  return { source, body, disks, notes, protectedTaps: [...macs.keys()] };
}

/** What its QEMU has here, and will not have there. */
export function notesOf(
  { argv, uid }: Pick<QemuProcess, 'argv' | 'uid'>,
  host: string,
  unit: ServiceUnit | undefined,
): string[] {
  const notes: string[] = [];
  if (uid !== 0 && !changesUser(argv)) {
    notes.push(`QEMU runs as user ${uid} here, and will run as root on ${host}`);
  }
  if (unit === undefined) return notes;
  const session = `the session of ssh on ${host}, without its limits`;
  notes.push(`QEMU is in ${unit.name} here, and will be in ${session}`, ...unit.notes);
  return notes;
}

async function requireMovable(source: SourceQemu, vm: string): Promise<void> {
  const status = await source.status();
  if (status !== 'running') {
    throw new VmError(`${vm} is ${status}; only a running VM can be moved`);
  }
  const { 'blocked-reasons': reasons = [] } = await source.migration();
  if (reasons.length > 0) throw new VmError(`QEMU cannot migrate ${vm}: ${reasons.join('; ')}`);
}

function requireFiles(disks: Disk[]): void {
  for (const { device, path } of disks) {
    if (path.startsWith('/')) continue;
    throw new VmError(`disk ${device} (${path}) is no local file and cannot be copied; share it`);
  }
}

/* Tap → MAC of those on which our daemon has a boundary. */
async function protectedMacs(
  source: SourceQemu,
  { placement, vm, addresses }: MigrationRequest,
  daemon: VmDaemon,
): Promise<Map<string, string>> {
  if (placement === 'guest') return new Map();
  const known = (await daemon.taps()) ?? [];
  const names = new Set(source.taps.values());
  const macs = new Map<string, string>();
  for (const { name, mac } of known.filter((tap) => names.has(tap.name))) {
    if (mac === null) throw new VmError(`the guest behind ${name} has not sent anything yet`);
    macs.set(name, mac);
  }
  if (macs.size === 0 && placement === 'hypervisor') {
    throw new VmError(
      `no boundary is on a tap of ${vm} (${[...names].join(', ') || 'it has none'})`,
    );
  }
  const given = addresses.filter((address) => address !== 'dhcp');
  if (given.length > 0 && macs.size !== 1) {
    throw new VmError(
      `--address ${given[0]}: ${vm} has ${macs.size} taps with a boundary, not one`,
    );
  }
  return macs;
}
