/* When the connections of hosts behind a gateway are at home, and when they are elsewhere. */
import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { FLOW_FLAG, FLOW_SIZE, type Flow, readFlow } from '../../../src/boundary/abi.gen.js';
import { uplinksPath } from '../../../src/daemon/config/run-directory.js';
import { Uplinks, type UplinksSeen } from '../../../src/daemon/flows/uplinks.js';
import { type Surroundings, whereabouts } from '../../../src/daemon/flows/whereabouts.js';
import { address } from '../../../src/wire/address.js';
import { temporaryDirectory } from '../temporary.js';

const INNER = address('10.1.0.10');
const INNER6 = address('2001:db8:c1::10');
const PEER = address('203.0.113.10');
const OLD = address('192.0.2.10');
const NEW = address('198.51.100.10');
const UP0 = 3;

const oldOnUp0 = { address: OLD, index: UP0 };
const newOnUp0 = { address: NEW, index: UP0 };

/** A flow of a host behind the gateway that came in by up0. */
function flowOf(createdMs: number, outside = UP0): Flow {
  const flow = readFlow(new DataView(new ArrayBuffer(FLOW_SIZE)));
  const flags = outside === 0 ? 0 : FLOW_FLAG.FORWARDED;
  return { ...flow, flags, outside, created: BigInt(createdMs) * 1_000_000n };
}

/** The machine with these addresses on up0, and a carrier or not. */
const seen = (own: string[], carrier = true): Surroundings & UplinksSeen => ({
  holders: (a) => (own.includes(a) ? [{ interface: 'up0', carrier }] : []),
  ways: () => [{ source: NEW, interface: 'up0', gateway: address('198.51.100.1') }],
  wayFrom: () => undefined,
  attached: () => true,
  uplink: (index) => (index === UP0 ? { interface: 'up0', carrier } : undefined),
});

function where(uplinks: Uplinks, flow: Flow, s: Surroundings & UplinksSeen, local = INNER): string {
  return whereabouts({ local, remote: PEER }, uplinks.around(flow, local, s)).at;
}

test('home while the gateway is called as it was when the flow began', (t) => {
  const uplinks = new Uplinks(temporaryDirectory(t));
  uplinks.update([oldOnUp0], 1000);
  assert.equal(where(uplinks, flowOf(5000), seen([OLD])), 'home');
  assert.equal(where(uplinks, flowOf(500), seen([OLD])), 'home', 'older than the daemon');
  assert.equal(where(uplinks, flowOf(5000), seen([OLD], false)), 'dark', 'without a carrier');
});

test('elsewhere when the gateway has another address; new flows are at home there', (t) => {
  const uplinks = new Uplinks(temporaryDirectory(t));
  uplinks.update([oldOnUp0], 1000);
  uplinks.update([newOnUp0], 9000);
  assert.equal(where(uplinks, flowOf(5000), seen([NEW])), 'elsewhere');
  assert.equal(where(uplinks, flowOf(9500), seen([NEW])), 'home');
});

test('between two addresses: stranded; the old one back: home', (t) => {
  const uplinks = new Uplinks(temporaryDirectory(t));
  const nowhere = { ...seen([]), ways: () => [] };
  uplinks.update([oldOnUp0], 1000);
  uplinks.update([], 9000);
  assert.equal(where(uplinks, flowOf(5000), nowhere), 'stranded');
  uplinks.update([oldOnUp0], 9500);
  assert.equal(where(uplinks, flowOf(5000), seen([OLD])), 'home');
});

test('a second address that stays means that the gateway is where it was', (t) => {
  const uplinks = new Uplinks(temporaryDirectory(t));
  uplinks.update([oldOnUp0, newOnUp0], 1000);
  uplinks.update([newOnUp0], 9000);
  assert.equal(where(uplinks, flowOf(5000), seen([NEW])), 'home');
});

test('an uplink that never had an address of the family says nothing', (t) => {
  const uplinks = new Uplinks(temporaryDirectory(t));
  uplinks.update([oldOnUp0], 1000);
  uplinks.update([newOnUp0], 9000);
  assert.equal(where(uplinks, flowOf(5000), seen([NEW]), INNER6), 'home');
});

test('the uplink is gone: elsewhere, by another one', (t) => {
  const uplinks = new Uplinks(temporaryDirectory(t));
  uplinks.update([oldOnUp0], 1000);
  assert.equal(where(uplinks, flowOf(5000, 99), seen([NEW])), 'elsewhere');
});

test('an address that was the gateway’s own is not a host’s: such flows are retained', (t) => {
  const uplinks = new Uplinks(temporaryDirectory(t));
  uplinks.update([oldOnUp0], 1000);
  uplinks.update([newOnUp0], 9000);
  assert.equal(uplinks.routes(flowOf(5000), OLD), false);
  assert.equal(where(uplinks, flowOf(5000), seen([NEW]), OLD), 'elsewhere');
  assert.equal(uplinks.routes(flowOf(5000), INNER), true);
  assert.equal(uplinks.routes(flowOf(5000, 0), INNER), false, 'of a host, not of a gateway');
});

test('the next daemon knows what this one saw, and sees what changed without it', (t) => {
  const runDir = temporaryDirectory(t);
  new Uplinks(runDir).update([oldOnUp0], 1000);
  assert.equal(statSync(uplinksPath(runDir)).mode & 0o777, 0o600);
  const next = new Uplinks(runDir);
  next.update([newOnUp0], 9000);
  assert.equal(where(next, flowOf(5000), seen([NEW])), 'elsewhere');
});

test('what is gone is not kept for ever', (t) => {
  const runDir = temporaryDirectory(t);
  const uplinks = new Uplinks(runDir);
  for (let i = 0; i < 1100; i++) {
    uplinks.update([{ address: address(`10.9.${i >> 8}.${i & 255}`), index: UP0 }], i);
  }
  const entries = JSON.parse(readFileSync(uplinksPath(runDir), 'utf8')) as unknown[];
  assert.equal(entries.length, 1025);
});
