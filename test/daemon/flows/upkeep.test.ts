/* What the daemon forgets and when: asked is the kernel, and where it has no say, the packets. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FLOW_FLAG, FLOW_SIZE, type Flow, readFlow } from '../../../src/boundary/abi.gen.js';
import type { BoundaryEvent, Command } from '../../../src/boundary/boundary.js';
import { Upkeep } from '../../../src/daemon/flows/upkeep.js';
import type { SocketRecord } from '../../../src/link/inet-diag.js';
import { address } from '../../../src/wire/address.js';
import { type Tuple, tupleKey } from '../../../src/wire/tuple.js';
import { FakeClock } from '../../sim/fake-clock.js';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const IDLE_MS = 24 * HOUR_MS;
const QUARANTINE_MS = 3_000;
const FINS = FLOW_FLAG.FIN_SENT | FLOW_FLAG.FIN_RECEIVED;
const CLOSED = { flags: FINS, moves: 1 };

const tupleOf = (port: number): Tuple => ({
  ...{ local: address('192.0.2.10'), localPort: port },
  ...{ remote: address('203.0.113.7'), remotePort: 22 },
});
const KERNEL = tupleOf(40_000);

const established = (tuple: Tuple): SocketRecord => ({
  ...{ tuple, state: 'established', transparent: false, freebind: false },
});

/* The socket of the program calls its peer otherwise: a dump does not show it under this name. */
const BEHIND_NAT = tupleOf(40_001);
const isBehindNat = (tuple: Tuple): boolean => tupleKey(tuple) === tupleKey(BEHIND_NAT);

/** The daemon's tables, a kernel with these sockets, and what was done. */
function machine(flow: Partial<Flow> = {}, o: { sockets?: Tuple[]; kernel?: Tuple } = {}) {
  const clock = new FakeClock();
  const flows = new Map<string, [Tuple, Flow]>();
  const sockets = new Set((o.sockets ?? []).map(tupleKey));
  const done: string[] = [];
  const put = (kernel: Tuple, change: Partial<Flow>) => {
    const known = flows.get(tupleKey(kernel))?.[1];
    const empty = readFlow(new DataView(new ArrayBuffer(FLOW_SIZE)));
    flows.set(tupleKey(kernel), [kernel, { ...(known ?? empty), ...change }]);
  };
  put(o.kernel ?? KERNEL, flow);
  const upkeep = new Upkeep({
    boundary: {
      flow: (kernel) => flows.get(tupleKey(kernel))?.[1],
      flows: () => [...flows.values()],
      wires: () => [],
      forgetWire: () => undefined,
      stockHalves: () => 0,
      command: ({ verb, kernel }: Command) => {
        done.push(verb);
        if (verb === 'forget') flows.delete(tupleKey(kernel));
        return { result: 'ok' };
      },
    },
    clock,
    idleMs: IDLE_MS,
    quarantineMs: QUARANTINE_MS,
    sockets: () => (o.sockets ?? []).filter((t) => !isBehindNat(t)).map(established),
    hasSocket: (kernel) => sockets.has(tupleKey(kernel)),
    isMoving: () => false,
    deliver: (_, packet) => done.push(`deliver ${packet[0]}`),
    readEvents: () => undefined,
    forgotten: () => done.push('forgotten'),
  });
  return {
    ...{ upkeep, flows, put, sockets, clock, done },
    /** What was done in so much time. */
    after: (ms: number): string[] => {
      let reached = false;
      clock.setTimer(ms, () => {
        reached = true;
      });
      clock.run({ atMost: Number.POSITIVE_INFINITY, until: () => reached });
      return done.splice(0);
    },
    reset: (id: number, kernel = KERNEL): BoundaryEvent => ({
      ...{ type: 'rst', tuple: kernel, ifindex: 1, etherType: 0x800, fromGuest: false },
      ...{ at: BigInt(Math.round(clock.now() * 1e6)), packet: Uint8Array.of(id) },
    }),
  };
}

const FORGOTTEN = ['forget', 'forgotten'];

test('a moved flow that is over: as long as its kernel keeps TIME-WAIT', () => {
  const m = machine(CLOSED);
  m.upkeep.ended(KERNEL);
  assert.deepEqual(m.after(59_000), []);
  assert.deepEqual(m.after(2_000), FORGOTTEN);
});

test('one that the data plane has forgotten itself: the rest of the daemon is told', () => {
  const m = machine();
  m.flows.clear();
  m.upkeep.ended(KERNEL);
  assert.deepEqual(m.after(0), ['forgotten']);
});

test('half-closed, with the tail on its way to a client that sleeps: kept, whatever was told', () => {
  const m = machine({ ...CLOSED, sndNxt: 10_001 as Flow['sndNxt'] }, { sockets: [KERNEL] });
  m.upkeep.ended(KERNEL);
  assert.deepEqual(m.after(25 * HOUR_MS), []);
});

test('reset by its peer: forgotten when its socket is gone', () => {
  const m = machine({ flags: FLOW_FLAG.RESET });
  m.upkeep.ended(KERNEL);
  assert.deepEqual(m.after(4_000), []);
  assert.deepEqual(m.after(2_000), FORGOTTEN);
});

test('reset by its peer, and the kernel has not believed it: it goes on', () => {
  const m = machine({ flags: FLOW_FLAG.RESET }, { sockets: [KERNEL] });
  m.upkeep.ended(KERNEL);
  assert.deepEqual(m.after(MINUTE_MS - 1), ['go-on']);
});

test('a host behind us is reset: forgotten if it does not object', () => {
  const flags = FLOW_FLAG.RESET | FLOW_FLAG.FORWARDED;
  const [silent, alive] = [machine({ flags }), machine({ flags })];
  for (const m of [silent, alive]) m.upkeep.ended(KERNEL);
  alive.put(KERNEL, { flags: FLOW_FLAG.FORWARDED, seenOut: 1_000_000n });
  assert.deepEqual([silent.after(6_000), alive.after(6_000)], [FORGOTTEN, []]);
});

test('nothing is forgotten that the kernel still has, however long it is silent', () => {
  assert.deepEqual(machine({}, { sockets: [KERNEL] }).after(48 * HOUR_MS), []);
  assert.deepEqual(machine(CLOSED, { sockets: [KERNEL] }).after(HOUR_MS), []);
});

test('what has ended unseen, by who uses it and for how long it is silent', () => {
  const guest = { ...KERNEL, tap: 7 };
  for (const [what, m, latest] of [
    ['no socket', machine({}), 3 * MINUTE_MS],
    ['embryonic', machine({ flags: FLOW_FLAG.EMBRYONIC }, { kernel: guest }), 3 * MINUTE_MS],
    ['over', machine(CLOSED, { kernel: guest }), 2 * MINUTE_MS],
    ["a guest's", machine({}, { kernel: guest }), IDLE_MS + MINUTE_MS],
    ['behind us', machine({ flags: FLOW_FLAG.FORWARDED }), IDLE_MS + MINUTE_MS],
  ] as const) {
    assert.deepEqual(m.after(latest - MINUTE_MS), [], `${what}: not before`);
    assert.deepEqual(m.after(MINUTE_MS + 1), FORGOTTEN, what);
  }
});

test('a reset in quarantine is delivered, and the flow stays until the kernel has believed it', () => {
  const m = machine({}, { sockets: [KERNEL] });
  m.upkeep.quarantine(m.reset(1));
  assert.deepEqual(m.after(QUARANTINE_MS), ['deliver 1']);
  assert.deepEqual(m.after(MINUTE_MS), []);
  m.upkeep.quarantine(m.reset(2));
  assert.deepEqual(m.after(QUARANTINE_MS), ['deliver 2']);
  m.sockets.clear();
  assert.deepEqual(m.after(6_000), FORGOTTEN);
});

test('an earlier reset does not take the place of the peer’s own', () => {
  const m = machine();
  for (const id of [1, 2]) m.upkeep.quarantine(m.reset(id));
  assert.equal(m.upkeep.believe(KERNEL), true);
  assert.equal(m.upkeep.believe(KERNEL), false);
  assert.deepEqual(m.after(0), ['deliver 2']);
});

test('a reset of the next silence has the whole time for itself', () => {
  const m = machine();
  m.upkeep.quarantine(m.reset(1));
  assert.deepEqual(m.after(QUARANTINE_MS - 1_000), []);
  m.put(KERNEL, { seenIn: BigInt(m.clock.now() * 1e6) });
  m.after(500);
  m.upkeep.quarantine(m.reset(2));
  assert.deepEqual(m.after(QUARANTINE_MS - 1), []);
  assert.deepEqual(m.after(1), ['deliver 2']);
});

test('answered since: the reset was a stranger’s', () => {
  const m = machine();
  m.upkeep.quarantine(m.reset(1));
  m.put(KERNEL, { seenIn: 1_000_000n });
  assert.deepEqual(m.after(QUARANTINE_MS), []);
});

test('each is looked at when it is due, and once', () => {
  const m = machine(CLOSED);
  const [late, reset] = [tupleOf(1), tupleOf(2)];
  m.upkeep.ended(KERNEL);
  m.after(30_000);
  m.put(late, CLOSED);
  m.put(reset, { flags: FLOW_FLAG.RESET });
  for (const kernel of [late, reset, KERNEL]) m.upkeep.ended(kernel);
  m.after(6_000);
  assert.equal(m.flows.has(tupleKey(reset)), false);
  m.after(25_000);
  assert.deepEqual(
    [...m.flows.values()].map(([kernel]) => kernel),
    [KERNEL, late],
  );
  assert.deepEqual(m.after(30_000), [...FORGOTTEN, ...FORGOTTEN]);
});

test('an idle flow whose socket has another name behind our own NAT: kept as long as that lives', () => {
  const m = machine({}, { sockets: [BEHIND_NAT], kernel: BEHIND_NAT });
  assert.deepEqual(m.after(25 * HOUR_MS), []);
  m.sockets.clear();
  assert.deepEqual(m.after(2 * MINUTE_MS), FORGOTTEN);
});
