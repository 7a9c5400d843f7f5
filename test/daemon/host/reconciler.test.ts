/* Steps that are refused: said once, tried again later and later, and at once when their subject changes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reconciler, type Step } from '../../../src/daemon/host/reconciler.js';
import { ERRNO, SystemError } from '../../../src/libc/errno.js';
import { FakeClock } from '../../sim/fake-clock.js';

const step = (name: string): Step => ({ do: 'attach', interface: name, because: 'it is wanted' });

function setUp(...wanted: string[]) {
  const clock = new FakeClock();
  const refusing = new Map<string, number>();
  const [applied, said]: [string[], string[]] = [[], []];
  const there = new Set<string>();
  let looks = 0;
  const reconciler = new Reconciler<Step>({
    clock,
    look: () => {
      looks += 1;
    },
    plan: () => wanted.filter((name) => !there.has(name)).map(step),
    apply: ({ interface: name = '' }) => {
      const errno = refusing.get(name);
      if (errno !== undefined) throw new SystemError(`attach to ${name}`, errno);
      there.add(name);
      applied.push(name);
    },
    refused: (_, error) => said.push(error.message),
  });
  const advance = (ms: number): void => {
    let isOver = false;
    clock.setTimer(ms, () => {
      isOver = true;
    });
    clock.run({ atMost: Number.POSITIVE_INFINITY, until: () => isOver });
  };
  return { advance, refusing, applied, said, there, reconciler, looks: () => looks };
}

test('a burst of changes is one round, 2 ms later', () => {
  const { advance, applied, reconciler } = setUp('eth0');
  for (let n = 0; n < 100; n++) reconciler.soon('eth0');
  assert.deepEqual(applied, []);
  advance(2);
  assert.deepEqual(applied, ['eth0']);
  assert.deepEqual(reconciler.view().steps, []);
});

test('one that is refused keeps no other from being taken, is said once, and tried again', () => {
  const { advance, refusing, applied, said, reconciler } = setUp('eth0', 'eth1');
  refusing.set('eth0', ERRNO.EBUSY);
  reconciler.now();
  assert.deepEqual(applied, ['eth1']);
  advance(1_000 + 2_000 + 4_001);
  assert.equal(said.length, 1);
  const [first] = reconciler.view().steps;
  assert.deepEqual(
    [first?.do, first?.because, first?.again_in_ms],
    ['attach eth0', 'it is wanted', 7_999],
  );
  assert.match(first?.refused ?? '', /attach to eth0: EBUSY/);
  refusing.set('eth0', ERRNO.ENOSPC);
  advance(8_000);
  assert.equal(said.length, 2);
  refusing.clear();
  advance(16_000);
  assert.deepEqual(applied, ['eth1', 'eth0']);
});

test('other news do not have it tried sooner, news of its subject do', () => {
  const { advance, refusing, applied, reconciler } = setUp('eth0');
  refusing.set('eth0', ERRNO.EBUSY);
  reconciler.now();
  refusing.clear();
  reconciler.soon('eth7');
  advance(2);
  assert.deepEqual(applied, []);
  reconciler.soon('eth0');
  advance(2);
  assert.deepEqual(applied, ['eth0']);
});

test('what is taken away unseen is put back within half a minute', () => {
  const { advance, applied, there, reconciler, looks } = setUp('eth0');
  reconciler.now();
  there.clear();
  advance(29_000);
  assert.deepEqual([applied.length, looks()], [1, 0]);
  advance(1_000);
  assert.deepEqual([applied.length, looks()], [2, 1]);
});

test('somebody undoes it again and again: later and later, and at once when it was calm', () => {
  const { advance, applied, there, reconciler } = setUp('eth0');
  const undone = () => {
    there.clear();
    reconciler.soon('eth0');
  };
  reconciler.now();
  for (let ms = 0; ms < 10_000; ms++) {
    if (there.size > 0) undone();
    advance(1);
  }
  assert.ok(applied.length > 8 && applied.length < 16, `${applied.length} times in 10 s`);
  advance(30_000);
  assert.equal(there.size, 1);
  advance(70_000);
  const before = applied.length;
  undone();
  advance(2);
  assert.equal(applied.length, before + 1);
});

test('where the process may not, it says so', () => {
  const { refusing, reconciler } = setUp('eth0');
  refusing.set('eth0', ERRNO.EPERM);
  assert.throws(() => reconciler.now(), /EPERM/);
});
