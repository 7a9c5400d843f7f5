/* Whether the addresses of an interface are still good: who answers what, and when that is told. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  type LeaseIdentity,
  newVerification,
  step,
  VERIFICATION_MS,
  type VerificationEffect,
  type VerificationEvent,
} from '../../src/link/verification.js';
import { address } from '../../src/wire/address.js';
import {
  addressOption,
  DHCP_OPTION,
  type DhcpMessage,
  type DhcpType,
  NOBODY,
  optionOf,
  typeOf,
  typeOption,
} from '../../src/wire/dhcp.js';
import { mac } from '../../src/wire/ethernet.js';
import { prefixOption, type RouterAdvertisement } from '../../src/wire/neighbour.js';

const OWN = mac('02:00:00:00:00:0a');
const OURS = address('192.0.2.10');
const GATEWAY = { address: address('192.0.2.1'), mac: mac('02:00:00:00:00:01') };
const V4 = { address: OURS, prefixLength: 24, gateways: [GATEWAY] };
const V6 = [address('2001:db8:1::a')];
const XID = 7;
const CERTAIN: LeaseIdentity = { clientId: Uint8Array.of(1, 2, 3), certain: true };
const UNCERTAIN: LeaseIdentity = { clientId: undefined, certain: false };

const lease = (identity: LeaseIdentity): VerificationEvent => ({ event: 'lease', identity });

function arp(senderMac = GATEWAY.mac, sender = GATEWAY.address): VerificationEvent {
  const to = { targetMac: OWN, target: OURS };
  return { event: 'arp', arp: { operation: 'reply', senderMac, sender, ...to } };
}

function server(type: DhcpType, text = '0.0.0.0', xid = XID): VerificationEvent {
  const message: DhcpMessage = {
    ...{ op: 'reply', xid, secs: 0, broadcast: false, chaddr: OWN },
    ...{ ciaddr: NOBODY, yiaddr: address(text), siaddr: NOBODY, options: [typeOption(type)] },
  };
  return { event: 'dhcp', message };
}

function router(...prefixes: string[]): VerificationEvent {
  const common = { prefixLength: 64, onLink: true, autonomous: true, validS: 60, preferredS: 60 };
  const message: RouterAdvertisement = {
    ...{ kind: 'router-advertisement', hopLimit: 64, flags: 0, routerLifetimeS: 60 },
    ...{ reachableMs: 0, retransMs: 0 },
    options: prefixes.map((text) => prefixOption({ prefix: address(text), ...common })),
  };
  return { event: 'advertisement', message };
}

type At = readonly [ms: number, event: VerificationEvent];

/** What is said and sent, each with its time, if these events come and the timer is obeyed. */
function play(claim: { v4?: typeof V4 | undefined; v6?: typeof V6 }, events: readonly At[]) {
  let v = newVerification({ mac: OWN, v4: claim.v4, v6: claim.v6 ?? [] }, 0, XID);
  const log: [number, VerificationEffect][] = [];
  let timerMs: number | undefined = 0;
  const happen = (ms: number, event: VerificationEvent) => {
    const { next, effects } = step(v, event, ms);
    v = next;
    for (const effect of effects) {
      log.push([ms, effect]);
      if (effect.effect === 'arm') timerMs = ms + effect.ms;
      if (effect.effect === 'end') timerMs = undefined;
    }
  };
  const pending = [...events];
  while (timerMs !== undefined || pending.length > 0) {
    const [first] = pending;
    if (first !== undefined && (timerMs === undefined || first[0] < timerMs)) {
      pending.shift();
      happen(...first);
    } else if (timerMs !== undefined) {
      assert.ok(timerMs <= VERIFICATION_MS);
      const ms = timerMs;
      timerMs = undefined;
      happen(ms, { event: 'timer' });
      assert.ok(timerMs === undefined || timerMs > ms, `time stands still at ${ms}`);
    }
  }
  return log;
}

const verdicts = (log: [number, VerificationEffect][]) =>
  log.flatMap(([ms, e]) => (e.effect === 'verdict' ? `${e.family} ${e.verdict} ${ms}` : []));

describe('the verdict', () => {
  const v4 = { v4: V4 };
  const lonely = { v4: { ...V4, gateways: [] } };
  for (const [what, claim, events, expected] of [
    ['nobody answers', v4, [[1, lease(CERTAIN)]], ['4 unknown 4000']],
    ['the gateway answers', v4, [[2, arp()]], ['4 same 2']],
    ['it answers in the end', v4, [[3000, arp()]], ['4 same 3000']],
    ['another one has its address', v4, [[2, arp(mac('02:00:00:00:00:02'))]], ['4 unknown 4000']],
    ['somebody else answers', v4, [[2, arp(GATEWAY.mac, OURS)]], ['4 unknown 4000']],
    [
      'our address is offered',
      v4,
      [
        [1, lease(UNCERTAIN)],
        [2, server('offer', OURS)],
      ],
      ['4 same 2'],
    ],
    [
      'it is acknowledged',
      v4,
      [
        [1, lease(UNCERTAIN)],
        [60, server('ack', OURS)],
      ],
      ['4 same 60'],
    ],
    [
      'it is refused',
      v4,
      [
        [1, lease(CERTAIN)],
        [52, server('nak')],
      ],
      ['4 other 52'],
    ],
    [
      'the server goes before the gateway',
      v4,
      [
        [1, lease(CERTAIN)],
        [2, arp()],
        [3, server('offer', '192.0.2.77')],
        [4, server('nak')],
      ],
      ['4 same 2', '4 other 4'],
    ],
    [
      'but not if it may take us for somebody else',
      v4,
      [
        [1, lease(UNCERTAIN)],
        [52, server('nak')],
        [60, arp()],
      ],
      ['4 same 60'],
    ],
    [
      'the gateway has had its time',
      v4,
      [
        [1, lease(UNCERTAIN)],
        [52, server('nak')],
      ],
      ['4 other 750'],
    ],
    [
      'no gateway is known',
      lonely,
      [
        [1, lease(UNCERTAIN)],
        [52, server('nak')],
      ],
      ['4 other 52'],
    ],
    [
      'another subnet, of a server that refuses nothing',
      v4,
      [
        [1, lease(UNCERTAIN)],
        [2, server('offer', '198.51.100.7')],
      ],
      ['4 other 750'],
    ],
    [
      'another subnet, and refused',
      v4,
      [
        [1, lease(UNCERTAIN)],
        [2, server('offer', '198.51.100.7')],
        [52, server('nak')],
      ],
      ['4 other 52'],
    ],
    [
      'two subnets on one wire',
      v4,
      [
        [1, lease(CERTAIN)],
        [2, server('offer', '198.51.100.7')],
        [9, arp()],
      ],
      ['4 same 9'],
    ],
    [
      'one router in two networks, which answers for all its addresses',
      v4,
      [
        [1, lease(UNCERTAIN)],
        [2, arp()],
        [3, server('offer', '198.51.100.7')],
        [4, server('nak')],
      ],
      ['4 same 2', '4 other 4'],
    ],
    [
      'one server knows nothing of us, the other does',
      v4,
      [
        [1, lease(UNCERTAIN)],
        [52, server('nak')],
        [53, server('ack', OURS)],
      ],
      ['4 same 53'],
    ],
    [
      'another address of the same subnet says nothing',
      v4,
      [
        [1, lease(CERTAIN)],
        [2, server('offer', '192.0.2.77')],
      ],
      ['4 unknown 4000'],
    ],
    [
      'an answer to somebody else',
      v4,
      [
        [1, lease(CERTAIN)],
        [2, server('nak', '0.0.0.0', 8)],
      ],
      ['4 unknown 4000'],
    ],
    ['our prefix', { v6: V6 }, [[20, router('2001:db8:9::', '2001:db8:1::')]], ['6 same 20']],
    ['another prefix', { v6: V6 }, [[20, router('2001:db8:2::')]], ['6 other 1500']],
    [
      'another prefix, then ours',
      { v6: V6 },
      [
        [20, router('2001:db8:2::')],
        [400, router('2001:db8:1::')],
      ],
      ['6 same 400'],
    ],
    ['a router without prefixes', { v6: V6 }, [[20, router()]], ['6 unknown 4000']],
    [
      'both families',
      { v4: V4, v6: V6 },
      [
        [2, arp()],
        [20, router('2001:db8:1::')],
      ],
      ['4 same 2', '6 same 20'],
    ],
  ] as [string, Parameters<typeof play>[0], At[], string[]][]) {
    it(`${what}: ${expected.join(', ')}`, () => {
      assert.deepEqual(verdicts(play(claim, events)), expected);
    });
  }
});

describe('the questions', () => {
  const sent = (log: [number, VerificationEffect][], kind: 'arp' | 'dhcp' | 'solicit') =>
    log.filter(([, e]) => e.effect === kind);

  it('go to the gateway alone, from the address in question', () => {
    const [first] = sent(play({ v4: V4 }, []), 'arp');
    const parties = {
      senderMac: OWN,
      sender: OURS,
      targetMac: GATEWAY.mac,
      target: GATEWAY.address,
    };
    assert.deepEqual(first, [0, { effect: 'arp', arp: { operation: 'request', ...parties } }]);
  });

  it('no server is asked before it is known that the address is a lease', () => {
    assert.deepEqual(sent(play({ v4: V4 }, []), 'dhcp'), []);
  });

  it('name the address and the identifier of the lease, and no server', () => {
    const messages = sent(play({ v4: V4 }, [[0, lease(CERTAIN)]]), 'dhcp');
    assert.deepEqual(
      new Set(messages.map(([, e]) => e.effect === 'dhcp' && typeOf(e.message))),
      new Set(['discover', 'request']),
    );
    for (const [, e] of messages) {
      assert.ok(e.effect === 'dhcp');
      assert.equal(addressOption(e.message, DHCP_OPTION.REQUESTED_ADDRESS), OURS);
      assert.equal(optionOf(e.message, DHCP_OPTION.SERVER), undefined);
      assert.equal(e.message.ciaddr, NOBODY);
      assert.deepEqual(optionOf(e.message, DHCP_OPTION.CLIENT_ID), CERTAIN.clientId);
    }
  });

  it('the lease is not touched where the gateway is there or the address is offered', () => {
    for (const answer of [arp(), server('offer', OURS)]) {
      const messages = sent(
        play({ v4: V4 }, [
          [1, lease(CERTAIN)],
          [2, answer],
        ]),
        'dhcp',
      );
      for (const [, e] of messages)
        assert.equal(e.effect === 'dhcp' && typeOf(e.message), 'discover');
    }
  });

  it('are few, whatever comes, and end', () => {
    const event = fc.oneof(
      fc.constantFrom(arp(), server('nak'), server('ack', OURS), router('2001:db8:2::')),
      fc.constantFrom(server('offer', '192.0.2.9'), server('offer', '10.0.0.1'), lease(UNCERTAIN)),
    );
    const at = fc.tuple(fc.integer({ min: 1, max: 5_000 }), event);
    fc.assert(
      fc.property(fc.array(at, { maxLength: 30 }), (events) => {
        const log = play(
          { v4: V4, v6: V6 },
          events.toSorted((a, b) => a[0] - b[0]),
        );
        assert.ok(sent(log, 'arp').length <= 7 && sent(log, 'solicit').length <= 4);
        assert.ok(sent(log, 'dhcp').length <= 7 + events.length);
        assert.equal(log.filter(([, e]) => e.effect === 'end').length, 1);
        // One of each family at least.  Each kind of answer can change it once: what is refused, offered,
        // acknowledged, the gateway's; what a router says.
        assert.ok(verdicts(log).length >= 2 && verdicts(log).length <= 4 + 2);
      }),
    );
  });
});
