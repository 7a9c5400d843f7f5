/* What mobility does with one flow whose link flaps while its CONFIRM is under way. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FLOW_FLAG, FLOW_SIZE, type Flow, readFlow } from '../../src/boundary/abi.gen.js';
import { Mobility, type MobilityOptions } from '../../src/daemon/mobility.js';
import { until } from '../../src/lab/wait.js';
import type { SyncState } from '../../src/sync/agent.js';
import { address } from '../../src/wire/address.js';
import { decodePacket } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import type { Tuple } from '../../src/wire/tuple.js';

const KERNEL: Tuple = {
  local: address('192.0.2.10'),
  remote: address('203.0.113.7'),
  localPort: 22,
  remotePort: 40_000,
};
const NEW = address('198.51.100.10');

/** A machine with one flow, moved to NEW; what is done to the flow is noted. */
function machine(o: object = {}) {
  const flow: Flow = readFlow(new DataView(new ArrayBuffer(FLOW_SIZE)));
  flow.active = 1;
  flow.mapping[0].wire = { ...KERNEL, local: NEW, localPort: 61_000 };
  const done: string[] = [];
  const state = { agent: 'steady' as SyncState, home: true };
  const nothing = () => undefined;
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
      state: () => state.agent,
      move: () => done.push('move'),
      cancel: nothing,
      kick: () => done.push('kick'),
    },
    monitor: {
      catchUp: nothing,
      links: () => [{ name: 'eth0', up: true, carrier: true, mtu: 1500 }],
      addresses: () => (state.home ? [{ address: NEW, interface: 'eth0', tentative: false }] : []),
    },
    netlink: {},
    retention: { update: nothing },
    detours: { update: nothing, ended: nothing, dependOnRoutes: false },
    routes: { to: nothing, changed: nothing, differ: () => false },
    settling: { isSettling: () => false },
    uplinks: { around: (_: unknown, __: unknown, s: unknown) => s, update: nothing },
    isTrying: () => false,
    held: nothing,
    giveUpMs: 60_000,
    emit: nothing,
  };
  const mobility = new Mobility({ ...parts, ...o } as unknown as MobilityOptions);
  return { mobility, flow, state, done };
}

const PROVEN = {
  type: 'proven',
  kernel: KERNEL,
  wire: { ...KERNEL, local: NEW },
  epoch: 1,
  at: 0,
} as const;

test('a flow that was held again while it was being confirmed is released once it is proven', async () => {
  const { mobility, flow, state, done } = machine();
  flow.flags = FLOW_FLAG.UNPROVEN;
  state.agent = 'confirming';
  state.home = false;
  mobility.reconcile();
  assert.deepEqual(done, ['hold']);
  state.home = true;
  mobility.reconcile();
  assert.deepEqual(done, ['hold'], 'its CONFIRM goes on');
  flow.flags &= ~FLOW_FLAG.UNPROVEN;
  state.agent = 'steady';
  mobility.synchronized(PROVEN);
  await until('the flow to be released', () => done.includes('kick'), 1000);
  assert.deepEqual(done, ['hold', 'release', 'kick']);
  mobility.close();
});

test('an unproven flow that nobody confirms, as its daemon died, is moved again', () => {
  const { mobility, flow, done } = machine();
  flow.flags = FLOW_FLAG.UNPROVEN;
  mobility.reconcile();
  assert.deepEqual(done, ['move']);
  mobility.close();
});

test('a flow that is at home and not held is left alone', () => {
  const { mobility, done } = machine();
  mobility.reconcile();
  mobility.synchronized(PROVEN);
  assert.deepEqual(done, []);
  mobility.close();
});

test('the program of a host behind a gateway is told by a reset from its peer', () => {
  const told: Uint8Array[] = [];
  const outlet = { toKernel: (packet: Uint8Array) => told.push(packet) };
  const { mobility, flow, done } = machine({ outlet });
  flow.flags = FLOW_FLAG.UNPROVEN | FLOW_FLAG.FORWARDED;
  flow.rcvNxt = seq(4711);
  mobility.reconcile();
  mobility.synchronized({ ...PROVEN, type: 'failed', reason: 'reset', final: true });
  assert.deepEqual(done, ['move', 'forget']);
  assert.equal(mobility.moves.failed, 1);
  const packet = decodePacket(told[0] ?? new Uint8Array(0));
  assert.ok(!('error' in packet));
  assert.deepEqual([packet.source, packet.destination], [KERNEL.remote, KERNEL.local]);
  assert.deepEqual([packet.sourcePort, packet.destinationPort], [40_000, 22]);
  assert.deepEqual([packet.flags, packet.seq], ['R', 4711]);
  mobility.close();
});
