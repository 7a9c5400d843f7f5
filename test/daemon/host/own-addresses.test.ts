/* Which addresses are this machine's, and which were: by what was seen and what the kernel says. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OwnAddresses } from '../../../src/daemon/host/own-addresses.js';
import { type Address, address } from '../../../src/wire/address.js';

const HERE = address('192.0.2.10');
const THERE = address('198.51.100.10');
const TUNNEL = address('10.8.0.2');

function machine(former: readonly Address[] = []) {
  const state = { attached: [HERE] as readonly Address[], local: new Set<Address>(), dumps: 0 };
  const own = new OwnAddresses({
    isLocal: (a) => state.local.has(a),
    isForeign: () => {
      state.dumps += 1;
      return true;
    },
    attached: () => state.attached,
    former,
  });
  return { own, state };
}

test('gone: once on an attached interface, and local nowhere any more', () => {
  const { own, state } = machine();
  assert.deepEqual(own.gone(), []);
  state.attached = [THERE];
  assert.deepEqual(own.gone(), [HERE]);
  state.local.add(HERE);
  assert.deepEqual(own.gone(), [], 'another interface, or lo, has it now');
  state.local.clear();
  own.forget(HERE);
  assert.deepEqual(own.gone(), []);
  state.attached = [HERE];
  assert.deepEqual(own.gone(), [THERE]);
  state.attached = [];
  assert.deepEqual(own.gone(), [THERE, HERE]);
});

test('what connections of a former daemon had may be gone, too', () => {
  const { own, state } = machine([THERE]);
  assert.deepEqual(own.gone(), [THERE]);
  state.local.add(THERE);
  assert.deepEqual(own.gone(), []);
});

test('of an address that was here no socket is asked whose it is', () => {
  const { own, state } = machine();
  own.gone();
  state.attached = [];
  assert.equal(own.isForeign(HERE), false);
  assert.equal(state.dumps, 0);
  assert.equal(own.isForeign(TUNNEL), true);
});

test('bounded: the ones that were there last are known', () => {
  const { own, state } = machine();
  const of = (i: number) => address(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`);
  for (let i = 0; i < 3000; i++) {
    state.attached = [of(i)];
    own.isForeign(of(i));
  }
  state.attached = [];
  const gone = own.gone();
  assert.equal(gone.length, 1024);
  assert.equal(gone.at(-1), of(2999));
});
