/* What is learned of a guest from what passes at its home, and what is taken over from elsewhere. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  type GuestState,
  identifiers6,
  learn,
  linkLocalOf,
  parseGuestState,
  unknownGuest,
} from '../../src/guest/identity.js';
import { address } from '../../src/wire/address.js';
import { encodeDhcp, NOBODY } from '../../src/wire/dhcp.js';
import { ETHERTYPE, mac } from '../../src/wire/ethernet.js';
import { encodeNeighbour, solicitedNode } from '../../src/wire/neighbour.js';
import { Guest } from './guest.js';
import { ATHOS, GUEST, guestAddress6, outcome } from './lan.js';

const hex = (text: string) => Buffer.from(text).toString('hex');

function learned(): GuestState {
  const guest = new Guest(ATHOS);
  guest.learnsHome();
  return guest.care.state();
}

describe('a guest at home', () => {
  it('is known by what it says to its DHCP server, and by what that says', () => {
    const { inside4, dhcp } = learned();
    assert.deepEqual(dhcp, { client_id: '0102000000000a', host_name: hex('vm') });
    assert.equal(inside4?.address, '192.0.2.10');
    assert.equal(inside4?.prefix_length, 24);
    assert.equal(inside4?.gateway, '192.0.2.1');
    assert.equal(inside4?.server, '192.0.2.1');
    assert.equal(inside4?.lease_s, 3600);
    assert.deepEqual(
      inside4?.options.find((o) => o.code === 119),
      { code: 119, hex: '017800' },
    );
    assert.ok(!inside4?.options.some((o) => [50, 53, 61].includes(o.code)));
  });

  it('its router by its advertisement, verbatim', () => {
    const { inside6 } = learned();
    assert.equal(inside6?.prefix, '2001:db8:1::');
    assert.equal(inside6?.router, 'fe80::1');
    assert.equal(inside6?.router_mac, ATHOS.gatewayMac);
    const { lan } = new Guest(ATHOS);
    assert.equal(inside6?.advertisement, Buffer.from(lan.advertisement()).toString('hex'));
  });

  it('a state is JSON that can be taken over', () => {
    const state = learned();
    assert.deepEqual(parseGuestState(JSON.parse(JSON.stringify(state))), state);
  });

  it('what is of another guest, or not an ACK, teaches nothing', () => {
    const guest = new Guest(ATHOS);
    const other = mac('02:00:00:00:00:0b');
    guest.sends('request', { chaddr: other });
    const request = guest.sends('request');
    const said = guest.care.state();
    const offer = guest.lan.packet(request, { type: 'offer', yiaddr: guest.lan.offered });
    const ack = guest.lan.packet(request, { type: 'ack', yiaddr: guest.lan.offered });
    const foreign = { ...ack, message: { ...ack.message, chaddr: other } };
    for (const packet of [offer, foreign]) {
      guest.care.packet({
        etherType: ETHERTYPE.IPV4,
        from: 'network',
        packet: encodeDhcp(packet),
      });
    }
    assert.deepEqual(guest.care.state(), said);
    assert.equal(said.inside4, null);
  });

  it('a router that does not offer itself, or no prefix for hosts, teaches nothing', () => {
    const { lan } = new Guest(ATHOS);
    const state = unknownGuest(GUEST);
    const from = 'network' as const;
    for (const o of [{ routerLifetimeS: 0 }]) {
      const packet = lan.advertisement(o);
      assert.equal(learn(state, { etherType: ETHERTYPE.IPV6, from, packet }).inside6, null);
    }
  });

  it('its IPv6 addresses by duplicate address detection, those of other prefixes not', () => {
    const source = address('::');
    let state = learned();
    for (const text of ['2001:db8:1::77', 'fe80::77', '2001:db8:9::1', '2001:db8:1::77']) {
      const target = address(text);
      const destination = solicitedNode(target);
      const message = { kind: 'neighbour-solicitation' as const, target, options: [] };
      const packet = encodeNeighbour({ source, destination, message });
      state = learn(state, { etherType: ETHERTYPE.IPV6, from: 'guest', packet });
    }
    assert.deepEqual(state.addresses6, ['fe80::77', '2001:db8:1::77']);
    assert.equal(linkLocalOf(state), 'fe80::77');
    assert.deepEqual(
      identifiers6(state).map((id) => Buffer.from(id).toString('hex')),
      ['0000000000000077', '000000fffe00000a'],
    );
  });

  it('without such knowledge its identifier is that of its MAC', () => {
    assert.equal(linkLocalOf(unknownGuest(GUEST)), 'fe80::ff:fe00:a');
    assert.ok(guestAddress6(ATHOS).endsWith('::ff:fe00:a'));
  });

  it('hostile packets teach nothing that cannot be taken over', () => {
    const guest = new Guest(ATHOS);
    guest.learnsHome();
    const lease = encodeDhcp(
      guest.lan.packet(guest.sends('request'), { type: 'ack', yiaddr: guest.lan.offered }),
    );
    const packets = fc.constantFrom(lease, guest.lan.advertisement());
    const broken = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 8 });
    fc.assert(
      fc.property(packets, broken, fc.boolean(), (packet, flips, cut) => {
        const bytes = packet.slice();
        for (const [at, value] of flips) bytes[at % bytes.length] = value;
        if (bytes.length > 300) bytes.fill(0, 26, 28);
        const etherType = (bytes[0] ?? 0) >> 4 === 4 ? ETHERTYPE.IPV4 : ETHERTYPE.IPV6;
        const hostile = cut ? bytes.subarray(0, bytes.length - 20) : bytes;
        guest.care.packet({ etherType, from: 'network', packet: hostile });
        guest.care.packet({ etherType, from: 'guest', packet: hostile });
        parseGuestState(JSON.parse(JSON.stringify(guest.care.state())));
      }),
    );
  });
});

describe('inform', () => {
  it('learns the lease of a guest that nobody watched; its address is known from elsewhere', async () => {
    const guest = new Guest(ATHOS);
    assert.equal(await outcome(guest.clock, guest.care.inform()), false);
    assert.equal(guest.lan.dhcp.length, 0);
    const informed = guest.care.inform(address('192.0.2.10'));
    assert.equal(await outcome(guest.clock, informed), true);
    const [inform] = guest.lan.dhcp;
    assert.equal(inform?.ciaddr, '192.0.2.10');
    const { inside4 } = guest.care.state();
    assert.equal(inside4?.address, '192.0.2.10');
    assert.equal(inside4?.gateway, '192.0.2.1');
    assert.equal(inside4?.lease_s, 3600);
  });

  it('keeps the lease time that is known', async () => {
    const guest = new Guest(ATHOS);
    guest.lan.leaseS = 7200;
    guest.learnsHome();
    assert.equal(await outcome(guest.clock, guest.care.inform()), true);
    assert.equal(guest.care.state().inside4?.lease_s, 7200);
    assert.equal(guest.lan.dhcp.at(-1)?.yiaddr, NOBODY);
  });

  it('gives up where there is no server', async () => {
    const guest = new Guest(ATHOS);
    guest.lan.silent = true;
    assert.equal(await outcome(guest.clock, guest.care.inform(address('192.0.2.10'))), false);
    assert.equal(guest.lan.frames.length, 3);
    assert.ok(guest.clock.now() < 2000);
  });
});

describe('a state that is none', () => {
  const state = () => JSON.parse(JSON.stringify(learned()));
  for (const [what, change] of [
    ['another version', (s) => ({ ...s, version: 2 })],
    ['no MAC', (s) => ({ ...s, mac: 'none' })],
    ['an IPv6 address for IPv4', (s) => ({ ...s, inside4: { ...s.inside4, address: '::1' } })],
    ['a long prefix', (s) => ({ ...s, inside4: { ...s.inside4, prefix_length: 33 } })],
    ['odd hex', (s) => ({ ...s, dhcp: { client_id: 'abc' } })],
    ['an unknown field', (s) => ({ ...s, more: 1 })],
    ['option 0', (s) => ({ ...s, inside4: { ...s.inside4, options: [{ code: 0, hex: '' }] } })],
    ['no advertisement', (s) => ({ ...s, inside6: { ...s.inside6, advertisement: '00' } })],
    ['nothing', () => null],
  ] as [string, (s: GuestState) => unknown][]) {
    it(what, () => {
      assert.throws(() => parseGuestState(change(state())), /not the state of a guest/);
    });
  }

  it("another guest's", () => {
    const { care } = new Guest(ATHOS, { care: { mac: mac('02:00:00:00:00:0b') } });
    assert.throws(() => care.restore(state()), /the state of guest 02:00:00:00:00:0a for guest/);
  });
});
