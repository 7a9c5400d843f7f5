/* The driver of stalls: when it asks whom for what, with a flow and an agent that are only noted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FLOW_FLAG, FLOW_SIZE, type Flow, readFlow } from '../../../src/boundary/abi.gen.js';
import { STALL_MS, TRY_MS } from '../../../src/daemon/flows/stall.js';
import { Stalls, type StallsOptions } from '../../../src/daemon/flows/stalls.js';
import type { Progress } from '../../../src/link/sockets.js';
import type { SyncState } from '../../../src/sync/agent.js';
import type { SyncReport } from '../../../src/sync/event.js';
import { address } from '../../../src/wire/address.js';
import { encodePacket } from '../../../src/wire/packet.js';
import { seq } from '../../../src/wire/seq.js';
import type { Tuple } from '../../../src/wire/tuple.js';
import { FakeClock } from '../../sim/fake-clock.js';

const KERNEL: Tuple = {
  local: address('192.0.2.10'),
  remote: address('203.0.113.7'),
  localPort: 40_000,
  remotePort: 22,
};

const BACKED_OFF: Progress = { unacked: 1, retransmits: 3 };

/** How long the machine has been up when a test begins. */
const UP_MS = 1_000_000;

interface Machine {
  unansweredMs?: number;
  holdMs?: number;
  away?: boolean;
  /** What its kernel says of what it has sent. */
  progress?: () => Progress | undefined;
  /** The attempt does not get its turn. */
  queued?: boolean;
}

/** A flow that has been unanswered for so long, and what is done about it. */
function machine(o: Machine = {}) {
  const clock = new FakeClock();
  clock.pass(UP_MS);
  const agoNs = (ms: number) => BigInt(Math.round(clock.now() - ms)) * 1_000_000n;
  const flow: Flow = readFlow(new DataView(new ArrayBuffer(FLOW_SIZE)));
  flow.rcvNxt = seq(1000);
  flow.resent = 3;
  flow.resentSince = agoNs(o.unansweredMs ?? STALL_MS + 50);
  flow.flags = FLOW_FLAG.STALLED;
  const done: string[] = [];
  const state = { agent: 'steady' as SyncState, since: undefined as number | undefined };
  const note = (what: string) => () => {
    done.push(what);
    state.agent = 'steady';
  };
  const stalls = new Stalls({
    boundary: { flow: () => flow, command: () => ({ result: 'ok' }) },
    agent: {
      underway: () =>
        state.agent === 'steady'
          ? undefined
          : { source: KERNEL.local, state: state.agent, since: state.since },
      acknowledge: () => done.push('acknowledge'),
      standIn: (_, inFlight) => done.push(`stand-in ${inFlight}`),
      kick: note('kick'),
      cancel: note('cancel'),
    },
    holdMs: o.holdMs ?? 60_000,
    again: () => {
      if (o.away === true) return false;
      done.push('again');
      state.agent = 'syncing';
      state.since = o.queued === true ? undefined : clock.now();
      return true;
    },
    clock,
    isDeparting: () => false,
    progress: () => (o.progress === undefined ? BACKED_OFF : o.progress()),
    end: (_, reason) => done.push(`end ${reason}`),
    emit: ({ event }) => done.push(`emit ${event}`),
  } as StallsOptions);
  const agent = (report: SyncReport) => stalls.synchronized({ ...report, kernel: KERNEL, at: 0 });
  /** What was done since the last look. */
  const looked = (): string[] => done.splice(0);
  return { stalls, flow, state, agent, looked, clock, agoNs };
}

test('answered, or moved, since the event was written: nothing', () => {
  const { stalls, flow, looked } = machine();
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

const STAND_IN = ['acknowledge', 'stand-in true'];
const TRIED = ['again', 'emit stalled'];

test('a stalled flow: answered in the peer’s stead, and synchronized again', () => {
  const { stalls, looked } = machine();
  stalls.stalled(KERNEL);
  assert.deepEqual(looked(), [...STAND_IN, ...TRIED]);
  assert.ok(stalls.isTrying(KERNEL));
});

test('refused: the attempt ends, and its kernel is kept waiting', () => {
  const { stalls, agent, looked } = machine();
  stalls.stalled(KERNEL);
  looked();
  agent({ type: 'failed', reason: 'refused', final: false });
  assert.deepEqual(looked(), ['cancel', ...STAND_IN]);
  assert.ok(!stalls.isTrying(KERNEL));
});

test('what its kernel has sent meanwhile was swallowed: it is kicked', () => {
  const { stalls, flow, agent, looked, agoNs } = machine();
  stalls.stalled(KERNEL);
  looked();
  flow.seenOut = agoNs(-10);
  agent({ type: 'failed', reason: 'refused', final: false });
  assert.deepEqual(looked(), ['kick', ...STAND_IN]);
});

test('an attempt whose turn has not come is no attempt in vain', () => {
  const { stalls, state, looked, clock } = machine({ queued: true });
  stalls.stalled(KERNEL);
  looked();
  clock.pass(3 * TRY_MS);
  assert.deepEqual(looked(), []);
  state.since = clock.now();
  clock.pass(TRY_MS - 1);
  assert.deepEqual(looked(), []);
  clock.pass(TRY_MS);
  assert.deepEqual(looked(), ['cancel', ...STAND_IN]);
});

test('an attempt that was ended from outside is none', () => {
  const { stalls, state } = machine();
  stalls.stalled(KERNEL);
  assert.ok(stalls.isTrying(KERNEL));
  state.agent = 'steady';
  assert.ok(!stalls.isTrying(KERNEL));
});

test('something comes in: the attempt gives way at once', () => {
  const { stalls, looked } = machine();
  stalls.stalled(KERNEL);
  looked();
  stalls.revived(KERNEL);
  assert.deepEqual(looked(), ['kick', 'emit revived']);
});

test('something comes in between two attempts: its kernel is woken', () => {
  const { stalls, flow, looked } = machine({ unansweredMs: 1_200 });
  stalls.stalled(KERNEL);
  looked();
  stalls.revived(KERNEL);
  assert.deepEqual(looked(), ['kick']);
  stalls.revived(KERNEL);
  assert.deepEqual(looked(), ['kick'], 'also by a daemon that has not seen it stall');
  flow.flags = FLOW_FLAG.HELD;
  stalls.revived(KERNEL);
  assert.deepEqual(looked(), [], 'but not without a way out');
});

test('something comes in, and nothing waits for an answer: nobody is woken', () => {
  const { stalls, looked } = machine({ progress: () => ({ unacked: 0, retransmits: 0 }) });
  stalls.revived(KERNEL);
  assert.deepEqual(looked(), ['cancel']);
});

test('a mapping that waits for its proof is not given up', () => {
  const { stalls, flow, state, looked } = machine();
  stalls.stalled(KERNEL);
  looked();
  state.agent = 'confirming';
  flow.flags |= FLOW_FLAG.UNPROVEN;
  stalls.revived(KERNEL);
  assert.deepEqual(looked(), ['emit revived']);
});

test('proven: forgotten', () => {
  const { stalls, agent, looked } = machine();
  stalls.stalled(KERNEL);
  looked();
  agent({ type: 'proven', wire: KERNEL, epoch: 1 });
  stalls.revived(KERNEL);
  assert.deepEqual(looked(), []);
});

test('the peer says provably that the flow has ended: it ends here', () => {
  const { stalls, agent, looked } = machine();
  stalls.stalled(KERNEL);
  looked();
  agent({ type: 'failed', reason: 'reset', final: true });
  assert.deepEqual(looked(), ['end reset']);
});

test('a kernel that has met no timeout yet is not told of a closed window: it could not be kicked', () => {
  const { stalls, flow, looked } = machine({ progress: () => ({ unacked: 2, retransmits: 0 }) });
  flow.flags = FLOW_FLAG.STALLED | FLOW_FLAG.HELD;
  flow.resentSince = 0n;
  stalls.stalled(KERNEL);
  assert.deepEqual(looked(), ['acknowledge']);
});

test('nor does it wait for an ACK that its peer has sent already', () => {
  const answers = [BACKED_OFF, { unacked: 0, retransmits: 0 }];
  const { stalls, looked } = machine({ away: true, progress: () => answers.shift() });
  stalls.stalled(KERNEL);
  assert.deepEqual(looked(), ['acknowledge', 'stand-in false']);
});

test('a kernel that cannot be asked: the second time that it sends is a timeout', () => {
  const { stalls, flow, looked } = machine({ away: true, progress: () => undefined });
  flow.sndNxt = seq(1);
  flow.resent = 1;
  stalls.stalled(KERNEL);
  assert.deepEqual(looked(), []);
  flow.resent = 2;
  stalls.stalled(KERNEL);
  assert.deepEqual(looked(), ['stand-in true']);
});

test('a flow on its way elsewhere is only answered', () => {
  const { stalls, looked } = machine({ away: true });
  stalls.stalled(KERNEL);
  assert.deepEqual(looked(), [...STAND_IN]);
  assert.ok(!stalls.isTrying(KERNEL));
});

test('only a reset that its kernel would believe is worth a synchronization', () => {
  const { stalls, flow, looked } = machine();
  flow.flags = 0;
  stalls.doubted(KERNEL, reset(1001));
  assert.deepEqual(looked(), []);
  stalls.doubted(KERNEL, reset(1000));
  assert.deepEqual(looked(), TRIED);
});

test('`hold` counts from the first retransmission, and ends the flow', () => {
  const { stalls, looked, clock } = machine({ holdMs: STALL_MS + 10_000 });
  stalls.stalled(KERNEL);
  clock.pass(9_949);
  assert.ok(!looked().includes('end peer-silent'));
  clock.pass(1);
  assert.ok(looked().includes('end peer-silent'));
});

test('and begins anew when something has come in, though no event said so', () => {
  const { stalls, flow, looked, clock, agoNs } = machine({ holdMs: 30_000 });
  stalls.stalled(KERNEL);
  clock.pass(20_000);
  flow.seenIn = agoNs(0);
  flow.resentSince = agoNs(-1_000);
  clock.pass(30_999);
  assert.ok(!looked().includes('end peer-silent'));
  clock.pass(1);
  assert.ok(looked().includes('end peer-silent'));
});

test('a flow without a way out is answered every second, until it is released', () => {
  const { stalls, flow, looked, clock } = machine();
  flow.flags = FLOW_FLAG.HELD;
  stalls.held(KERNEL);
  clock.pass(2_500);
  assert.deepEqual(looked(), [...STAND_IN, ...STAND_IN]);
  flow.flags = 0;
  clock.pass(2_500);
  assert.deepEqual(looked(), []);
});

test('and ends after `hold`, which begins anew when something has come in', () => {
  const { stalls, flow, looked, clock, agoNs } = machine({ holdMs: 10_000 });
  flow.flags = FLOW_FLAG.HELD;
  stalls.held(KERNEL);
  clock.pass(9_000);
  flow.seenIn = agoNs(0);
  clock.pass(9_999);
  assert.ok(!looked().includes('end no-way'));
  clock.pass(1_000);
  assert.ok(looked().includes('end no-way'));
});
