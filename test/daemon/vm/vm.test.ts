/* One VM on its tap, between tables that are a Map and a link of the guest's tests: what its
 * requests do to flows, place and record, also when they come twice, too late, or after a restart.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import {
  FLOW_FLAG,
  type Flow,
  PLACE_FLAG,
  type Place,
  type Plain,
  REASON,
} from '../../../src/boundary/abi.gen.js';
import type { Command } from '../../../src/boundary/boundary.js';
import { packLuggage } from '../../../src/boundary/transfer.js';
import type { NewEvent } from '../../../src/daemon/view/monitor-events.js';
import { RequestError } from '../../../src/daemon/view/request-error.js';
import { readRecord } from '../../../src/daemon/vm/record.js';
import { addressMove } from '../../../src/daemon/vm/view.js';
import { Vm, type VmOptions } from '../../../src/daemon/vm/vm.js';
import { type GuestState, unknownGuest } from '../../../src/guest/identity.js';
import { PlaceError } from '../../../src/guest/request.js';
import { type Address, address } from '../../../src/wire/address.js';
import { DHCP_OPTION, EVERYBODY, encodeDhcp, NOBODY } from '../../../src/wire/dhcp.js';
import { mac } from '../../../src/wire/ethernet.js';
import { type Tuple, tupleKey } from '../../../src/wire/tuple.js';
import { dhcpOf } from '../../guest/guest.js';
import { FakeClock } from '../../sim/fake-clock.js';
import { temporaryDirectory } from '../temporary.js';
import { flowOf, GUEST_MAC, INSIDE, OUTSIDE, read, TAP, tupleOf } from '../vm-fixture.js';

const GUEST: GuestState = {
  ...unknownGuest(GUEST_MAC),
  inside4: {
    ...{ address: INSIDE, prefix_length: 24, gateway: address('192.0.2.1') },
    ...{ server: address('192.0.2.1'), lease_s: 3600, options: [] },
  },
};
const OTHER_MAC = mac('52:54:00:00:00:0b');
const GIVEN = [`${OUTSIDE}/24`];

/** The tables of a boundary; they outlive daemons, as pinned ones do. */
class Tables {
  readonly flowsByKey = new Map<string, [Tuple, Flow]>();
  readonly plainByKey = new Map<string, [Tuple, Plain]>();
  readonly places = new Map<number, Place>();
  room = 100;

  flows = () => [...this.flowsByKey.values()];
  flow = (kernel: Tuple) => this.flowsByKey.get(tupleKey(kernel))?.[1];
  plain = () => [...this.plainByKey.values()];
  setPlain = (t: Tuple, why: Plain) => this.plainByKey.set(tupleKey(t), [t, why]);
  deletePlain = (t: Tuple) => this.plainByKey.delete(tupleKey(t));
  place = (tap: number) => this.places.get(tap);
  setPlace = (tap: number, place: Place) => this.places.set(tap, place);
  deletePlace = (tap: number) => this.places.delete(tap);
  adopt = (kernel: Tuple, flow: Flow): boolean => {
    if (this.flowsByKey.size >= this.room || this.flow(kernel)) return false;
    this.flowsByKey.set(tupleKey(kernel), [kernel, flow]);
    return true;
  };
  command = ({ verb, kernel }: Command) => {
    const flow = this.flow(kernel);
    if (flow === undefined) return { result: 'no-flow' };
    if (verb === 'hold') flow.flags |= FLOW_FLAG.HELD;
    if (verb === 'release') flow.flags &= ~FLOW_FLAG.HELD;
    if (verb === 'forget') this.flowsByKey.delete(tupleKey(kernel));
    return { result: 'ok' };
  };
}

interface Machine {
  vm: Vm;
  tables: Tables;
  clock: FakeClock;
  begun: Array<{ ports: number[]; epochAbove: number }>;
  kicked: number[];
  /** Whose program was told that its connection has ended. */
  told: number[];
  events: NewEvent[];
  moves: Array<[Address[], Address[]]>;
  toGuest: Uint8Array[];
  verbatim: Uint8Array[];
  runDir: string;
  pass(ms: number): Promise<void>;
  /** The daemon dies, and another one comes. */
  restart(): Machine;
}

function machine(t: TestContext, o: Partial<Pick<Machine, 'tables' | 'runDir'>> = {}): Machine {
  const { tables = new Tables(), runDir = temporaryDirectory(t) } = o;
  const clock = new FakeClock();
  const seen = {
    ...{ begun: [], kicked: [], told: [], events: [], moves: [], toGuest: [], verbatim: [] },
  } as unknown as Machine;
  const options = {
    ...{
      name: 'vnet0',
      tap: TAP,
      runDir,
      boundary: tables,
      clock,
      mtu: () => 1400,
      gateways4: () => [],
    },
    sender: { toGuest: () => undefined, toNetwork: () => undefined },
    outlet: {
      toKernel: (packet: Uint8Array) => seen.toGuest.push(packet),
      toWireVerbatim: (packet: Uint8Array) => seen.verbatim.push(packet),
    },
    agent: { kick: (kernel: Tuple) => seen.kicked.push(kernel.localPort) },
    flows: {
      begin: (_: number, all: Array<[Tuple, Flow]>, { epochAbove }: { epochAbove: number }) =>
        seen.begun.push({ ports: all.map(([kernel]) => kernel.localPort), epochAbove }),
      settled: async () => ({ version: 1, moved: 0, failed: 0, pending: 0, failures: [] }),
      ended: () => undefined,
      tell: (kernel: Tuple) => seen.told.push(kernel.localPort),
    },
    random32: () => 1,
    emit: (event: NewEvent) => seen.events.push(event),
    moved: (_: Vm, from: Address[], to: Address[]) => seen.moves.push([from, to]),
  };
  const vm = new Vm(options as unknown as VmOptions);
  vm.open(undefined, readRecord(runDir, 'vnet0', TAP));
  t.after(() => vm.close({ release: false }));
  const pass = async (ms: number) => {
    let passed = false;
    clock.setTimer(ms, () => {
      passed = true;
    });
    while (!passed) {
      let stop = false;
      clock.setTimer(50, () => {
        stop = true;
      });
      clock.run({ atMost: Number.POSITIVE_INFINITY, until: () => stop || passed });
      await turn();
    }
    await turn();
  };
  const restart = () => {
    void vm.close({ release: false });
    return machine(t, { tables, runDir });
  };
  return Object.assign(seen, { vm, tables, clock, runDir, pass, restart });
}

/** Settled at OUTSIDE with these flows, as the destination of a migration. */
async function arrived(m: Machine, ports: number[] = [1, 2]): Promise<void> {
  await settled(m);
  m.vm.import({ flows: luggage(ports), outside: [INSIDE] });
}

async function settled(m: Machine, request = GIVEN): Promise<void> {
  const settling = m.vm.settle(GUEST, request);
  await m.pass(5000);
  await settling;
}

const luggage = (ports: number[], plain: number[] = []): string =>
  Buffer.from(
    packLuggage(
      {
        flows: ports.map((port) => [tupleOf(port, 3), flowOf({ created: 1n })]),
        plain: plain.map((port) => [tupleOf(port, 3), { since: 1n, reason: REASON.LEGACY_MPTCP }]),
      },
      1n,
    ),
  ).toString('base64');

const isHeld = (m: Machine, port: number): boolean =>
  ((m.tables.flow(tupleOf(port))?.flags ?? 0) & FLOW_FLAG.HELD) !== 0;
const flags = (m: Machine): number | undefined => m.tables.place(TAP)?.flags;

test('a guest that has not sent anything: what can be done is told, nothing is held', async (t) => {
  const m = machine(t);
  m.tables.adopt(tupleOf(1), flowOf());
  await assert.rejects(m.vm.guest(), {
    status: 409,
    code: 'guest-unknown',
    message: /give its MAC/,
  });
  await assert.rejects(m.vm.export(), { code: 'guest-unknown' });
  assert.equal(isHeld(m, 1), false);
});

test('its MAC may be told later, once', async (t) => {
  const m = machine(t);
  m.vm.isOf(GUEST_MAC);
  assert.equal(m.vm.view().mac, GUEST_MAC);
  m.vm.isOf(GUEST_MAC);
  assert.throws(() => m.vm.isOf(OTHER_MAC), { status: 409, code: 'other-guest' });
});

test('settled elsewhere: away, by its outside address, its home’s gateway is not one here', async (t) => {
  const m = machine(t);
  await settled(m);
  const { place, outside, inside, gateway } = m.vm.view();
  assert.deepEqual([place, outside, inside, gateway], ['away', [OUTSIDE], [INSIDE], null]);
  assert.equal(flags(m), PLACE_FLAG.AWAY | PLACE_FLAG.ANSWER);
  assert.deepEqual(m.vm.outsideTuple(tupleOf(1)), { ...tupleOf(1), local: OUTSIDE });
});

test('settled at home: as it is, and answered for until it runs', async (t) => {
  const m = machine(t);
  await settled(m, [`${INSIDE}/24`]);
  assert.deepEqual([m.vm.view().place, flags(m)], ['home', PLACE_FLAG.ANSWER]);
  assert.deepEqual(m.vm.outsideTuple(tupleOf(1)), tupleOf(1));
  m.vm.announce();
  assert.equal(flags(m), 0);
});

test('a request that makes no sense does not touch the VM', async (t) => {
  const m = machine(t);
  m.vm.isOf(GUEST_MAC);
  const before = m.tables.place(TAP);
  await assert.rejects(m.vm.settle(GUEST, ['198.51.100.7']), PlaceError);
  await assert.rejects(m.vm.settle({ ...GUEST, mac: OTHER_MAC }, GIVEN), { code: 'other-guest' });
  assert.deepEqual(m.tables.place(TAP), before);
});

test('no lease: refused, and it is where it was', async (t) => {
  const m = machine(t);
  m.vm.isOf(GUEST_MAC);
  const before = m.tables.place(TAP);
  const refused = assert.rejects(m.vm.settle(GUEST, ['dhcp']), { code: 'no-lease' });
  assert.equal(flags(m), PLACE_FLAG.AWAY);
  await m.pass(15_000);
  await refused;
  assert.deepEqual(m.tables.place(TAP), before);
  assert.equal(readRecord(m.runDir, 'vnet0', TAP), undefined);
});

test('two ask for a place: the last one counts, the first is told', async (t) => {
  const m = machine(t);
  const first = assert.rejects(m.vm.settle(GUEST, ['dhcp']), Error);
  const second = m.vm.settle(GUEST, GIVEN);
  await m.pass(15_000);
  await first;
  assert.deepEqual((await second).outside, [OUTSIDE]);
  assert.deepEqual(m.vm.outside(), [OUTSIDE]);
  assert.deepEqual(readRecord(m.runDir, 'vnet0', TAP)?.request, GIVEN);
});

test('detached while it settles: no place, no record', async (t) => {
  const m = machine(t);
  const refused = assert.rejects(m.vm.settle(GUEST, GIVEN), Error);
  await m.vm.close({ release: true });
  await m.pass(5000);
  await refused;
  assert.equal(m.tables.places.size, 0);
  assert.equal(readRecord(m.runDir, 'vnet0', TAP), undefined);
});

test('exported: held, packed, and on record that it has left', async (t) => {
  const m = machine(t);
  await settled(m);
  m.tables.adopt(tupleOf(1), flowOf());
  m.tables.adopt(tupleOf(1, TAP + 1), flowOf());
  const { flows, outside, guest } = await m.vm.export();
  const from = outside.map(address);
  assert.deepEqual([outside, guest.mac], [[OUTSIDE], GUEST_MAC]);
  assert.equal(isHeld(m, 1), true);
  assert.equal(m.tables.flow(tupleOf(1, TAP + 1))?.flags, 0);
  assert.equal(readRecord(m.runDir, 'vnet0', TAP)?.left, true);
  const there = machine(t);
  await settled(there);
  assert.equal(there.vm.import({ flows, outside: from }).imported, 1);
});

test('the migration fails before it has begun elsewhere: released where it is', async (t) => {
  const m = machine(t);
  await settled(m);
  m.tables.adopt(tupleOf(1), flowOf());
  await m.vm.export();
  const view = await m.vm.synchronize(100, false);
  assert.deepEqual([view.moved, isHeld(m, 1)], [1, false]);
  assert.deepEqual([m.kicked, m.begun], [[1], []]);
  assert.equal(readRecord(m.runDir, 'vnet0', TAP)?.left, false);
});

test('it fails before anything was exported: thawed', async (t) => {
  const m = machine(t);
  await settled(m);
  m.tables.adopt(tupleOf(1), { ...flowOf(), frozenUntil: 2n ** 63n });
  m.tables.adopt(tupleOf(2), { ...flowOf(), frozenUntil: 1n });
  await m.vm.synchronize(100, false);
  assert.deepEqual(m.kicked, [1], 'the other has been thawed by its time');
});

test('it fails after it has begun: moved back with epochs above those elsewhere', async (t) => {
  const m = machine(t);
  await settled(m);
  m.tables.adopt(tupleOf(1), flowOf());
  await m.vm.export();
  const next = m.restart();
  next.vm.resume();
  assert.equal(isHeld(next, 1), true, 'held until somebody says what became of it');
  assert.deepEqual(next.begun, []);
  await next.vm.synchronize(100, true);
  await next.vm.synchronize(100, true);
  assert.deepEqual(
    next.begun.map(({ epochAbove }) => epochAbove),
    [256, 0],
  );
});

test('imported: held; those without room are legacy, with that reason', async (t) => {
  const m = machine(t);
  await settled(m);
  m.tables.room = 2;
  const view = m.vm.import({ flows: luggage([1, 2, 3], [9]), outside: [INSIDE] });
  assert.deepEqual(view, { version: 1, imported: 2, refused: 1 });
  assert.deepEqual([isHeld(m, 1), isHeld(m, 2)], [true, true]);
  assert.deepEqual(
    m.tables.plain().map(([{ localPort, tap }, { reason }]) => [localPort, tap, reason]),
    [
      [9, TAP, REASON.LEGACY_MPTCP],
      [3, TAP, REASON.LEGACY_TABLE_FULL],
    ],
  );
});

test('imported twice: the same flows, none refused, none made legacy', async (t) => {
  const m = machine(t);
  await arrived(m);
  const again = m.vm.import({ flows: luggage([1, 2]), outside: [INSIDE] });
  assert.deepEqual(again, { version: 1, imported: 2, refused: 0 });
  assert.deepEqual(m.tables.plain(), []);
});

test('imported bytes that are none: nothing changes', async (t) => {
  const m = machine(t);
  await settled(m);
  const before = m.tables.place(TAP);
  assert.throws(() => m.vm.import({ flows: 'AAAA', outside: [INSIDE] }), { code: 'EPROTO' });
  assert.deepEqual(m.tables.place(TAP), before);
});

test('synchronized: those that are held, and not those that are over', async (t) => {
  const m = machine(t);
  await arrived(m, [1, 2, 3]);
  const over = m.tables.flow(tupleOf(3));
  if (over) over.flags |= FLOW_FLAG.RESET;
  await m.vm.synchronize(100, true);
  assert.deepEqual(m.begun, [{ ports: [1, 2], epochAbove: 0 }]);
});

test('it has come to where it was: nothing to move', async (t) => {
  const m = machine(t);
  await settled(m);
  m.vm.import({ flows: luggage([1]), outside: [OUTSIDE] });
  const view = await m.vm.synchronize(100, true);
  assert.deepEqual([view.moved, isHeld(m, 1), m.begun], [1, false, []]);
});

test('the daemon dies while flows are synchronized: the next one begins them again', async (t) => {
  const m = machine(t);
  await arrived(m);
  await m.vm.synchronize(100, true);
  const next = m.restart();
  assert.deepEqual(next.begun, [], 'not before packets can come');
  next.vm.resume();
  assert.deepEqual(next.begun, [{ ports: [1, 2], epochAbove: 0 }]);
  assert.deepEqual([next.vm.view().place, next.vm.outside()], ['away', [OUTSIDE]]);
});

test('a restart at home: nobody asks for a lease, and the guest answers for itself', async (t) => {
  const m = machine(t);
  await settled(m, [`${INSIDE}/24`]);
  m.vm.announce();
  const next = m.restart();
  next.vm.resume();
  await next.pass(15_000);
  assert.deepEqual([flags(next), next.events], [0, []]);
});

test('a restart away and no server: as it was, told, and asked again', async (t) => {
  const m = machine(t);
  m.vm.isOf(GUEST_MAC);
  await settled(m);
  const record = readRecord(m.runDir, 'vnet0', TAP);
  assert.ok(record);
  const next = m.restart();
  next.vm.open(undefined, { ...record, request: ['dhcp'] });
  next.vm.resume();
  await next.pass(15_000);
  assert.deepEqual(next.vm.outside(), [OUTSIDE]);
  assert.equal(next.events.length, 1);
  assert.match(next.events[0]?.reason ?? '', /^get addresses for .*: no DHCP server/);
  await next.pass(45_000);
  assert.equal(next.events.length, 2);
});

test('a record of another guest is not this one’s', async (t) => {
  const m = machine(t);
  await settled(m);
  const place = m.tables.place(TAP);
  assert.ok(place);
  m.tables.setPlace(TAP, { ...place, guestMac: Uint8Array.of(2, 0, 0, 0, 0, 9) });
  const next = m.restart();
  assert.equal(next.vm.view().mac, '02:00:00:00:00:09');
});

test('announced: the hook is told by what it was and is called, legacy guests are provoked', async (t) => {
  const m = machine(t);
  await settled(m);
  m.vm.import({ flows: luggage([1], [9]), outside: [INSIDE] });
  m.tables.setPlain(tupleOf(10), { since: 1n << 62n, reason: REASON.LEGACY_MPTCP });
  m.vm.announce();
  assert.deepEqual(m.moves, [[[INSIDE], [OUTSIDE]]]);
  assert.deepEqual(addressMove(m.vm, [INSIDE], [OUTSIDE]), {
    ...{ vm: 'vnet0', mac: GUEST_MAC, old: { 4: INSIDE }, new: { 4: OUTSIDE } },
  });
  // Not the one that has begun here.
  assert.deepEqual(
    m.toGuest.map((bytes) => [read(bytes).flags, read(bytes).destinationPort]),
    [['S', 9]],
  );
  assert.deepEqual(m.events.at(-1), {
    ...{ event: 'vm-announced', interface: 'vnet0', address: OUTSIDE },
  });
});

test('stranded: the peer is told in the former name, also after a restart', async (t) => {
  const m = machine(t);
  await settled(m);
  m.vm.import({ flows: luggage([], [9]), outside: [address('203.0.113.99')] });
  const next = m.restart();
  const { remote, remotePort, localPort } = tupleOf(9);
  const segment = Buffer.from(
    '45000028000000004006000000000000000000000000000000000001000000025010ffff00000000',
    'hex',
  );
  segment.set([192, 0, 2, 10, 203, 0, 113, 7], 12);
  segment.writeUInt16BE(localPort, 20);
  segment.writeUInt16BE(remotePort, 22);
  next.vm.stranded(tupleOf(9), segment);
  const [told] = next.verbatim.map(read);
  assert.deepEqual([told?.source, told?.destination], ['203.0.113.99', remote]);
  assert.equal(next.toGuest.length, 1);
  assert.deepEqual(next.tables.plain(), []);
});

test('detached: what has moved is reset, unless the VM has left', async (t) => {
  const m = machine(t);
  await settled(m);
  m.tables.adopt(tupleOf(1), flowOf({ moves: 1 }));
  m.tables.adopt(tupleOf(2), flowOf());
  m.tables.adopt(tupleOf(3), flowOf({ moves: 1, flags: FLOW_FLAG.RESET }));
  await m.vm.close({ release: true });
  assert.deepEqual(m.told, [1]);
  const left = machine(t);
  await settled(left);
  left.tables.adopt(tupleOf(1), flowOf({ moves: 1 }));
  await left.vm.export();
  await left.vm.close({ release: true });
  assert.deepEqual(left.told, []);
});

test('detached: flows, place and record are gone, and it answers no more', async (t) => {
  const m = machine(t);
  await arrived(m);
  m.tables.adopt(tupleOf(1, TAP + 1), flowOf());
  const closed = m.vm.close({ release: true });
  assert.equal(m.vm.closing, true);
  await m.pass(2000);
  await closed;
  assert.equal(m.tables.flows().length, 1, 'the other VM’s');
  assert.deepEqual([m.tables.places.size, m.tables.plain().length], [0, 0]);
  assert.equal(readRecord(m.runDir, 'vnet0', TAP), undefined);
  await assert.rejects(m.vm.guest(), RequestError);
});

test('a guest that tells another name with each frame: on record once a second, and the last', async (t) => {
  const m = machine(t);
  m.vm.isOf(GUEST_MAC);
  const names = new Set<string | undefined>();
  const tell = (name: string) => {
    const said = [{ code: DHCP_OPTION.HOST_NAME, bytes: Buffer.from(name) }];
    const message = { ...dhcpOf('discover', said), chaddr: GUEST_MAC };
    const packet = encodeDhcp({ source: NOBODY, destination: EVERYBODY, message });
    m.vm.packet({ etherType: 0x0800, fromGuest: true, packet });
    names.add(readRecord(m.runDir, 'vnet0', TAP)?.guest.dhcp.host_name);
  };
  for (let n = 0; n < 100; n++) tell(`vm${n}`);
  assert.deepEqual([...names], [Buffer.from('vm0').toString('hex')]);
  await m.pass(1000);
  const recorded = () => readRecord(m.runDir, 'vnet0', TAP)?.guest.dhcp.host_name;
  assert.equal(recorded(), Buffer.from('vm99').toString('hex'));
  tell('last');
  m.restart();
  assert.equal(recorded(), Buffer.from('last').toString('hex'));
});
