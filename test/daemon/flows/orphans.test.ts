/* Legacy connections that lost their address: told in time, on any kernel, and no others. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import type { Flow } from '../../../src/boundary/abi.gen.js';
import { Orphans, type OrphansOptions } from '../../../src/daemon/flows/orphans.js';
import { OwnAddresses } from '../../../src/daemon/host/own-addresses.js';
import { ERRNO, SystemError } from '../../../src/libc/errno.js';
import { guardRounds } from '../../../src/libc/guard.js';
import type { SocketRecord } from '../../../src/link/inet-diag.js';
import { type Address, address } from '../../../src/wire/address.js';
import { type Tuple, tupleEqual } from '../../../src/wire/tuple.js';

const GIVE_UP_MS = 3_000;
const HERE = address('198.51.100.7');
const LOST = address('192.0.2.10');

const tupleOf = (local: Address, remote = '203.0.113.7'): Tuple => ({
  ...{ local, localPort: 40_000, remote: address(remote), remotePort: 22 },
});
const socketOf = (local: Address, o: Partial<SocketRecord> = {}): SocketRecord => ({
  ...{ tuple: tupleOf(local), state: 'established', transparent: false, freebind: false, ...o },
});

/** A machine that had these addresses on an attached interface, and has HERE instead by now. */
function machine(had: readonly Address[], o: Partial<OrphansOptions> = {}) {
  const events: string[] = [];
  const destroyed: Tuple[] = [];
  const asked: Address[] = [];
  const state = {
    attached: [...had] as Address[],
    local: new Set<Address>(),
    sockets: had.map((local) => socketOf(local)),
    nowMs: 0,
  };
  const own = new OwnAddresses({
    isLocal: (a) => state.local.has(a),
    isForeign: () => false,
    attached: () => state.attached,
    former: [],
  });
  const orphans = new Orphans({
    boundary: { flow: () => undefined, plain: () => [] },
    own,
    sockets: (local) => {
      asked.push(local);
      return state.sockets.filter(({ tuple }) => tuple.local === local);
    },
    wireOf: () => undefined,
    destroySocket: (tuple) => destroyed.push(tuple) > 0,
    isElsewhere: () => true,
    giveUpMs: GIVE_UP_MS,
    emit: (event) => events.push(event.event),
    canDestroy: true,
    ...o,
  });
  mock.method(process.hrtime, 'bigint', () => BigInt(state.nowMs) * 1_000_000n);
  orphans.update();
  return {
    ...{ orphans, events, destroyed, asked, state },
    moved: () => {
      state.attached = [HERE];
      orphans.update();
    },
    after: (ms: number) => {
      state.nowMs += ms;
      mock.timers.tick(ms);
    },
  };
}

beforeEach(() => mock.timers.enable({ apis: ['setTimeout'] }));
afterEach(() => {
  mock.timers.reset();
  mock.restoreAll();
});

test('its address is gone for give_up: it is ended, and the address asked about no more', () => {
  const m = machine([LOST]);
  assert.deepEqual(m.asked, [], 'as long as every address is here, no socket is looked at');
  m.moved();
  m.after(GIVE_UP_MS - 1);
  assert.deepEqual(m.destroyed, []);
  m.after(1);
  assert.deepEqual(m.destroyed, [tupleOf(LOST)]);
  assert.deepEqual(m.events, ['flow-reset']);
  m.asked.length = 0;
  m.orphans.update();
  assert.deepEqual(m.asked, []);
  m.orphans.close();
});

for (const [what, change] of [
  ['is a service address on lo, or routed to this machine', { local: new Set([LOST]) }],
  ['never was on an attached interface: a tunnel that reconnects', { attached: [HERE] }],
  ['is that of a transparent socket', { sockets: [socketOf(LOST, { transparent: true })] }],
  ['is that of a socket bound to any address', { sockets: [socketOf(LOST, { freebind: true })] }],
] as const) {
  test(`an address that ${what}: never ended`, () => {
    const m = machine('attached' in change ? [HERE] : [LOST]);
    m.state.sockets = [socketOf(LOST)];
    Object.assign(m.state, change);
    m.moved();
    m.after(100 * GIVE_UP_MS);
    assert.deepEqual(m.destroyed, []);
    m.orphans.close();
  });
}

test('an address that is here again when its time has come, without a word: not ended', () => {
  const m = machine([LOST]);
  m.moved();
  m.after(GIVE_UP_MS - 1);
  m.state.local = new Set([LOST]);
  m.after(1);
  assert.deepEqual(m.destroyed, []);
  m.orphans.close();
});

test('a connection that has a flow behind our own NAT: not ended', () => {
  const wire = tupleOf(LOST, '203.0.113.99');
  const m = machine([LOST], {
    boundary: {
      flow: (tuple) => (tupleEqual(tuple, wire) ? ({} as Flow) : undefined),
      plain: () => [],
    },
    wireOf: () => wire,
  });
  m.moved();
  m.after(GIVE_UP_MS);
  assert.deepEqual(m.destroyed, []);
  m.orphans.close();
});

test('no other address yet: give_up does not begin', () => {
  let elsewhere = false;
  const m = machine([LOST], { isElsewhere: () => elsewhere });
  m.moved();
  m.after(10 * GIVE_UP_MS);
  assert.deepEqual(m.destroyed, []);
  elsewhere = true;
  m.orphans.update();
  m.after(GIVE_UP_MS);
  assert.equal(m.destroyed.length, 1);
  m.orphans.close();
});

test('more addresses than fit on the stack', () => {
  const many = Array.from({ length: 150_000 }, (_, i) =>
    address(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`),
  );
  const m = machine(many);
  m.moved();
  m.orphans.close();
});

test('a kernel that cannot end sockets is not asked to', () => {
  const m = machine([LOST], { canDestroy: false });
  m.moved();
  m.after(20 * GIVE_UP_MS);
  assert.deepEqual(m.destroyed, []);
});

test('one that cannot be ended keeps none of the others waiting', (t) => {
  const failed: string[] = [];
  t.after(guardRounds((error) => failed.push(error.message)));
  const other = address('192.0.2.11');
  const ended: Address[] = [];
  const m = machine([LOST, other], {
    destroySocket: ({ local }) => {
      if (local === LOST) throw new SystemError('end the socket', ERRNO.EPERM);
      return ended.push(local) > 0;
    },
  });
  m.moved();
  m.after(GIVE_UP_MS);
  assert.deepEqual(ended, [other]);
  assert.deepEqual(m.events, ['flow-reset']);
  assert.equal(failed.length, 1);
  m.orphans.close();
});
