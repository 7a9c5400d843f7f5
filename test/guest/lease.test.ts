/* The DHCP client as a machine: whatever comes, in whatever order, these things hold. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  type LeaseClient,
  type LeaseContext,
  type LeaseEffect,
  type LeaseEvent,
  newLeaseClient,
  step,
} from '../../src/guest/lease.js';
import { address } from '../../src/wire/address.js';
import {
  addressOptionOf,
  DHCP_OPTION,
  type DhcpMessage,
  type DhcpType,
  EVERYBODY,
  encodeDhcp,
  NOBODY,
  secondsOptionOf,
  typeOption,
} from '../../src/wire/dhcp.js';
import { GUEST } from './lan.js';

const ADDRESSES = [NOBODY, address('198.51.100.10'), address('198.51.100.11')];
const SERVERS = [address('198.51.100.1'), address('198.51.100.2')];
const SECONDS = [0, 29, 30, 120, 3600, 0xffffffff];

type Told = { after: number } & (
  | { kind: 'timer' }
  | { kind: 'checked'; taken: boolean }
  | { kind: 'message'; ours: boolean; type: DhcpType; at: number; server: number; time: number }
);

const record = <T extends object>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record<T>(fields, { noNullPrototype: true });
const after = fc.integer({ min: 0, max: 1_500_000 });

const told: fc.Arbitrary<Told> = fc.oneof(
  record({ kind: fc.constant('timer' as const), after }),
  record({ kind: fc.constant('checked' as const), after, taken: fc.boolean() }),
  record({
    kind: fc.constant('message' as const),
    after: fc.nat(1000),
    ours: fc.integer({ min: 0, max: 9 }).map((n) => n > 0),
    type: fc.constantFrom<DhcpType>('offer', 'ack', 'nak', 'ack', 'offer', 'request'),
    at: fc.nat(2),
    server: fc.nat(1),
    time: fc.nat(SECONDS.length - 1),
  }),
);

/* Chance alone hardly ever gets as far as a lease. */
const GAINED: Told[] = [
  { kind: 'timer', after: 0 },
  { kind: 'message', after: 1, ours: true, type: 'offer', at: 1, server: 0, time: 4 },
  { kind: 'message', after: 1, ours: true, type: 'ack', at: 1, server: 0, time: 4 },
  { kind: 'checked', after: 300, taken: false },
];

const history = fc
  .tuple(fc.boolean(), fc.array(told, { maxLength: 40 }))
  .map(([gained, rest]) => (gained ? [...GAINED, ...rest] : rest));

function messageOf(t: Told & { kind: 'message' }, xid: number): DhcpMessage {
  const seconds = SECONDS[t.time] ?? 0;
  return {
    op: 'reply',
    xid: t.ours ? xid : xid + 1,
    secs: 0,
    broadcast: true,
    ciaddr: NOBODY,
    yiaddr: ADDRESSES[t.at] ?? NOBODY,
    siaddr: NOBODY,
    chaddr: GUEST,
    options: [
      typeOption(t.type),
      addressOptionOf(DHCP_OPTION.SERVER, SERVERS[t.server] ?? NOBODY),
      { code: DHCP_OPTION.SUBNET_MASK, bytes: Uint8Array.of(255, 255, 255, 0) },
      secondsOptionOf(DHCP_OPTION.LEASE_TIME, seconds),
      secondsOptionOf(DHCP_OPTION.RENEWAL_TIME, Math.floor(seconds / 3)),
    ],
  };
}

/** Runs one history and checks each step. */
function play(told: readonly Told[]): LeaseClient['state'][] {
  let random = 1;
  let nowMs = 0;
  const identity = { mac: GUEST, options: [], parameters: new Uint8Array(), wish: undefined };
  const context = (): LeaseContext => ({ nowMs, random: () => random++, identity });
  let client = newLeaseClient(context());
  const states: LeaseClient['state'][] = [client.state];
  for (const each of told) {
    nowMs += each.after;
    const before = client;
    const { next, effects } = step(client, eventOf(each, client), context());
    client = next;
    states.push(next.state);
    for (const effect of effects) assertEffect(effect, { before, event: each, nowMs });
    if (next.state !== 'failed' && next !== before && next.state !== 'checking') {
      const waits = effects.some((e) => e.effect === 'arm');
      assert.ok(waits, `${before.state} -> ${next.state} waits for nothing`);
    }
  }
  return states;
}

function eventOf(t: Told, client: LeaseClient): LeaseEvent {
  if (t.kind === 'timer') return { event: 'timer' };
  if (t.kind === 'checked') return { event: 'checked', taken: t.taken };
  return { event: 'message', message: messageOf(t, 'xid' in client ? client.xid : 0) };
}

function assertEffect(
  e: LeaseEffect,
  { before, event, nowMs }: { before: LeaseClient; event: Told; nowMs: number },
): void {
  if (e.effect === 'arm') assert.ok(e.ms >= 0 && e.ms < 2 ** 31, `${e.ms}`);
  if (e.effect === 'send') {
    assert.equal(e.message.chaddr, GUEST);
    encodeDhcp({ source: e.message.ciaddr, destination: EVERYBODY, message: e.message });
  }
  if (e.effect === 'gained') {
    const checked = before.state === 'checking' && event.kind === 'checked' && !event.taken;
    const extended =
      (before.state === 'renewing' || before.state === 'rebinding') &&
      before.lease.address === e.lease.address;
    assert.ok(checked || extended, `gained from ${before.state}`);
    assert.ok(e.lease.renewAtMs <= e.lease.rebindAtMs && e.lease.rebindAtMs <= e.lease.endsAtMs);
  }
  if (e.effect === 'lost' && e.why === 'expired') {
    assert.ok(e.lease.endsAtMs <= nowMs);
    assert.equal(event.kind, 'timer');
  }
}

describe('the DHCP client', () => {
  it('no history makes it throw, wait for nothing, or use what it has not checked', () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(history, (each) => {
        for (const state of play(each)) seen.add(state);
      }),
      { numRuns: 3000, seed: 20 },
    );
    assert.deepEqual([...seen].sort(), [
      ...['bound', 'checking', 'failed', 'rebinding', 'renewing', 'requesting', 'selecting'],
    ]);
  });
});
