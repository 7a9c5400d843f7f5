/* What a migration asks of the daemon on its side, for VMs whose boundary is on their tap. */

import type { GuestState, LuggageFormat } from '../daemon/api/client.js';
import { DaemonClient, DaemonError, DaemonNotRunning } from '../daemon/api/client.js';
import {
  type ExportView,
  FREEZE_MS,
  type GuestPlaceView,
  type ImportView,
  type SynchronizeView,
  type TapsView,
  type TapView,
} from '../daemon/view/view.js';

/** What travels of a VM's flows from daemon to daemon. */
export type Exported = Pick<ExportView, 'flows' | 'outside'>;
export type Placed = Pick<GuestPlaceView, 'outside' | 'gateway'>;
export type Imported = Pick<ImportView, 'imported' | 'refused'>;
export type Synchronized = Omit<SynchronizeView, 'version'>;

/** All throw DaemonError or DaemonNotRunning. */
export interface VmDaemon {
  /** Undefined: no daemon runs here, or one that knows no taps. */
  taps(): Promise<TapView[] | undefined>;
  /** In what form it exports flows, and takes them in.  Undefined: no daemon runs here. */
  luggage(): Promise<LuggageFormat | undefined>;
  adoptTap(name: string, mac?: string): Promise<void>;
  /** A tap that it does not have is no error. */
  forgetTap(name: string): Promise<void>;
  guest(name: string): Promise<GuestState>;
  /** `request`: "dhcp", or addresses like "198.51.100.7/24". */
  place(name: string, guest: GuestState, request: string[]): Promise<Placed>;
  /** Until they have moved, or `synchronize` says that they do not. */
  freeze(name: string): Promise<void>;
  exportFlows(name: string): Promise<Exported>;
  importFlows(name: string, from: Exported): Promise<Imported>;
  /** `moved` false: the VM has been nowhere else, so that its flows go on as they were. */
  synchronize(name: string, withinMs: number, moved: boolean): Promise<Synchronized>;
  announce(name: string): Promise<void>;
}

export function vmDaemonAt(runDir: string): VmDaemon {
  const client = new DaemonClient(runDir);
  return {
    taps: () => client.taps().catch(noneHere),
    luggage: () => client.tapsView().then(luggageOf, noneHere),
    adoptTap: (name, mac) => client.attachTap(name, mac),
    forgetTap: (name) => client.detachTap(name).catch(noneHere),
    guest: (name) => client.guest(name),
    place: (name, guest, request) => client.place(name, guest, request),
    freeze: async (name) => void (await client.freeze(FREEZE_MS.most, name)),
    exportFlows: (name) => client.exportFlows(name),
    importFlows: (name, from) => client.importFlows(name, from),
    synchronize: (name, withinMs, moved) => client.synchronize(name, withinMs, moved),
    announce: (name) => client.announce(name),
  };
}

/* Daemons of before it was told: of version 0, which nobody can read. */
const luggageOf = ({ luggage = TOO_OLD }: Partial<TapsView>): LuggageFormat => luggage;
const TOO_OLD: LuggageFormat = { version: 0, lowest: 0, flow_bytes: 0, plain_bytes: 0 };

function noneHere(error: unknown): undefined {
  if (error instanceof DaemonNotRunning) return undefined;
  const absent = error instanceof DaemonError && /^(not-found|no-such-tap)$/.test(error.code);
  if (!absent) throw error;
}
