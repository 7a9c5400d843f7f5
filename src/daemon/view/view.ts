/* What the daemon tells its clients: the JSON of the unix socket and of every `--json`.
 *
 * Field names are snake_case, as is usual in JSON that is read by jq and awk; units come last
 * (`_ms`, `_s`).  A field may be added within one `version`; none is renamed or removed.
 * Not here: what the data plane shares with the daemon (src/boundary/abi.gen.ts).
 */

import type { LuggageFormat } from '../../boundary/transfer.js';
import type { GuestState } from '../../guest/identity.js';
import type { Address } from '../../wire/address.js';

export const VIEW_VERSION = 1;

export interface InterfaceView {
  name: string;
  attached: boolean;
  /** Whether connections of hosts behind this machine are protected there as well. */
  gateway: boolean;
  carrier: boolean;
  addresses: string[];
}

/** A VM behind a tap with a boundary. */
export interface TapView {
  /** Of the tap. */
  name: string;
  /** Of the guest; null: it has not sent anything yet. */
  mac: string | null;
  place: 'home' | 'away';
  /** What the guest believes its addresses to be, and what they are here; IPv6: the prefix. */
  inside: string[];
  outside: string[];
  gateway: string | null;
  flows: { protected: number; moving: number; moved: number; legacy: number };
}

export interface TapsView {
  version: 1;
  taps: TapView[];
  /** The form in which flows are exported, and taken in. */
  luggage: LuggageFormat;
}

/** Where a VM is reached now. */
export interface GuestPlaceView {
  version: 1;
  outside: string[];
  gateway: string | null;
}

/** A VM's flows on their way; `flows` is for the other daemon alone, in base64. */
export interface ExportView {
  version: 1;
  guest: GuestState;
  outside: string[];
  flows: string;
}

export interface ImportView {
  version: 1;
  imported: number;
  refused: number;
}

/** How a synchronization of a VM's flows stands. */
export interface SynchronizeView {
  version: 1;
  moved: number;
  failed: number;
  pending: number;
  failures: Array<{ kernel: string; reason: string }>;
}

/** Bounds of a freeze, which ends by itself. */
export const FREEZE_MS = { least: 1_000, most: 600_000 } as const;

/** `quiet`: nothing is in flight any more, so that nothing will be lost. */
export interface FreezeView {
  version: 1;
  frozen: number;
  quiet: boolean;
}

/** What a kernel may not have, as tiflow can do without, and what that means. */
export const LACKS = {
  ipv6: 'no IPv6 in this kernel: IPv4 connections only',
  'socket-destroy':
    'no INET_DIAG_DESTROY in this kernel: programs hear late that a legacy connection is orphaned',
} as const;
export type Lack = keyof typeof LACKS;

/** An interface on which the boundary is wanted and is not. */
export interface MissingView {
  name: string;
  gateway: boolean;
  why: string;
}

/** What the daemon would do now about what it has on this machine: nothing, if all is well. */
export interface PlanView {
  version: 1;
  steps: Array<{
    do: string;
    because: string;
    /** What refused it when it was tried last, how often in a row, and in how long it is tried again, ms. */
    refused: string | null;
    times_refused: number;
    again_in_ms: number;
  }>;
}

/** Rounds that the world has cut short (a firewall, a full disk); they are tried again. */
export interface FailedRoundsView {
  count: number;
  /** What the last one said. */
  last: string | null;
}

export interface StatusView {
  version: 1;
  tiflow: string;
  pid: number;
  uptime_s: number;
  interfaces: InterfaceView[];
  missing: MissingView[];
  lacks: Lack[];
  /** VMs of this hypervisor. */
  taps: TapView[];
  /** Addresses that are gone from the interfaces and kept for the flows that began on them. */
  retained: string[];
  /**
   * Of the protected: `forwarded` are of hosts behind this gateway; what comes in for `stuck` is not
   * taken by the kernel that it is for.
   */
  flows: {
    protected: number;
    moving: number;
    moved: number;
    stuck: number;
    forwarded: number;
    legacy: number;
  };
  legacy_by_reason: Record<string, number>;
  counters: Record<string, number>;
  moves: { completed: number; failed: number };
  failed_rounds: FailedRoundsView;
}

export type FlowState = 'steady' | 'stuck' | 'held' | 'syncing' | 'confirming' | 'ended' | 'legacy';

export interface FlowView {
  /** 16 hexadecimal digits: initiator half, responder half. */
  tifid: string | null;
  role: 'initiator' | 'responder' | null;
  state: FlowState;
  /** Why it is legacy, why its last move failed, or what drops the packets of a stuck one. */
  reason: string | null;
  /** "192.0.2.10:22 > 203.0.113.7:40000": local end first; what the program sees. */
  kernel: string;
  /** The same connection as the network sees it now; equal to `kernel` before the first move. */
  wire: string;
  moves: number;
  last_gap_ms: number | null;
  epoch: number;
  idle_ms: number;
  /** The tap of the VM whose connection it is; null: our own kernel's. */
  tap: string | null;
  /** Of a host behind this gateway. */
  forwarded: boolean;
}

export interface FlowsView {
  version: 1;
  flows: FlowView[];
}

/** `events-lost` stands for `lost` events that a slow reader of the stream did not get. */
export type MonitorEventName =
  | 'carrier-up'
  | 'carrier-down'
  | 'address-added'
  | 'address-removed'
  | 'address-retained'
  | 'address-released'
  | 'put-back'
  | 'detour-added'
  | 'detour-removed'
  | 'detour-failed'
  | 'route-changed'
  | 'verified'
  | 'dhcp-renewed'
  | 'resumed'
  | 'attached'
  | 'detached'
  | 'flow-opened'
  | 'flow-ended'
  | 'flow-reset'
  | 'syn-sent'
  | 'syn-ack-received'
  | 'confirm-sent'
  | 'candidate'
  | 'committed'
  | 'refused'
  | 'mapped'
  | 'kicked'
  | 'proven'
  | 'narrowed'
  | 'attempt-failed'
  | 'move-failed'
  | 'stalled'
  | 'revived'
  | 'stuck'
  | 'events-lost'
  | 'vm-announced'
  | 'vm-lease-lost'
  | 'stopping';

export interface MonitorEvent {
  version: 1;
  /** CLOCK_MONOTONIC in ms: comparable between the network namespaces of one machine. */
  at_ms: number;
  event: MonitorEventName;
  interface?: string;
  address?: string;
  kernel?: string;
  wire?: string;
  tifid?: string;
  epoch?: number;
  gap_ms?: number;
  mtu?: number;
  client?: string;
  reason?: string;
  /** A rule, route or address of the kernel, as `ip` writes it. */
  object?: string;
  lost?: number;
}

/** Body of every answer with a status of 400 and above. */
export interface ErrorView {
  version: 1;
  error: { code: string; message: string };
}

/** Answer of the changing requests. */
export interface DoneView {
  version: 1;
  done: true;
}

/** What can be asked of one VM; src/daemon/vm.ts provides it. */
export interface TapControl {
  guest(): Promise<GuestState>;
  settle(guest: GuestState, request: string[]): Promise<GuestPlaceView>;
  export(): Promise<ExportView>;
  import(o: { flows: string; outside: Address[] }): ImportView;
  synchronize(withinMs: number, moved: boolean): Promise<SynchronizeView>;
  announce(): void;
}

/** What the API needs of the daemon; src/daemon/daemon.ts provides it. */
export interface DaemonControl {
  status(): StatusView;
  flows(): FlowsView;
  /** Calls `onEvent` for each event from now on; the result ends that. */
  subscribe(onEvent: (event: MonitorEvent) => void): () => void;
  /** What there is to do about what is ours on this machine. */
  plan(): PlanView;
  /** Reads the configuration again.  Throws ConfigError; then all is as it was. */
  reload(): void;
  /**
   * A name, a pattern or "default".  `gateway`: for the hosts behind this machine, too; undefined: as it
   * is there already.
   */
  attach(pattern: string, gateway?: boolean): void;
  /** A name or a pattern. */
  detach(pattern: string): Promise<void>;
  /** Before a planned move of this machine or, with a tap, of that VM. */
  freeze(forMs: number, tap?: string): Promise<FreezeView>;
  taps(): TapsView;
  attachTap(name: string, mac?: string): void;
  detachTap(name: string): Promise<void>;
  /** The VM behind a tap.  Throws RequestError if there is no boundary on it. */
  tap(name: string): TapControl;
  /** Ends the daemon soon after; what is pinned stays, so that flows go on. */
  shutdown(): void;
}
