import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type LinkChange, LinkState } from '../../src/link/link-state.js';
import { RTM, SCOPE } from '../../src/link/rtnetlink.js';
import {
  attribute,
  decodeMessages,
  encodeMessage,
  type NetlinkMessage,
} from '../../src/netlink/message.js';
import { addressBytes, address as canonical, family } from '../../src/wire/address.js';

const UP = 0x1;
const LOWER_UP = 0x10000;
const TENTATIVE = 0x40;
const [OPER_UNKNOWN, DORMANT, OPER_UP] = [0, 5, 6];

describe('link state', () => {
  it('tells when a carrier comes and goes', () => {
    const state = new LinkState();
    assert.deepEqual(state.apply(link({ carrier: true })), [linkAdded, carrier(true)]);
    assert.deepEqual(state.apply(link({ carrier: true })), []);
    assert.deepEqual(state.apply(link({ carrier: false })), [carrier(false)]);
    assert.deepEqual(state.apply(link({ carrier: true })), [carrier(true)]);
    assert.deepEqual(state.apply(link({ gone: true, carrier: false })), [carrier(false), removed]);
    assert.deepEqual(state.links(), []);
  });

  it('tells that a link is gone, connected or not, once', () => {
    const state = new LinkState();
    state.apply(link({ carrier: false }));
    assert.deepEqual(state.apply(link({ gone: true, carrier: false })), [removed]);
    assert.deepEqual(state.apply(link({ gone: true, carrier: false })), []);
    state.apply(link({ carrier: false }));
    assert.deepEqual(state.replace([], []), [removed]);
  });

  it('takes what is told of the port of a bridge for nothing about the link', () => {
    const state = new LinkState();
    state.apply(link({ carrier: true }));
    assert.deepEqual(state.apply(link({ carrier: false, bridge: true })), []);
    assert.deepEqual(state.apply(link({ carrier: true, gone: true, bridge: true })), []);
    assert.equal(state.links()[0]?.carrier, true);
  });

  it('tells of a carrier that was gone between two messages', () => {
    const state = new LinkState();
    state.apply(link({ carrier: true, changes: 2 }));
    const flap = [carrier(false), carrier(true)];
    assert.deepEqual(state.apply(link({ carrier: true, changes: 4 })), flap);
  });

  it('a link that is connected but dormant carries nothing yet', () => {
    const state = new LinkState();
    assert.deepEqual(state.apply(link({ carrier: true, operstate: DORMANT })), [linkAdded]);
    assert.deepEqual(state.apply(link({ carrier: true, operstate: OPER_UP })), [carrier(true)]);
    assert.deepEqual(state.apply(link({ carrier: true, operstate: DORMANT })), [carrier(false)]);
    assert.deepEqual(state.apply(link({ carrier: true, operstate: OPER_UNKNOWN })), [
      carrier(true),
    ]);
  });

  it('tells of an IPv6 address when it can be used', () => {
    const state = withLink();
    assert.deepEqual(state.apply(addressed('2001:db8::1', { flags: TENTATIVE })), []);
    assert.equal(state.addresses()[0]?.tentative, true);
    assert.deepEqual(state.apply(addressed('2001:db8::1')), [added('2001:db8::1', 64)]);
    assert.deepEqual(state.apply(addressed('2001:db8::1')), []);
  });

  it('does not tell of an IPv6 address that never could be used', () => {
    const state = withLink();
    state.apply(addressed('2001:db8::1', { flags: TENTATIVE }));
    assert.deepEqual(state.apply(addressed('2001:db8::1', { gone: true })), []);
  });

  it('tells that an address is gone when its last prefix is', () => {
    const state = withLink();
    state.apply(addressed('192.0.2.10'));
    state.apply(addressed('192.0.2.10', { prefixLength: 16 }));
    assert.deepEqual(state.apply(addressed('192.0.2.10', { gone: true })), []);
    assert.deepEqual(state.apply(addressed('192.0.2.10', { gone: true, prefixLength: 16 })), [
      { type: 'address-removed', interface: 'eth0', address: '192.0.2.10' },
    ]);
  });

  it('leaves out retained and loopback addresses', () => {
    const state = withLink();
    assert.deepEqual(state.apply(addressed('192.0.2.10', { scope: SCOPE.HOST })), []);
    assert.deepEqual(state.addresses(), []);
  });

  it('passes over what it cannot read', () => {
    const state = withLink();
    fc.assert(
      fc.property(fc.nat(60), fc.uint8Array({ maxLength: 64 }), (type, payload) => {
        state.apply({ type, flags: 0, sequence: 0, port: 0, payload });
      }),
    );
  });

  it('after a fresh look knows and has told the same as one that missed nothing', () => {
    const texts = ['192.0.2.1', '192.0.2.2', '2001:db8::1', '2001:db8::2'];
    const step = fc.record({
      text: fc.constantFrom(...texts),
      gone: fc.boolean(),
      flags: fc.constantFrom(0, TENTATIVE),
    });
    fc.assert(
      fc.property(fc.array(step), fc.array(step), (seen, missed) => {
        const observer = withLink();
        const told: LinkChange[] = [];
        const truth = withLink();
        const play = (steps: typeof seen, watched: boolean) => {
          for (const { text, ...o } of steps) {
            truth.apply(addressed(text, o));
            if (watched) told.push(...observer.apply(addressed(text, o)));
          }
        };
        play(seen, true);
        play(missed, false);
        const dump = truth
          .addresses()
          .map((a) => addressed(a.address, { flags: a.tentative ? TENTATIVE : 0 }));
        told.push(...observer.replace([link({ carrier: true })], dump));
        assert.deepEqual(sorted(observer.addresses()), sorted(truth.addresses()));
        const usable = truth.addresses().filter((a) => !a.tentative);
        assert.deepEqual(believed(told), new Set(usable.map((a) => a.address)));
      }),
    );
  });
});

/** What someone believes to be usable who knows the changes only. */
function believed(changes: LinkChange[]): Set<string> {
  const addresses = new Set<string>();
  for (const change of changes) {
    if (change.type === 'address-added') addresses.add(change.address);
    if (change.type === 'address-removed') addresses.delete(change.address);
  }
  return addresses;
}

const sorted = <T extends { address: string }>(list: T[]) =>
  list.toSorted((a, b) => a.address.localeCompare(b.address));

const linkAdded = { type: 'link-added', interface: 'eth0', index: 2 };
const removed = { type: 'link-removed', interface: 'eth0', index: 2 };
const carrier = (up: boolean) => ({ type: 'carrier', interface: 'eth0', up });

const added = (address: string, prefixLength: number) => ({
  type: 'address-added',
  interface: 'eth0',
  address,
  prefixLength,
});

function withLink(): LinkState {
  const state = new LinkState();
  state.apply(link({ carrier: true }));
  return state;
}

interface LinkOptions {
  carrier: boolean;
  changes?: number;
  /** IF_OPER_…: RFC 2863, ifOperStatus. */
  operstate?: number;
  gone?: boolean;
  bridge?: boolean;
}

function link(o: LinkOptions): NetlinkMessage {
  const header = new Uint8Array(16);
  const view = new DataView(header.buffer);
  if (o.bridge) view.setUint8(0, 7);
  view.setUint16(2, 1, true);
  view.setInt32(4, 2, true);
  view.setUint32(8, UP | (o.carrier ? LOWER_UP : 0), true);
  const parts = [header, attribute(3, 'eth0'), attribute(4, 1500)];
  if (o.changes !== undefined) parts.push(attribute(35, o.changes));
  if (o.operstate !== undefined) parts.push(attribute(16, Uint8Array.of(o.operstate)));
  return message(o.gone ? RTM.DELLINK : RTM.NEWLINK, parts);
}

function addressed(
  text: string,
  o: { flags?: number; gone?: boolean; prefixLength?: number; scope?: number } = {},
): NetlinkMessage {
  const address = canonical(text);
  const header = new Uint8Array(8);
  const prefixLength = o.prefixLength ?? (family(address) === 4 ? 24 : 64);
  header.set([family(address) === 4 ? 2 : 10, prefixLength, 0, o.scope ?? 0, 2]);
  const parts = [header, attribute(1, addressBytes(address)), attribute(8, o.flags ?? 0)];
  return message(o.gone ? RTM.DELADDR : RTM.NEWADDR, parts);
}

function message(type: number, parts: Uint8Array[]): NetlinkMessage {
  const decoded = decodeMessages(encodeMessage(type, 0, parts));
  assert.ok(!('error' in decoded));
  const [first] = decoded;
  assert.ok(first);
  return first;
}
