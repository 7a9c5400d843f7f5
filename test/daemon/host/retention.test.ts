/* Which addresses are kept, what is told of it, and how often what somebody removes is put back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Flow } from '../../../src/boundary/abi.gen.js';
import { PutBack } from '../../../src/daemon/host/put-back.js';
import { Retention } from '../../../src/daemon/host/retention.js';
import { ERRNO, SystemError } from '../../../src/libc/errno.js';
import { guardRounds } from '../../../src/libc/guard.js';
import type { KernelObject } from '../../../src/link/kernel-objects.js';
import { planRetained } from '../../../src/link/retained.js';
import { type Address, address } from '../../../src/wire/address.js';
import type { Tuple } from '../../../src/wire/tuple.js';
import { FakeClock } from '../../sim/fake-clock.js';

const REMOTE = { remote: address('203.0.113.7'), localPort: 22, remotePort: 40_000 };
const flowOf = (local: string): [Tuple, Flow] => [
  { local: address(local), ...REMOTE },
  { flags: 0 } as Flow,
];
const V4 = '192.0.2.10';
const V6 = '2001:db8::2';

/** A kernel that keeps what it is told to, but for what it refuses. */
function machine(o: { refuses?: RegExp; former?: readonly string[] } = {}) {
  const there = new Map<string, KernelObject>();
  const events: string[] = [];
  const state = { refuses: o.refuses, here: new Set<Address>(), putBack: 0, flows: [] as string[] };
  const plan = (addresses: readonly Address[]) =>
    planRetained(
      { addresses, interfaces: ['eth0'], forwards: false, table: 1 },
      { objects: [...there.values()], shadows: [] },
    );
  const list = () =>
    [...there.values()].flatMap((each) =>
      each.kind === 'route' && each.route.destination !== undefined ? each.route.destination : [],
    );
  const apply = (steps: ReturnType<typeof plan>) =>
    steps.flatMap((step) => {
      if (state.refuses?.test(step.object.text)) {
        return { step, error: new SystemError(step.object.text, ERRNO.EACCES) };
      }
      if (step.verb === 'add') there.set(step.object.text, step.object);
      else there.delete(step.object.text);
      return [];
    });
  apply(plan((o.former ?? []).map((a) => address(a))));
  const retention = new Retention({
    retained: { plan, apply, list, routesChanged: () => undefined },
    emit: ({ event, address: of, object }) => events.push([event, of ?? object].join(' ')),
    putBack: () => {
      state.putBack += 1;
    },
  });
  return {
    ...{ retention, there, state },
    /** What is told of a look at these flows. */
    look: (flows: readonly string[]): string[] => {
      retention.update(
        flows.map(flowOf),
        (a) => state.here.has(a),
        () => false,
      );
      return events.splice(0);
    },
  };
}

test('what somebody has removed is the plan, until the next look', () => {
  const { look, there, retention } = machine();
  look([V4]);
  assert.deepEqual(retention.plan(), []);
  const [removed = ''] = there.keys();
  there.delete(removed);
  const [step, ...more] = retention.plan();
  assert.deepEqual([step?.do, more], [`add ${removed}`, []]);
  look([V4]);
  assert.deepEqual(retention.plan(), []);
});

test('an address is kept while flows need it and the kernel does not call it local', () => {
  const { look, there, state } = machine();
  assert.deepEqual(look([V4]), [`address-retained ${V4}`]);
  assert.deepEqual(look([V4]), []);
  state.here.add(address(V4));
  assert.deepEqual(look([V4]), [`address-released ${V4}`]);
  assert.equal(there.size, 0);
  state.here.clear();
  assert.deepEqual(look([V4]), [`address-retained ${V4}`]);
  assert.deepEqual(look([]), [`address-released ${V4}`]);
  assert.equal(there.size, 0);
});

test('IPv6 was switched off: IPv4 addresses are kept all the same, and it is tried again', (t) => {
  const failed: string[] = [];
  t.after(guardRounds((error) => failed.push(error.message)));
  const { look, state, retention } = machine({ refuses: /IPv6/ });
  assert.deepEqual(look([V6, V4]), [`address-retained ${V4}`]);
  assert.match(failed.join(), /IPv6 route local 2001:db8::2 .*EACCES/);
  state.refuses = undefined;
  assert.deepEqual(look([V6, V4]), [`address-retained ${V6}`]);
  assert.deepEqual(new Set(retention.addresses()), new Set([V4, V6]));
});

test('what a former daemon has retained is no news; what nobody needs any more goes', () => {
  const { look, retention } = machine({ former: [V4, '192.0.2.11'] });
  assert.deepEqual(new Set(retention.addresses()), new Set([V4, '192.0.2.11']));
  assert.deepEqual(look([V4]), ['address-released 192.0.2.11']);
  assert.deepEqual(look([V4]), []);
});

test('what somebody removes is put back, and told; another interface is no news', () => {
  const { look, there, state } = machine();
  look([V4]);
  const rules = [...there.keys()].filter((text) => text.includes('rule 99'));
  for (const text of rules) there.delete(text);
  assert.deepEqual(
    look([V4]),
    rules.map((text) => `put-back ${text}`),
  );
  assert.equal(state.putBack, 1);
  assert.deepEqual(look([V4]), []);
});

test('who removes it at once each time is not raced: later and later, and at once after a calm', () => {
  const clock = new FakeClock();
  const looks: number[] = [];
  let isHostile = true;
  let isKeeping = false;
  const look = () => {
    looks.push(clock.now());
    putBack.done();
    if (isHostile) putBack.removed();
  };
  const putBack: PutBack = new PutBack({ clock, look, isKeeping: () => isKeeping });
  for (let i = 0; i < 100; i++) putBack.removed(); // one burst is one look
  clock.pass(600_000);
  assert.ok(looks.length > 10 && looks.length < 40, `${looks.length} in 10 minutes`);
  const waits = looks.map((at, i) => at - (looks[i - 1] ?? 0));
  assert.equal(Math.max(...waits), 30_000);
  isHostile = false;
  clock.pass(120_000);
  const [removedAt, count] = [clock.now(), looks.length];
  putBack.removed();
  clock.pass(10);
  assert.equal(looks.length, count + 1);
  assert.equal((looks.at(-1) ?? 0) - removedAt, 2);

  isKeeping = true;
  clock.pass(120_000);
  assert.equal(
    looks.length,
    count + 1 + 4,
    'every half a minute, while there is something of ours',
  );
  putBack.close();
});
