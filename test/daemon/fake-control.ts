/* A daemon that is nothing but its answers. */

import { LUGGAGE_FORMAT } from '../../src/boundary/transfer.js';
import type {
  DaemonControl,
  FlowsView,
  FlowView,
  FreezeView,
  MonitorEvent,
  PlanView,
  StatusView,
  TapControl,
  TapsView,
  TapView,
} from '../../src/daemon/view/view.js';
import { unknownGuest } from '../../src/guest/identity.js';
import { mac } from '../../src/wire/ethernet.js';

export const TAP: TapView = {
  name: 'vnet0',
  mac: '52:54:00:00:00:0a',
  place: 'away',
  inside: ['192.0.2.10', '2001:db8:1::'],
  outside: ['198.51.100.10', '2001:db8:2::'],
  gateway: '198.51.100.1',
  flows: { protected: 2, moving: 0, moved: 1, legacy: 1 },
};

export const STATUS: StatusView = {
  version: 1,
  tiflow: '0.1.0',
  pid: 4711,
  uptime_s: 7380,
  interfaces: [
    {
      name: 'eth0',
      attached: true,
      gateway: false,
      carrier: true,
      addresses: ['198.51.100.7', '2001:db8:2::7'],
    },
    { name: 'wlan0', attached: false, gateway: false, carrier: false, addresses: [] },
  ],
  missing: [],
  lacks: [],
  taps: [],
  retained: ['192.0.2.10'],
  flows: { protected: 3, moving: 1, moved: 1, stuck: 0, forwarded: 0, legacy: 4 },
  legacy_by_reason: { 'no-room': 1, 'peer-plain': 3, mptcp: 0 },
  counters: { 'flow-opened': 12, 'old-path': 2, held: 0 },
  moves: { completed: 3, failed: 0 },
  failed_rounds: { count: 0, last: null },
};

const STEADY: FlowView = {
  tifid: '0a0b0c0d01020304',
  role: 'responder',
  state: 'steady',
  reason: null,
  kernel: '198.51.100.7:22 > 203.0.113.7:40000',
  wire: '198.51.100.7:22 > 203.0.113.7:40000',
  moves: 0,
  last_gap_ms: null,
  epoch: 0,
  idle_ms: 12,
  tap: null,
  forwarded: false,
};

export const FLOWS: FlowView[] = [
  STEADY,
  {
    ...STEADY,
    tifid: 'ffffffff00000001',
    kernel: '192.0.2.10:22 > 203.0.113.7:40001',
    wire: '198.51.100.7:61234 > 203.0.113.7:40001',
    moves: 3,
    last_gap_ms: 12,
    epoch: 3,
    idle_ms: 2500,
  },
  {
    ...STEADY,
    tifid: '1111111122222222',
    role: 'initiator',
    state: 'syncing',
    kernel: '[2001:db8:1::10]:50000 > [2001:db8:9::1]:443',
    wire: '[2001:db8:1::10]:50000 > [2001:db8:9::1]:443',
  },
  {
    ...STEADY,
    tifid: null,
    role: null,
    state: 'legacy',
    reason: 'peer-plain',
    kernel: '198.51.100.7:38000 > 203.0.113.9:80',
    wire: '198.51.100.7:38000 > 203.0.113.9:80',
  },
];

export class FakeControl implements DaemonControl {
  readonly calls: string[] = [];
  readonly listeners = new Set<(event: MonitorEvent) => void>();
  view: StatusView = STATUS;
  list: FlowView[] = FLOWS;
  steps: PlanView['steps'] = [];
  /** Thrown by the next change. */
  failure: unknown;
  onShutdown: () => void = () => undefined;

  status(): StatusView {
    return this.view;
  }

  flows(): FlowsView {
    return { version: 1, flows: this.list };
  }

  subscribe(onEvent: (event: MonitorEvent) => void): () => void {
    this.listeners.add(onEvent);
    return () => this.listeners.delete(onEvent);
  }

  plan(): PlanView {
    return { version: 1, steps: this.steps };
  }

  reload(): void {
    this.#change('reload');
  }

  attach(name: string, gateway?: boolean): void {
    const as = gateway === undefined ? '' : gateway ? ' as gateway' : ' as host';
    this.#change(`attach ${name}${as}`);
  }

  async detach(name: string): Promise<void> {
    this.#change(`detach ${name}`);
  }

  async freeze(forMs: number, tap?: string): Promise<FreezeView> {
    this.#change(`freeze ${forMs} ${tap ?? '-'}`);
    return { version: 1, frozen: 3, quiet: true };
  }

  taps(): TapsView {
    return { version: 1, taps: [TAP], luggage: LUGGAGE_FORMAT };
  }

  attachTap(name: string, mac?: string): void {
    this.#change(`attach tap ${name} ${mac ?? '-'}`);
  }

  async detachTap(name: string): Promise<void> {
    this.#change(`detach tap ${name}`);
  }

  tap(name: string): TapControl {
    const change = (call: string) => this.#change(`${call} ${name}`);
    return {
      guest: async () => {
        change('guest');
        return unknownGuest(mac('52:54:00:00:00:0a'));
      },
      settle: async (_, request) => {
        change(`settle ${request.join()}`);
        return { version: 1, outside: TAP.outside, gateway: TAP.gateway };
      },
      export: async () => {
        change('export');
        const guest = unknownGuest(mac('52:54:00:00:00:0a'));
        return { version: 1, guest, outside: TAP.inside, flows: 'VElGTA==' };
      },
      import: ({ flows, outside }) => {
        change(`import ${flows} ${outside.join()}`);
        return { version: 1, imported: 2, refused: 0 };
      },
      synchronize: async (withinMs, moved) => {
        change(`synchronize ${withinMs} ${moved}`);
        return { version: 1, moved: 2, failed: 0, pending: 0, failures: [] };
      },
      announce: () => change('announce'),
    };
  }

  shutdown(): void {
    this.#change('shutdown');
    setImmediate(() => this.onShutdown());
  }

  emit(event: MonitorEvent): void {
    for (const listener of this.listeners) listener(event);
  }

  #change(call: string): void {
    if (this.failure !== undefined) throw this.failure;
    this.calls.push(call);
  }
}
