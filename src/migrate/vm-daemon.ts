/* What a migration asks of the daemon on its side, for VMs whose boundary is on their tap. */

import { DaemonClient, DaemonError, DaemonNotRunning } from '../daemon/client.js';

/** Opaque: what a daemon knows of a guest, for the daemon at the other place. */
export type GuestState = Record<string, unknown>;

export interface TapView {
  name: string;
  mac: string;
  place: 'home' | 'away';
  inside: string[];
  outside: string[];
  gateway: string | null;
  flows: { protected: number; moving: number; moved: number; legacy: number };
}

export interface Placed {
  outside: string[];
  gateway: string | null;
}

export interface Exported {
  guest: GuestState;
  /** base64 */
  flows: string;
}

export interface Imported {
  imported: number;
  refused: number;
}

export interface Synchronized {
  moved: number;
  failed: number;
  pending: number;
  failures: { kernel: string; reason: string }[];
}

/** All throw DaemonError or DaemonNotRunning. */
export interface VmDaemon {
  /** Undefined: no daemon runs here, or one that knows no taps. */
  taps(): Promise<TapView[] | undefined>;
  adoptTap(name: string, mac?: string): Promise<void>;
  /** A tap that it does not have is no error. */
  forgetTap(name: string): Promise<void>;
  guest(name: string): Promise<GuestState>;
  /** `request`: "dhcp", or addresses like "198.51.100.7/24". */
  place(name: string, guest: GuestState, request: string[]): Promise<Placed>;
  exportFlows(name: string): Promise<Exported>;
  importFlows(name: string, from: Exported): Promise<Imported>;
  synchronize(name: string, withinMs: number): Promise<Synchronized>;
  announce(name: string): Promise<void>;
}

/* An address by DHCP takes 10 s at most. */
const ANSWER_TIMEOUT_MS = 30_000;

export function vmDaemonAt(runDir: string): VmDaemon {
  const client = new DaemonClient(runDir, { answerTimeoutMs: ANSWER_TIMEOUT_MS });
  const of = (name: string, what = '') => `/v1/taps/${encodeURIComponent(name)}${what}`;
  const ask = async <T>(method: string, path: string, body?: unknown) =>
    (await client.ask(method, path, body)) as T;
  return {
    taps: () => ask<{ taps: TapView[] }>('GET', '/v1/taps').then(({ taps }) => taps, noneHere),
    adoptTap: (name, mac) => ask('POST', '/v1/taps', { name, ...(mac && { mac }) }),
    forgetTap: (name) => ask<void>('DELETE', of(name)).catch(noneThere),
    guest: (name) => ask('GET', of(name, '/guest')),
    place: (name, guest, request) => ask('POST', of(name, '/place'), { guest, request }),
    exportFlows: (name) => ask('POST', of(name, '/export'), {}),
    importFlows: (name, { guest, flows }) => ask('POST', of(name, '/import'), { guest, flows }),
    synchronize: (name, within_ms) => ask('POST', of(name, '/synchronize'), { within_ms }),
    announce: (name) => ask('POST', of(name, '/announce'), {}),
  };
}

function noneHere(error: unknown): undefined {
  if (error instanceof DaemonNotRunning) return undefined;
  if (error instanceof DaemonError && error.code === 'not-found') return undefined;
  throw error;
}

function noneThere(error: unknown): void {
  noneHere(error);
}
