/* Places one after the other: what is learned where, and who is told what after a move. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { address } from '../../src/wire/address.js';
import { decodeArp } from '../../src/wire/arp.js';
import { ETHERTYPE, type Frame } from '../../src/wire/ethernet.js';
import { decodeNeighbour, linkLayerAddress } from '../../src/wire/neighbour.js';
import { Guest } from './guest.js';
import { ATHOS, GUEST, outcome, PORTHOS, pass, type Site } from './lan.js';

/** What a frame announces: 'address at MAC'. */
function announced(frame: Frame): string {
  if (frame.etherType === ETHERTYPE.RARP) return `RARP ${frame.source}`;
  if (frame.etherType === ETHERTYPE.ARP) {
    const arp = decodeArp(frame.payload);
    assert.ok(!('error' in arp) && arp.sender === arp.target);
    return `${arp.sender} at ${arp.senderMac}`;
  }
  const packet = decodeNeighbour(frame.payload);
  assert.ok(!('error' in packet));
  const { message } = packet;
  assert.ok(message.kind === 'neighbour-advertisement' && message.override && !message.solicited);
  const router = message.router ? ' (router)' : '';
  return `${message.target} at ${linkLayerAddress(message)}${router}`;
}

async function arrive(site: Site, state: unknown): Promise<Guest> {
  const guest = new Guest(site);
  guest.care.restore(state);
  await outcome(guest.clock, guest.care.settle(['dhcp']));
  guest.lan.frames.length = 0;
  return guest;
}

function atHome(): Guest {
  const guest = new Guest(ATHOS);
  guest.learnsHome();
  return guest;
}

describe('announcing', () => {
  it('away: the outside addresses, to the neighbours; nothing to the guest', async () => {
    const guest = await arrive(PORTHOS, atHome().care.state());
    guest.care.away();
    guest.care.announce();
    assert.deepEqual(guest.lan.frames.map(announced), [
      `198.51.100.10 at ${GUEST}`,
      `2001:db8:2::ff:fe00:a at ${GUEST}`,
      `fe80::ff:fe00:a at ${GUEST}`,
      `RARP ${GUEST}`,
    ]);
    assert.deepEqual(guest.received, []);
  });

  it('home again: the inside addresses, and its gateways to the guest', async () => {
    const away = await arrive(PORTHOS, atHome().care.state());
    const guest = await arrive(ATHOS, away.care.state());
    guest.care.home();
    guest.care.announce();
    assert.deepEqual(guest.lan.frames.map(announced), [
      `192.0.2.10 at ${GUEST}`,
      `2001:db8:1::ff:fe00:a at ${GUEST}`,
      `fe80::ff:fe00:a at ${GUEST}`,
      `RARP ${GUEST}`,
    ]);
    assert.deepEqual(guest.received.map(announced), [
      `192.0.2.1 at ${ATHOS.gatewayMac}`,
      `fe80::1 at ${ATHOS.gatewayMac} (router)`,
    ]);
  });

  it('a guest of which nothing is known: its link-local address and RARP', () => {
    const guest = new Guest(ATHOS);
    guest.care.announce();
    assert.deepEqual(guest.lan.frames.map(announced), [
      `fe80::ff:fe00:a at ${GUEST}`,
      `RARP ${GUEST}`,
    ]);
  });
});

describe('learning', () => {
  it('not from the network of a place that may not be its home', async () => {
    const guest = new Guest(PORTHOS);
    const { state } = { state: atHome().care.state() };
    guest.care.restore(state);
    guest.lan.advertise();
    await pass(guest.clock, 10);
    await outcome(guest.clock, guest.care.settle(['dhcp']));
    assert.deepEqual(guest.care.state(), state);
  });

  it('again when it is home again', async () => {
    const guest = await arrive(ATHOS, atHome().care.state());
    guest.care.home();
    guest.lan.prefix6 = address('2001:db8:7::');
    guest.lan.advertise();
    await pass(guest.clock, 10);
    assert.equal(guest.care.state().inside6?.prefix, '2001:db8:7::');
  });

  it('is told of, once for each change', () => {
    const states: unknown[] = [];
    const guest = new Guest(ATHOS, { care: { onState: (state) => states.push(state) } });
    guest.learnsHome();
    assert.equal(states.length, 3, 'the request, the answer, the router');
    assert.deepEqual(states.at(-1), guest.care.state());
    guest.learnsHome();
    assert.equal(states.length, 3);
  });

  it('a guest that no server has given its address', async () => {
    const guest = new Guest(ATHOS);
    const inside = { address: address('192.0.2.50'), prefixLength: 24 };
    guest.care.assume({ ...inside, gateway: address('192.0.2.1') });
    assert.equal(guest.care.state().inside4?.address, '192.0.2.50');
    const away = await arrive(PORTHOS, guest.care.state());
    away.care.away();
    away.sends('discover');
    assert.deepEqual(away.received, []);
    assert.equal(away.care.outside?.outside4?.address, '198.51.100.10');
  });

  it('an IPv6 address that it is seen with is translated and announced, too', async () => {
    const home = atHome();
    home.care.uses(address('2001:db8:1::1234'));
    home.care.uses(address('2001:db8:9::1234'));
    const guest = await arrive(PORTHOS, home.care.state());
    guest.care.away();
    guest.care.announce();
    const told = guest.lan.frames.map(announced);
    assert.ok(told.includes(`2001:db8:2::1234 at ${GUEST}`), `${told}`);
  });
});

it('after close nothing is sent any more', async () => {
  const guest = await arrive(PORTHOS, atHome().care.state());
  guest.care.away();
  guest.care.close();
  await pass(guest.clock, 5_000_000);
  assert.deepEqual(guest.lan.frames, []);
  assert.deepEqual(guest.received, []);
  assert.deepEqual(guest.told, []);
});

it('close while it settles: it has not settled', async () => {
  for (const request of ['dhcp', '198.51.100.7/24']) {
    const guest = new Guest(PORTHOS);
    const settling = guest.care.settle([request]);
    guest.care.close();
    await assert.rejects(outcome(guest.clock, settling), { code: 'no-lease' });
    assert.equal(guest.care.outside, undefined);
  }
});
