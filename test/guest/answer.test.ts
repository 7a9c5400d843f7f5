/* A guest that is away hears what its home would say: DHCP and router advertisements. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Address, address } from '../../src/wire/address.js';
import {
  addressOption,
  addressOptionOf,
  DHCP_OPTION,
  type DhcpMessage,
  type DhcpPacket,
  decodeDhcp,
  optionOf,
  secondsOption,
  typeOf,
} from '../../src/wire/dhcp.js';
import { BROADCAST_MAC, ETHERTYPE, mac } from '../../src/wire/ethernet.js';
import { decodeNeighbour, linkLayerAddress, prefixInformation } from '../../src/wire/neighbour.js';
import { Guest, STAND_IN } from './guest.js';
import { ATHOS, GUEST, outcome, PORTHOS, pass } from './lan.js';

const INSIDE = address('192.0.2.10');

/** A guest of athos that has settled at porthos. */
async function away(): Promise<Guest> {
  const before = new Guest(ATHOS);
  before.learnsHome();
  const guest = new Guest(PORTHOS);
  guest.care.restore(before.care.state());
  await outcome(guest.clock, guest.care.settle(['dhcp']));
  guest.care.away();
  return guest;
}

const requested = (a: Address) => addressOptionOf(DHCP_OPTION.REQUESTED_ADDRESS, a);
const chosen = (a: Address) => addressOptionOf(DHCP_OPTION.SERVER, a);

/** The answer to what the guest has just sent. */
function answer(guest: Guest): DhcpPacket | undefined {
  const frame = guest.received.findLast((each) => each.etherType === ETHERTYPE.IPV4);
  if (frame === undefined) return undefined;
  assert.equal(frame.source, STAND_IN);
  const packet = decodeDhcp(frame.payload);
  assert.ok(!('error' in packet));
  const everybody = packet.destination === '255.255.255.255';
  assert.equal(frame.destination, everybody ? BROADCAST_MAC : GUEST);
  return packet;
}

function assertLease(sent: DhcpMessage, packet: DhcpPacket | undefined, type: string): void {
  assert.ok(packet);
  const { message } = packet;
  assert.equal(typeOf(message), type);
  assert.equal(packet.source, '192.0.2.1');
  assert.equal(message.xid, sent.xid);
  assert.equal(message.yiaddr, INSIDE);
  assert.equal(addressOption(message, DHCP_OPTION.SERVER), '192.0.2.1');
  assert.equal(addressOption(message, DHCP_OPTION.ROUTER), '192.0.2.1');
  assert.equal(secondsOption(message, DHCP_OPTION.LEASE_TIME), 3600);
  assert.deepEqual(optionOf(message, 119), Uint8Array.of(1, 0x78, 0));
  assert.deepEqual(optionOf(message, 61), optionOf(sent, 61));
}

describe('DHCP of a guest that is away', () => {
  it('renewing: its lease again, by unicast', async () => {
    const guest = await away();
    const sent = guest.sends('request', { ciaddr: INSIDE });
    assertLease(sent, answer(guest), 'ack');
    assert.equal(answer(guest)?.destination, INSIDE);
  });

  it('init-reboot and selecting: its lease, to where it can take it', async () => {
    const guest = await away();
    const reboot = guest.sends('request', { extra: [requested(INSIDE)] });
    assertLease(reboot, answer(guest), 'ack');
    assert.equal(answer(guest)?.destination, INSIDE);
    const extra = [requested(INSIDE), chosen(address('192.0.2.1'))];
    const selecting = guest.sends('request', { xid: 77, broadcast: true, extra });
    assertLease(selecting, answer(guest), 'ack');
    assert.equal(answer(guest)?.destination, '255.255.255.255');
  });

  it('DISCOVER: its inside address is offered', async () => {
    const guest = await away();
    assertLease(guest.sends('discover', { broadcast: true }), answer(guest), 'offer');
  });

  it('another address is refused, as broadcast', async () => {
    const guest = await away();
    for (const sent of [
      { extra: [requested(address('192.0.2.11'))] },
      { ciaddr: address('198.51.100.10') },
    ]) {
      guest.sends('request', sent);
      const refused = answer(guest);
      assert.equal(refused && typeOf(refused.message), 'nak');
      assert.equal(refused?.destination, '255.255.255.255');
      assert.equal(refused?.message.yiaddr, '0.0.0.0');
      assert.equal(refused && secondsOption(refused.message, 51), undefined);
    }
  });

  it('INFORM: everything but an address and times', async () => {
    const guest = await away();
    guest.sends('inform', { ciaddr: INSIDE });
    const told = answer(guest);
    assert.equal(told && typeOf(told.message), 'ack');
    assert.equal(told?.message.yiaddr, '0.0.0.0');
    assert.equal(told && secondsOption(told.message, 51), undefined);
    assert.equal(told && addressOption(told.message, 3), '192.0.2.1');
  });

  it('silence: RELEASE, DECLINE, another server chosen, another client', async () => {
    const guest = await away();
    guest.sends('release', { ciaddr: INSIDE });
    guest.sends('decline', { extra: [requested(INSIDE)] });
    guest.sends('request', { extra: [requested(INSIDE), chosen(address('192.0.2.2'))] });
    guest.sends('discover', { chaddr: mac('02:00:00:00:00:0b') });
    assert.equal(answer(guest), undefined);
    assert.equal(guest.care.state().inside4?.address, INSIDE);
  });

  it('its own client at the place does not hear what the guest says', async () => {
    const guest = await away();
    const before = guest.lan.dhcp.length;
    guest.sends('discover');
    assert.equal(guest.lan.dhcp.length, before);
    await pass(guest.clock, 100);
    assert.deepEqual(guest.told, []);
  });

  it('at home nobody answers in the stead of the server', () => {
    const guest = new Guest(ATHOS);
    guest.learnsHome();
    guest.sends('request', { ciaddr: INSIDE });
    assert.equal(answer(guest), undefined);
  });

  it('nothing is known of its lease: silence', async () => {
    const guest = new Guest(PORTHOS);
    await outcome(guest.clock, guest.care.settle(['dhcp']));
    guest.care.away();
    guest.sends('discover');
    assert.equal(answer(guest), undefined);
  });
});

describe('router advertisements of a guest that is away', () => {
  const advertisements = (guest: Guest) =>
    guest.received.filter((frame) => frame.etherType === ETHERTYPE.IPV6);

  function assertHome(guest: Guest): void {
    const frame = advertisements(guest).at(-1);
    assert.ok(frame);
    assert.equal(frame.source, STAND_IN);
    assert.equal(frame.destination, '33:33:00:00:00:01');
    const packet = decodeNeighbour(frame.payload);
    assert.ok(!('error' in packet));
    const { source, message } = packet;
    assert.equal(source, 'fe80::1');
    assert.ok(message.kind === 'router-advertisement');
    assert.equal(message.routerLifetimeS, 1800);
    assert.deepEqual(
      prefixInformation(message).map((p) => [p.prefix, p.validS]),
      [['2001:db8:1::', 7200]],
    );
    assert.equal(linkLayerAddress(message), STAND_IN);
    assert.deepEqual(
      message.options.map((o) => o.type),
      [1, 3, 25],
    );
  }

  it("its own router's, when it asks", async () => {
    const guest = await away();
    guest.solicits();
    assert.equal(advertisements(guest).length, 1);
    assertHome(guest);
  });

  it('whenever a router of the place says something', async () => {
    const guest = await away();
    guest.lan.advertise();
    await pass(guest.clock, 10);
    assert.equal(advertisements(guest).length, 1);
    assertHome(guest);
  });

  it('and otherwise often enough: its lifetimes never end', async () => {
    const guest = await away();
    await pass(guest.clock, 1801_000);
    // A third of 1800 s would be too seldom for a guest whose interface was down: 200 s.
    assert.equal(advertisements(guest).length, 9);
    assertHome(guest);
  });

  it('a flood is not answered with a flood', async () => {
    const guest = await away();
    for (let i = 0; i < 100; i++) {
      guest.solicits();
      guest.lan.advertise();
    }
    await pass(guest.clock, 100);
    assert.equal(advertisements(guest).length, 1);
    await pass(guest.clock, 200);
    guest.solicits();
    assert.equal(advertisements(guest).length, 2);
  });

  it('none at home, nor after it has left', async () => {
    for (const leave of ['home', 'release', 'close'] as const) {
      const guest = await away();
      const left = guest.care[leave]();
      if (left !== undefined) await outcome(guest.clock, left);
      guest.solicits();
      guest.lan.advertise();
      await pass(guest.clock, 1000_000);
      assert.equal(advertisements(guest).length, 0, leave);
    }
  });

  it('what the place advertises is not learned as home', async () => {
    const guest = await away();
    guest.lan.advertise();
    await pass(guest.clock, 10);
    assert.equal(guest.care.state().inside6?.prefix, '2001:db8:1::');
    assert.equal(guest.care.state().inside4?.address, INSIDE);
  });
});
