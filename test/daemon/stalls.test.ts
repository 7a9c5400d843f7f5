/* The driver of stalls: when it asks whom for what, with a flow and an agent that are only noted. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { FLOW_FLAG, FLOW_SIZE, type Flow, readFlow } from '../../src/boundary/abi.gen.js';
import { monotonicNs } from '../../src/daemon/clock.js';
import { STALL_MS } from '../../src/daemon/stall.js';
import { Stalls, type StallsOptions } from '../../src/daemon/stalls.js';
import { until } from '../../src/lab/wait.js';
import type { SyncState } from '../../src/sync/agent.js';
import type { SyncReport } from '../../src/sync/event.js';
import { address } from '../../src/wire/address.js';
import { encodePacket } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import type { Tuple } from '../../src/wire/tuple.js';

const KERNEL: Tuple = {
  local: address('192.0.2.10'),
  remote: address('203.0.113.7'),
  localPort: 40_000,
  remotePort: 22,
};

const agoNs = (ms: number): bigint => monotonicNs() - BigInt(Math.round(ms)) * 1_000_000n;

/** A flow that has been unanswered for so long, and what is done about it. */
function machine(t: TestContext, o: { unansweredMs?: number; holdMs?: number; away?: boolean }) {
  const flow: Flow = readFlow(new DataView(new ArrayBuffer(FLOW_SIZE)));
  flow.rcvNxt = seq(1000);
  flow.resent = 3;
  flow.resentSince = agoNs(o.unansweredMs ?? STALL_MS + 50);
  flow.flags = FLOW_FLAG.STALLED;
  const done: string[] = [];
  const state = { agent: 'steady' as SyncState };
  const note = (what: string) => () => {
    done.push(what);
    state.agent = 'steady';
  };
  const stalls = new Stalls({
    boundary: { flow: () => flow, command: () => ({ result: 'ok' }) },
    agent: {
      state: () => state.agent,
      standIn: (_, inFlight) => done.push(`stand-in ${inFlight}`),
      kick: note('kick'),
      cancel: note('cancel'),
    },
    holdMs: o.holdMs ?? 60_000,
    again: () => {
      if (o.away === true) return false;
      done.push('again');
      state.agent = 'syncing';
      return true;
    },
    isDeparting: () => false,
    isInFlight: () => true,
    end: (_, reason) => done.push(`end ${reason}`),
    emit: ({ event }) => done.push(`emit ${event}`),
  } as StallsOptions);
  t.after(() => stalls.close());
  const agent = (report: SyncReport) => stalls.synchronized({ ...report, kernel: KERNEL, at: 0 });
  /** What was done since the last look. */
  const looked = (): string[] => done.splice(0);
  return { stalls, flow, state, agent, looked, done };
}

test('answered, or moved, since the event was written: nothing', (t) => {
  const { stalls, flow, looked } = machine(t, {});
  flow.flags = 0;
  stalls.stalled(KERNEL);
  assert.deepEqual(looked(), []);
});

const reset = (at: number): Uint8Array =>
  encodePacket({
    ...{
      source: KERNEL.remote,
      sourcePort: 22,
      destination: KERNEL.local,
      destinationPort: 40_000,
    },
    ...{
      flags: 'R',
      seq: seq(at),
      ack: seq(0),
      window: 0,
      options: [],
      payload: new Uint8Array(0),
    },
  });

const TRIED = ['again', 'emit stalled'];

test('a stalled flow: answered in the peer’s stead, and synchronized again', (t) => {
  const { stalls, looked } = machine(t, {});
  stalls.stalled(KERNEL);
  assert.deepEqual(looked(), ['stand-in true', ...TRIED]);
  assert.ok(stalls.isTrying(KERNEL));
});

test('refused: the attempt ends, and its kernel is kept waiting', (t) => {
  const { stalls, agent, looked } = machine(t, {});
  stalls.stalled(KERNEL);
  looked();
  agent({ type: 'failed', reason: 'refused', final: false });
  assert.deepEqual(looked(), ['cancel', 'stand-in true']);
  assert.ok(!stalls.isTrying(KERNEL));
});

test('what its kernel has sent meanwhile was swallowed: it is kicked', (t) => {
  const { stalls, flow, agent, looked } = machine(t, {});
  stalls.stalled(KERNEL);
  looked();
  flow.seenOut = agoNs(-10);
  agent({ type: 'failed', reason: 'refused', final: false });
  assert.deepEqual(looked(), ['kick', 'stand-in true']);
});

test('something comes in: the attempt gives way at once', (t) => {
  const { stalls, looked } = machine(t, {});
  stalls.stalled(KERNEL);
  looked();
  stalls.revived(KERNEL);
  assert.deepEqual(looked(), ['cancel', 'emit revived']);
});

test('a mapping that waits for its proof is not given up', (t) => {
  const { stalls, state, looked } = machine(t, {});
  stalls.stalled(KERNEL);
  looked();
  state.agent = 'confirming';
  stalls.revived(KERNEL);
  assert.deepEqual(looked(), ['emit revived']);
});

test('proven: forgotten', (t) => {
  const { stalls, agent, looked } = machine(t, {});
  stalls.stalled(KERNEL);
  looked();
  agent({ type: 'proven', wire: KERNEL, epoch: 1 });
  stalls.revived(KERNEL);
  assert.deepEqual(looked(), []);
});

test('the peer says provably that the flow has ended: it ends here', (t) => {
  const { stalls, agent, looked } = machine(t, {});
  stalls.stalled(KERNEL);
  looked();
  agent({ type: 'failed', reason: 'reset', final: true });
  assert.deepEqual(looked(), ['end reset']);
});

test('a flow on its way elsewhere is only answered', (t) => {
  const { stalls, looked } = machine(t, { away: true });
  stalls.stalled(KERNEL);
  assert.deepEqual(looked(), ['stand-in true']);
  assert.ok(!stalls.isTrying(KERNEL));
});

test('only a reset that its kernel would believe is worth a synchronization', (t) => {
  const { stalls, flow, looked } = machine(t, {});
  flow.flags = 0;
  stalls.doubted(KERNEL, reset(1001));
  assert.deepEqual(looked(), []);
  stalls.doubted(KERNEL, reset(1000));
  assert.deepEqual(looked(), TRIED);
});

test('`hold` counts from the first retransmission, and ends the flow', async (t) => {
  const { stalls, done } = machine(t, { unansweredMs: STALL_MS + 50, holdMs: STALL_MS + 100 });
  stalls.stalled(KERNEL);
  await until('the end', () => done.includes('end peer-silent'), 2_000);
});

test('a flow without a way out is answered every second, until it is released', async (t) => {
  const { stalls, flow, done } = machine(t, {});
  flow.flags = FLOW_FLAG.HELD;
  stalls.held(KERNEL);
  const count = () => done.filter((what) => what === 'stand-in true').length;
  await until('two answers', () => count() === 2, 5_000);
  flow.flags = 0;
  stalls.ended(KERNEL);
  assert.equal(count(), 2);
});

test('and ends after `hold`', async (t) => {
  const { stalls, flow, done } = machine(t, { holdMs: 500 });
  flow.flags = FLOW_FLAG.HELD;
  stalls.held(KERNEL);
  await until('the end', () => done.includes('end no-way'), 5_000);
});
