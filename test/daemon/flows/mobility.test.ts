/* What mobility does with one flow whose machine comes and goes while a synchronization of it runs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FLOW_FLAG, FLOW_SIZE, type Flow, readFlow } from '../../../src/boundary/abi.gen.js';
import { Mobility, type MobilityOptions } from '../../../src/daemon/flows/mobility.js';
import type { Underway } from '../../../src/sync/agent.js';
import { type Address, address } from '../../../src/wire/address.js';
import { decodePacket } from '../../../src/wire/packet.js';
import { seq } from '../../../src/wire/seq.js';
import type { Tuple } from '../../../src/wire/tuple.js';
import { FakeClock } from '../../sim/fake-clock.js';

const KERNEL: Tuple = {
  local: address('192.0.2.10'),
  remote: address('203.0.113.7'),
  localPort: 22,
  remotePort: 40_000,
};
const NEW = address('198.51.100.10');
const OTHER = address('198.51.100.77');
const GIVE_UP_MS = 60_000;
const HOLD_MS = 900_000;

type Place = 'home' | 'away' | 'dark';

/** A machine with one flow, moved to NEW; what is done to the flow is noted. */
function machine(o: object = {}) {
  const clock = new FakeClock();
  const flow: Flow = readFlow(new DataView(new ArrayBuffer(FLOW_SIZE)));
  flow.active = 1;
  flow.mapping[0].wire = { ...KERNEL, local: NEW, localPort: 61_000 };
  const done: string[] = [];
  const state = { underway: undefined as Underway | undefined, place: 'home' as Place };
  const nothing = () => undefined;
  const end = (verb: string) => () => {
    if (state.underway !== undefined) done.push(verb);
    state.underway = undefined;
  };
  const parts = {
    boundary: {
      flows: () => [[KERNEL, flow]],
      flow: () => flow,
      attached: () => ['eth0'],
      command: ({ verb }: { verb: string }) => {
        done.push(verb);
        if (verb === 'hold') flow.flags |= FLOW_FLAG.HELD;
        if (verb === 'release') flow.flags &= ~FLOW_FLAG.HELD;
      },
    },
    agent: {
      underway: () => state.underway,
      together: (body: () => void) => body(),
      move: (_: Tuple, source: Address) => {
        if (state.underway?.source === source) return;
        done.push(`move ${source}`);
        state.underway = { source, state: 'syncing', since: clock.now() };
      },
      suspend: end('suspend'),
      cancel: end('cancel'),
      kick: () => done.push('kick'),
      reasonNow: () => 'no-answer',
    },
    monitor: {
      catchUp: nothing,
      links: () => [{ name: 'eth0', up: true, carrier: state.place !== 'dark', mtu: 1500 }],
      addresses: () => [
        { address: state.place === 'away' ? OTHER : NEW, interface: 'eth0', tentative: false },
      ],
    },
    retention: { update: nothing },
    own: { isLocal: () => false, isForeign: () => false },
    detours: { update: nothing, ended: nothing, dependOnRoutes: false },
    routes: {
      to: () => (state.place === 'away' ? { source: OTHER, interface: 'eth0' } : undefined),
      changed: nothing,
      differ: () => false,
    },
    settling: { isSettling: () => false },
    uplinks: { around: (_: unknown, __: unknown, s: unknown) => s, update: nothing },
    destroySocket: () => done.push('destroy'),
    isTrying: () => false,
    held: nothing,
    clock,
    giveUpMs: GIVE_UP_MS,
    prefer: [],
    holdMs: HOLD_MS,
    emit: nothing,
  };
  const mobility = new Mobility({ ...parts, ...o } as unknown as MobilityOptions);
  const look = (place: Place): string[] => {
    state.place = place;
    mobility.reconcile();
    return done.splice(0);
  };
  return { mobility, flow, state, done, clock, look };
}

const PROVEN = {
  type: 'proven',
  kernel: KERNEL,
  wire: { ...KERNEL, local: NEW },
  epoch: 1,
  at: 0,
} as const;

test('held again while it was being confirmed: synchronized from there, or released if proven', () => {
  const { flow, state, look } = machine();
  const confirming: Underway = { source: NEW, state: 'confirming', since: 0 };
  flow.flags = FLOW_FLAG.UNPROVEN;
  state.underway = confirming;
  assert.deepEqual(look('home'), [], 'its CONFIRM goes on');
  assert.deepEqual(look('dark'), ['hold', 'suspend'], 'nothing leaves from a dead link');
  assert.deepEqual(look('home'), [`move ${NEW}`]);
  state.underway = confirming;
  assert.deepEqual(look('dark'), ['suspend']);
  flow.flags &= ~FLOW_FLAG.UNPROVEN;
  assert.deepEqual(look('home'), ['release', 'kick']);
});

test('proven before the agent knows: waits for the event, and is released then', () => {
  const { mobility, flow, state, done, clock, look } = machine();
  flow.flags = FLOW_FLAG.HELD;
  state.underway = { source: NEW, state: 'confirming', since: 0 };
  assert.deepEqual(look('home'), []);
  state.underway = undefined;
  mobility.synchronized(PROVEN);
  clock.pass(10);
  assert.deepEqual(done, ['release', 'kick']);
});

test('an unproven flow that nobody confirms, as its daemon died, is moved again', () => {
  const { flow, look } = machine();
  flow.flags = FLOW_FLAG.UNPROVEN;
  assert.deepEqual(look('home'), [`move ${NEW}`]);
});

test('back at home with a mapping that is not proven: from home, not from what is gone', () => {
  const { flow, state, look } = machine();
  flow.flags = FLOW_FLAG.UNPROVEN;
  state.underway = { source: NEW, state: 'confirming', since: 0 };
  assert.deepEqual(look('away'), [`move ${OTHER}`]);
  assert.deepEqual(look('home'), [`move ${NEW}`]);
  assert.equal(state.underway?.source, NEW);
});

test('back at home before it was moved: goes on', () => {
  const { look } = machine();
  assert.deepEqual(look('away'), [`move ${OTHER}`]);
  assert.deepEqual(look('home'), ['cancel', 'release']);
});

test('give_up counts while there is an address, from each new one on; the queue does not', () => {
  const { state, done, clock, look } = machine();
  look('away');
  clock.pass(GIVE_UP_MS - 1_000);
  look('dark');
  clock.pass(2 * GIVE_UP_MS);
  look('away');
  state.underway = { source: OTHER, state: 'syncing', since: undefined };
  clock.pass(2 * GIVE_UP_MS);
  state.underway.since = clock.now();
  clock.pass(GIVE_UP_MS - 1_000);
  assert.deepEqual(done, []);
  clock.pass(GIVE_UP_MS + 2_000);
  assert.deepEqual(done, ['cancel', 'destroy', 'forget']);
});

test('nobody is away for longer than `hold`, however many addresses are tried', () => {
  const { state, done, clock, look } = machine();
  look('away');
  for (let ms = 0; ms < HOLD_MS + 1_000 && done.length === 0; ms += 1_000) {
    if (state.underway !== undefined) state.underway.since = clock.now();
    clock.pass(1_000);
  }
  assert.deepEqual(done, ['cancel', 'destroy', 'forget']);
  assert.ok(clock.now() >= HOLD_MS);
});

test('a flow that is at home and not held is left alone', () => {
  const { mobility, done, look } = machine();
  assert.deepEqual(look('home'), []);
  mobility.synchronized(PROVEN);
  assert.deepEqual(done, []);
});

test('the program of a host behind a gateway is told by a reset from its peer', () => {
  const told: Uint8Array[] = [];
  const outlet = { toKernel: (packet: Uint8Array) => told.push(packet) };
  const { mobility, flow, done } = machine({ outlet });
  flow.flags = FLOW_FLAG.UNPROVEN | FLOW_FLAG.FORWARDED;
  flow.rcvNxt = seq(4711);
  mobility.reconcile();
  mobility.synchronized({ ...PROVEN, type: 'failed', reason: 'reset', final: true });
  assert.deepEqual(done, [`move ${NEW}`, 'cancel', 'forget']);
  assert.equal(mobility.moves.failed, 1);
  const packet = decodePacket(told[0] ?? new Uint8Array(0));
  assert.ok(!('error' in packet));
  assert.deepEqual([packet.source, packet.destination], [KERNEL.remote, KERNEL.local]);
  assert.deepEqual([packet.sourcePort, packet.destinationPort], [40_000, 22]);
  assert.deepEqual([packet.flags, packet.seq], ['R', 4711]);
});

test('where the kernel cannot end a socket, its program gets a reset in the name of its peer', () => {
  const injected: Uint8Array[] = [];
  const { mobility, flow } = machine({
    destroySocket: () => false,
    outlet: { toKernel: (packet: Uint8Array) => injected.push(packet) },
  });
  flow.rcvNxt = seq(5000);
  mobility.reset(KERNEL, 'no-answer');
  const [packet] = injected.map((bytes) => decodePacket(bytes));
  assert.ok(packet !== undefined && !('error' in packet));
  assert.deepEqual([packet.flags, packet.seq], ['R', seq(5000)]);
  assert.deepEqual([packet.source, packet.destination], [KERNEL.remote, KERNEL.local]);
});

for (const [what, own] of [
  ['the kernel delivers to, on lo or by a route', { isLocal: () => true, isForeign: () => false }],
  ['never was here: a transparent proxy has it', { isLocal: () => false, isForeign: () => true }],
] as const) {
  test(`an address that no interface has, and that ${what}: neither kept nor left`, () => {
    const needed: Address[] = [];
    const retention = {
      update: (flows: Array<[Tuple, Flow]>, isHere: (a: Address) => boolean) => {
        for (const [{ local }] of flows) if (!isHere(local)) needed.push(local);
      },
    };
    const { look } = machine({ own, retention });
    assert.deepEqual(look('away'), []);
    assert.deepEqual(needed, []);
  });
}
