/* A guest's stay at a place, against a model of its servers and neighbours (lan.ts). */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PlaceError } from '../../src/guest/request.js';
import { address, addressBytes } from '../../src/wire/address.js';
import {
  addressOption,
  DHCP_OPTION,
  optionOf,
  secondsOptionOf,
  typeOf,
} from '../../src/wire/dhcp.js';
import { BROADCAST_MAC, mac } from '../../src/wire/ethernet.js';
import { Guest, words } from './guest.js';
import { ATHOS, GUEST, guestAddress6, outcome, PORTHOS, pass, ROUTER_LL } from './lan.js';

const STRANGER = mac('02:00:00:00:00:99');
const GATEWAY = PORTHOS.gatewayMac;
const OUTSIDE = {
  4: `198.51.100.10/24 via 198.51.100.1 | ${GATEWAY}`,
  6: `2001:db8:2::/64 via fe80::1 | ${GATEWAY}`,
};

/** A guest of athos, now at porthos. */
function moved(): Guest {
  const before = new Guest(ATHOS);
  before.learnsHome();
  const guest = new Guest(PORTHOS);
  guest.care.restore(JSON.parse(JSON.stringify(before.care.state())));
  return guest;
}

const settle = (guest: Guest, ...request: string[]) =>
  outcome(guest.clock, guest.care.settle(request.length === 0 ? ['dhcp'] : request));

const refusedWith = (code: PlaceError['code'], message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof PlaceError, String(error));
  assert.equal(error.code, code);
  assert.match(error.message, message);
  return true;
};

describe('settling by DHCP', () => {
  it('both families, and the gateways, in less than half a second', async () => {
    const guest = moved();
    assert.equal(words(await settle(guest)), `${OUTSIDE[4]} | ${OUTSIDE[6]}`);
    assert.ok(guest.clock.now() < 500, `${guest.clock.now()} ms`);
  });

  it('asks in the name of the guest, and for its inside address first', async () => {
    const guest = moved();
    await settle(guest);
    const [discover, request] = guest.lan.dhcp;
    assert.ok(discover && request);
    for (const message of [discover, request]) {
      assert.equal(message.chaddr, GUEST);
      assert.ok(message.broadcast);
      assert.deepEqual([...(optionOf(message, 61) ?? [])], [1, 2, 0, 0, 0, 0, 10]);
      assert.equal(Buffer.from(optionOf(message, 12) ?? []).toString(), 'vm');
    }
    assert.equal(addressOption(discover, DHCP_OPTION.REQUESTED_ADDRESS), '192.0.2.10');
    assert.equal(addressOption(request, DHCP_OPTION.REQUESTED_ADDRESS), '198.51.100.10');
    assert.equal(addressOption(request, DHCP_OPTION.SERVER), '198.51.100.1');
    assert.ok(guest.lan.frames.every((frame) => frame.source === GUEST));
  });

  it('at home the guest gets what it has', async () => {
    const before = new Guest(ATHOS);
    before.learnsHome();
    const guest = new Guest(ATHOS);
    guest.care.restore(before.care.state());
    const { outside4, outside6 } = await settle(guest);
    assert.equal(outside4?.address, before.care.state().inside4?.address);
    assert.equal(outside6?.prefix, before.care.state().inside6?.prefix);
  });

  it('lost answers are asked for again: 250, 500, 1000 … ms', async () => {
    const guest = moved();
    const asked: number[] = [];
    guest.lan.answer = (m) => {
      if (typeOf(m) === 'discover') asked.push(guest.clock.now());
      return asked.length < 4 ? undefined : guest.lan.usual(m);
    };
    await settle(guest);
    assert.deepEqual(asked, [0, 250, 750, 1750]);
  });

  it('an ACK that is lost: the same request again', async () => {
    const guest = moved();
    let lost = 2;
    guest.lan.answer = (m) =>
      typeOf(m) === 'request' && lost-- > 0 ? undefined : guest.lan.usual(m);
    await settle(guest);
    assert.equal(guest.lan.count('discover'), 1);
    assert.equal(new Set(guest.lan.dhcp.map((m) => m.xid)).size, 1);
    assert.equal(guest.lan.count('request'), 3);
  });

  it('a server that offers and then is silent is left for another transaction', async () => {
    const guest = moved();
    guest.lan.answer = (m) =>
      typeOf(m) === 'request' && guest.lan.count('discover') < 2 ? undefined : guest.lan.usual(m);
    await settle(guest);
    assert.equal(guest.lan.count('discover'), 2);
    assert.equal(new Set(guest.lan.dhcp.map((m) => m.xid)).size, 2);
  });

  it('NAK: from the beginning', async () => {
    const guest = moved();
    guest.lan.answer = (m) =>
      typeOf(m) === 'request' && guest.lan.count('request') === 1
        ? { type: 'nak' }
        : guest.lan.usual(m);
    assert.equal((await settle(guest)).outside4?.address, '198.51.100.10');
    assert.equal(guest.lan.count('discover'), 2);
  });

  it('of several offers the first is taken, and the others ignored', async () => {
    const guest = moved();
    const other = address('198.51.100.2');
    guest.lan.answer = (m) => {
      const answer = guest.lan.usual(m);
      guest.lan.reply(m, answer);
      // A server that has not been chosen, and does not know it.
      guest.lan.reply(
        m,
        { ...answer, type: answer?.type ?? 'nak', yiaddr: address('198.51.100.66') },
        other,
      );
      if (typeOf(m) === 'request') guest.lan.reply(m, { type: 'nak' }, other);
      return undefined;
    };
    assert.equal((await settle(guest)).outside4?.address, '198.51.100.10');
    assert.equal(guest.lan.count('request'), 1);
  });

  it('answers to others are none: another transaction, another MAC', async () => {
    for (const change of [{ xid: 0x7777 }, { chaddr: STRANGER }]) {
      const guest = moved();
      guest.lan.answer = (m) => {
        guest.lan.reply({ ...m, ...change }, guest.lan.usual(m));
        return undefined;
      };
      await assert.rejects(settle(guest), refusedWith('no-lease', /02:00:00:00:00:0a/));
      assert.ok(guest.clock.now() >= 10_000 && guest.clock.now() < 10_050);
      assert.equal(guest.lan.count('request'), 0);
    }
  });

  it('an offer that one cannot live on is none', async () => {
    const guest = moved();
    guest.lan.leaseS = 5;
    await assert.rejects(settle(guest), refusedWith('no-lease', /no DHCP server/));
  });

  it('an address that somebody else has is declined, the next one taken', async () => {
    const guest = moved();
    const [taken, free] = [address('198.51.100.20'), address('198.51.100.21')];
    guest.lan.others.set(taken, STRANGER);
    guest.lan.answer = (m) => {
      guest.lan.offered = guest.lan.count('decline') === 0 ? taken : free;
      return guest.lan.usual(m);
    };
    assert.equal((await settle(guest)).outside4?.address, free);
    const declined = guest.lan.dhcp.find((m) => typeOf(m) === 'decline');
    assert.ok(declined);
    assert.equal(addressOption(declined, DHCP_OPTION.REQUESTED_ADDRESS), taken);
  });

  it('the guest itself, still running on the same link, is no conflict', async () => {
    const guest = moved();
    guest.lan.others.set(guest.lan.offered, GUEST);
    assert.equal((await settle(guest)).outside4?.address, guest.lan.offered);
    assert.equal(guest.lan.count('decline'), 0);
  });

  it('without IPv6 at the place: IPv4 alone, after 3 s', async () => {
    const guest = moved();
    guest.lan.ipv6 = false;
    assert.equal(words(await settle(guest)), `${OUTSIDE[4]} | - | -`);
    assert.ok(guest.clock.now() >= 3000 && guest.clock.now() < 3500, `${guest.clock.now()}`);
  });

  it('a router that asks back where the guest is, is asked by nobody', async () => {
    const guest = moved();
    guest.lan.asksBack = true;
    assert.equal((await settle(guest)).outside6?.prefix, '2001:db8:2::');
    assert.ok(guest.clock.now() < 1000, `${guest.clock.now()} ms`);
  });

  it('the address that it had there before is asked for', async () => {
    const guest = moved();
    const wish4 = address('198.51.100.44');
    await outcome(guest.clock, guest.care.settle(['dhcp'], { wish4 }));
    const [discover] = guest.lan.dhcp;
    assert.equal(discover && addressOption(discover, DHCP_OPTION.REQUESTED_ADDRESS), wish4);
  });

  it('an IPv6 address that somebody else has: refused, and the lease given back', async () => {
    const guest = moved();
    guest.lan.others.set(guestAddress6(PORTHOS), STRANGER);
    await assert.rejects(settle(guest), refusedWith('address-refused', /2001:db8:2::ff:fe00:a/));
    // Although it was still being checked.
    assert.equal(guest.lan.count('release'), 1);
    assert.equal(guest.care.outside, undefined);
  });

  it('a gateway that does not answer is waited for a second, and told of later', async () => {
    const guest = moved();
    const { gateway } = guest.lan;
    guest.lan.gatewayMac = GUEST;
    const outside = await settle(guest);
    assert.equal(outside.outside4?.gateway, gateway);
    assert.equal(outside.gatewayMac4, undefined);
    guest.lan.gatewayMac = GATEWAY;
    await pass(guest.clock, 1500);
    assert.deepEqual(guest.told.sort(), [`gateway4 ${GATEWAY}`, `gateway6 ${GATEWAY}`]);
  });
});

describe('settling with a given address', () => {
  it('that is free; the gateway is told by whoever gives it', async () => {
    const guest = moved();
    const settling = guest.care.settle(['198.51.100.7/24'], { gateways4: [guest.lan.gateway] });
    const outside = await outcome(guest.clock, settling);
    assert.equal(words(outside), `198.51.100.7/24 via 198.51.100.1 | ${GATEWAY} | - | -`);
    assert.equal(outside.outside4?.leaseS, null);
    assert.equal(guest.lan.dhcp.length, 0);
  });

  it('of the subnet of its home: the gateway is known', async () => {
    const before = new Guest(ATHOS);
    before.learnsHome();
    const { outside4, outside6 } = await settle(before, '192.0.2.77/24', '2001:db8:1::/64');
    assert.equal(outside4?.gateway, '192.0.2.1');
    assert.deepEqual(outside6, { prefix: '2001:db8:1::', prefixLength: 64, gateway: ROUTER_LL });
  });

  it('of a subnet of which no gateway is known: none', async () => {
    assert.equal((await settle(moved(), '198.51.100.7/24')).outside4?.gateway, null);
  });

  it('that somebody else has is refused', async () => {
    const guest = moved();
    guest.lan.others.set(address('198.51.100.7'), STRANGER);
    await assert.rejects(
      settle(guest, '198.51.100.7/24'),
      refusedWith('address-refused', /somebody else has 198\.51\.100\.7/),
    );
    assert.ok(guest.clock.now() < 300);
    assert.equal(guest.care.outside, undefined);
  });

  for (const [request, message] of [
    ['198.51.100.7', /neither "dhcp" nor an address/],
    ['198.51.100.7/33', /neither/],
    ['198.51.100.700/24', /neither/],
    ['2001:db8:2::/48', /is no \/64/],
    ['2001:db8:2::1/64', /another interface identifier/],
  ] as const) {
    it(`not ${request}`, async () => {
      await assert.rejects(settle(moved(), request), refusedWith('bad-request', message));
    });
  }

  it('its own interface identifier may be written out', async () => {
    const guest = moved();
    const { outside6 } = await settle(guest, `${guestAddress6(PORTHOS)}/64`);
    assert.equal(outside6?.prefix, '2001:db8:2::');
  });

  it('not two of a family, and not none', async () => {
    const two = settle(moved(), '198.51.100.7/24', '198.51.100.8/24');
    await assert.rejects(two, refusedWith('bad-request', /more than one/));
    const none = new Guest(PORTHOS).care.settle([]);
    await assert.rejects(none, refusedWith('bad-request', /nothing is asked for/));
  });
});

describe('a lease', () => {
  async function settled(): Promise<Guest> {
    const guest = moved();
    guest.lan.leaseS = 1000;
    await settle(guest);
    guest.lan.dhcp.length = 0;
    guest.lan.frames.length = 0;
    return guest;
  }

  it('is renewed at T1 by unicast, without anybody hearing of it', async () => {
    const guest = await settled();
    await pass(guest.clock, 499_000);
    assert.equal(guest.lan.dhcp.length, 0);
    await pass(guest.clock, 1001);
    const [renewal] = guest.lan.dhcp;
    assert.equal(renewal && typeOf(renewal), 'request');
    assert.equal(renewal?.ciaddr, '198.51.100.10');
    assert.equal(renewal && addressOption(renewal, DHCP_OPTION.SERVER), undefined);
    const sent = guest.lan.frames.find((frame) => frame.etherType === 0x0800);
    assert.equal(sent?.destination, GATEWAY);
    assert.deepEqual(guest.told, []);
    await pass(guest.clock, 500_001);
    assert.equal(guest.lan.count('request'), 2);
  });

  it('a server of the link that is not the gateway is found by ARP', async () => {
    const guest = moved();
    const server = address('198.51.100.3');
    guest.lan.leaseS = 1000;
    guest.lan.others.set(server, STRANGER);
    guest.lan.answer = (m) => {
      guest.lan.reply(m, guest.lan.usual(m), server);
      return undefined;
    };
    guest.lan.dhcp.length = 0;
    // The model hands over whatever names no other server; the request names this one.
    const settling = guest.care.settle(['dhcp']);
    guest.lan.clock.setTimer(10, () => {
      const discover = guest.lan.dhcp[0];
      if (discover) guest.lan.reply(discover, { type: 'ack', yiaddr: guest.lan.offered }, server);
    });
    await outcome(guest.clock, settling);
    guest.lan.frames.length = 0;
    await pass(guest.clock, 501_000);
    const sent = guest.lan.frames.find((frame) => frame.etherType === 0x0800);
    assert.equal(sent?.destination, STRANGER);
  });

  it('nobody renews: from T2 on everybody is asked', async () => {
    const guest = await settled();
    const toMac: string[] = [];
    guest.lan.answer = (m) => {
      toMac.push(guest.lan.frames.at(-1)?.destination ?? '');
      return toMac.includes(BROADCAST_MAC) ? guest.lan.usual(m) : undefined;
    };
    await pass(guest.clock, 900_000);
    assert.equal(toMac.at(-1), BROADCAST_MAC);
    assert.ok(toMac.length >= 4, `${toMac}`);
    assert.ok(toMac.slice(0, -1).every((each) => each === GATEWAY));
    assert.deepEqual(guest.told, []);
  });

  it('that is over is lost, and another one asked for until there is one', async () => {
    const guest = await settled();
    guest.lan.silent = true;
    await pass(guest.clock, 1_100_000);
    assert.deepEqual(guest.told, ['lost 198.51.100.10 expired']);
    assert.equal(guest.care.outside?.outside4, undefined);
    guest.lan.silent = false;
    guest.lan.offered = address('198.51.100.30');
    await pass(guest.clock, 65_000);
    const now = `198.51.100.30/24 via 198.51.100.1`;
    assert.equal(guest.told.length, 3, `${guest.told}`);
    assert.ok(guest.told[1]?.startsWith(`outside ${now}`), guest.told[1]);
    assert.equal(guest.told[2], `gateway4 ${GATEWAY}`);
  });

  it('that is refused on renewal is lost at once', async () => {
    const guest = await settled();
    guest.lan.answer = (m) => (m.ciaddr === '198.51.100.10' ? { type: 'nak' } : guest.lan.usual(m));
    guest.lan.offered = address('198.51.100.31');
    await pass(guest.clock, 502_000);
    assert.equal(guest.told[0], 'lost 198.51.100.10 refused');
    assert.ok(guest.told[1]?.startsWith('outside 198.51.100.31/24'));
  });

  it('times of the server count if they are sensible', async () => {
    const times = (t1: number, t2: number) => [secondsOptionOf(58, t1), secondsOptionOf(59, t2)];
    for (const [extra, renewedMs] of [
      [times(100, 200), 100_000],
      [times(300, 200), 500_000],
      [times(100, 2000), 500_000],
      [times(0, 200), 500_000],
    ] as const) {
      const guest = moved();
      guest.lan.leaseS = 1000;
      guest.lan.answer = (m) => {
        const answer = guest.lan.usual(m);
        return answer && { ...answer, extra: [...extra] };
      };
      await settle(guest);
      guest.lan.dhcp.length = 0;
      await pass(guest.clock, renewedMs - 1000);
      assert.equal(guest.lan.dhcp.length, 0);
      await pass(guest.clock, 1001);
      assert.equal(guest.lan.dhcp.length, 1);
    }
  });

  it('for ever is never renewed', async () => {
    const guest = moved();
    guest.lan.leaseS = 0xffffffff;
    await settle(guest);
    guest.lan.dhcp.length = 0;
    await pass(guest.clock, 20 * 24 * 3600 * 1000);
    assert.equal(guest.lan.dhcp.length, 0);
  });

  it('is given back when the guest leaves, and asked for no more', async () => {
    const guest = await settled();
    await outcome(guest.clock, guest.care.release());
    const [release] = guest.lan.dhcp;
    assert.equal(release && typeOf(release), 'release');
    assert.equal(release?.ciaddr, '198.51.100.10');
    assert.equal(guest.care.outside, undefined);
    await pass(guest.clock, 2_000_000);
    assert.equal(guest.lan.dhcp.length, 1);
  });

  it('is left to the guest when it is at home', async () => {
    const guest = await settled();
    guest.care.home();
    await pass(guest.clock, 2_000_000);
    assert.equal(guest.lan.dhcp.length, 0);
    assert.deepEqual(guest.told, []);
  });
});

describe('the gateway', () => {
  it('is asked for every 30 s', async () => {
    const guest = moved();
    await settle(guest);
    guest.lan.frames.length = 0;
    await pass(guest.clock, 91_000);
    const arps = guest.lan.frames.filter((frame) => frame.etherType === 0x0806);
    assert.equal(arps.length, 3);
    const target = arps[0]?.payload.subarray(24, 28) ?? [];
    assert.deepEqual([...target], [...addressBytes(guest.lan.gateway)]);
  });

  it('that fails over is noticed at once if it says so, else when it is asked', async () => {
    const guest = moved();
    await settle(guest);
    guest.lan.say(guest.lan.gateway, STRANGER);
    await pass(guest.clock, 10);
    assert.deepEqual(guest.told, [`gateway4 ${STRANGER}`]);
    guest.lan.gatewayMac = mac('02:00:00:00:00:77');
    await pass(guest.clock, 31_000);
    assert.deepEqual(guest.told.slice(1).sort(), [
      'gateway4 02:00:00:00:00:77',
      'gateway6 02:00:00:00:00:77',
    ]);
  });

  it("a stranger who tells of itself, or in the guest's own name, changes nothing", async () => {
    const guest = moved();
    await settle(guest);
    guest.lan.say(address('198.51.100.99'), STRANGER);
    guest.lan.say(guest.lan.gateway, GUEST);
    await pass(guest.clock, 10);
    assert.deepEqual(guest.told, []);
  });
});

describe('the prefix', () => {
  it('is followed when the router has another one, but not while the old one lives', async () => {
    const guest = moved();
    await settle(guest);
    guest.lan.advertise();
    await pass(guest.clock, 1000);
    assert.equal(guest.told.length, 0);
    guest.lan.prefix6 = address('2001:db8:3::');
    guest.lan.advertise();
    await pass(guest.clock, 1000);
    const now = `${OUTSIDE[4]} | ${OUTSIDE[6].replace('db8:2', 'db8:3')}`;
    assert.deepEqual(guest.told, [`outside ${now}`]);
  });

  it('a router that goes away, or has no prefix any more, changes nothing', async () => {
    const guest = moved();
    await settle(guest);
    guest.lan.prefix6 = address('2001:db8:3::');
    guest.lan.advertise({ routerLifetimeS: 0 });
    await pass(guest.clock, 1000);
    assert.deepEqual(guest.told, []);
  });
});
