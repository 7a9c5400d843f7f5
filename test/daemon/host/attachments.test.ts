/* What is asked for and cannot be had changes nothing; what would break connections is not taken off. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Attached, Placement } from '../../../src/boundary/boundary.js';
import { Attachments } from '../../../src/daemon/host/attachments.js';
import { type WantedByConfig, Wants } from '../../../src/daemon/host/wants.js';
import { ERRNO, SystemError } from '../../../src/libc/errno.js';
import { FakeClock } from '../../sim/fake-clock.js';
import { temporaryDirectory } from '../temporary.js';

const LINKS = ['eth0', 'eth1', 'eth2'].map((name, i) => ({
  ...{ name, index: i + 2, ethernet: true, vmTap: false, master: undefined },
  ...{ up: true, carrier: true, carrierChanges: 0, mtu: 1500, mac: new Uint8Array(6) },
}));

/** A machine with three links, and a boundary that is nothing but where it is. */
function machine(t: TestContext, o: Partial<WantedByConfig> & { there?: string[] } = {}) {
  const there = new Map<string, Placement>((o.there ?? []).map((name) => [name, 'host']));
  const everywhere = (): Attached[] =>
    LINKS.flatMap(({ name, index }) => {
      const placement = there.get(name);
      return placement === undefined ? [] : [{ index, interface: name, placement }];
    });
  const config = { interfaces: [], gateways: [], taps: [], runDir: temporaryDirectory(t), ...o };
  const state = { refusesGateways: false, flows: 0, reads: 0, defaults: new Set<number>() };
  const wants = new Wants(config, []);
  const attachments = new Attachments({
    boundary: {
      attach: (name, placement) => {
        if (state.refusesGateways && placement === 'gateway') {
          throw new SystemError(`attach boundary to ${name}`, ERRNO.ENOMEM);
        }
        there.set(name, placement);
      },
      detach: (name) => there.delete(name),
      look: () => undefined,
      everywhere,
      isPinned: () => true,
      pinAgain: () => undefined,
    },
    monitor: { links: () => LINKS, catchUp: () => undefined },
    ...{ wants, clock: new FakeClock() },
    defaultLinks: () => {
      state.reads += 1;
      return state.defaults;
    },
    attachTap: () => assert.fail('no taps here'),
    detachTap: () => assert.fail('no taps here'),
    flowsOn: () => state.flows,
    done: () => undefined,
    warn: () => undefined,
  });
  t.after(() => attachments.close());
  return { attachments, state, where: () => Object.fromEntries(there) };
}

test('a gateway that cannot be had: the host that was asked for before stays', (t) => {
  const { attachments, state, where } = machine(t);
  attachments.ask('eth0', 'host');
  state.refusesGateways = true;
  assert.throws(() => attachments.ask('eth0', 'gateway'), /attach boundary to eth0: ENOMEM/);
  assert.deepEqual(where(), { eth0: 'host' });
  assert.deepEqual(attachments.view().steps, []);
  assert.throws(() => attachments.ask('eth9', 'host'), /ENODEV/);
  assert.throws(() => attachments.refuse('eth9'), /ENODEV/);
});

test('the configuration names it no more: it comes off, but not while flows live by it', (t) => {
  const { attachments, state, where } = machine(t, { there: ['eth0'] });
  state.flows = 2;
  attachments.now();
  assert.deepEqual(where(), { eth0: 'host' });
  const [step] = attachments.view().steps;
  assert.deepEqual([step?.do, step?.times_refused], ['detach eth0', 1]);
  assert.match(
    step?.refused ?? '',
    /EBUSY \(2 flows have moved and would break: `tiflow down eth0/,
  );
  attachments.refuse('eth0');
  assert.deepEqual(where(), {}, 'who says down has looked');
});

test('the default routes are read when one has changed, and not for anything else', (t) => {
  const { attachments, state, where } = machine(t, { interfaces: ['default'] });
  state.defaults = new Set([3]);
  attachments.now();
  assert.deepEqual([where(), state.reads], [{ eth1: 'host' }, 1]);
  for (const _ of LINKS) attachments.missing();
  attachments.changed({ type: 'hook-changed', index: 2 });
  assert.equal(state.reads, 1);
  state.defaults = new Set([4]);
  attachments.changed({ type: 'route-changed' });
  attachments.ask('eth0', 'host');
  assert.deepEqual([where(), state.reads], [{ eth0: 'host', eth2: 'host' }, 2]);
});
