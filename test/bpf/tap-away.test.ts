/*
 * A VM that is away: what it sends and receives that is no TI flow's is translated between inside
 * and outside, one to one, or dropped under a named reason.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type Address, address, addressBytes } from '../../src/wire/address.js';
import { encodePacket } from '../../src/wire/packet.js';
import { packetOf } from './data-plane.js';
import {
  AWAY,
  both,
  dhcp,
  type Ends,
  endsOf,
  etherFrame,
  frame,
  frameToGateway,
  GATEWAY,
  GATEWAY_MAC,
  GUEST_MAC,
  guestView,
  HOME_GATEWAY,
  HOME_MAC,
  ICMP,
  INSIDE,
  ipMessage,
  ipPacket,
  MARK_GUEST,
  MARK_NETWORK,
  MARK_VERBATIM,
  MARKS,
  NONE,
  OTHER_MAC,
  OUTSIDE,
  outside,
  PEER,
  pattern,
  ROUTER,
  sealed,
  Tap,
  TCP,
  UDP,
  udp,
  withMacs,
} from './tap.js';

const tap = new Tap(AWAY);
after(() => tap.remove());

/** A later fragment carries no header, so it is bytes; the first one of a whole message. */
function fragment(ends: Ends, protocol: number, message: Uint8Array, at: number): Uint8Array {
  const whole = sealed(ends, protocol, message);
  const part = at === 0 ? whole.slice(0, 64) : whole.slice(at);
  if (ends.source.includes(':')) {
    const more = at === 0 ? 1 : 0;
    return ipPacket(ends, 44, Uint8Array.of(protocol, 0, at >> 8, at | more, 0, 0, 0, 9, ...part));
  }
  const packet = ipPacket(ends, protocol, part);
  const view = new DataView(packet.buffer);
  view.setUint16(6, at === 0 ? 0x2000 : at / 8);
  view.setUint16(10, 0);
  view.setUint16(10, ~sumOf(packet.subarray(0, 20)) & 0xffff);
  return packet;
}

const sumOf = (bytes: Uint8Array): number => {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
};

const unknown = guestView(4);

/** A TCP segment of no connection that we know. */
function tcp(payload: number): Uint8Array {
  const segment = encodePacket(
    packetOf(unknown, 'out', `PA 1:${1 + payload}(${payload}) ack 1 win 1`),
  );
  return segment.slice(20);
}

const echo = (type: number): Uint8Array => Uint8Array.of(type, 0, 0, 0, 1, 2, 0, 1, ...pattern(57));

/** What a packet is, whatever its ends: the same row makes it in both views and families. */
const ROWS: Array<[string, (ends: Ends, f: 4 | 6) => Uint8Array]> = [
  ['TCP without a flow', (ends) => ipMessage(ends, TCP, tcp(100))],
  ['TCP without payload', (ends) => ipMessage(ends, TCP, tcp(0))],
  ['UDP', (ends) => ipMessage(ends, UDP, udp(pattern(100)))],
  ['UDP of an odd length', (ends) => ipMessage(ends, UDP, udp(pattern(33)))],
  ['UDP without a checksum', (ends) => ipPacket(ends, UDP, udp(pattern(33)))],
  ['echo request', (ends, f) => ipMessage(ends, ICMP[f], echo(f === 4 ? 8 : 128))],
  ['echo reply', (ends, f) => ipMessage(ends, ICMP[f], echo(f === 4 ? 0 : 129))],
  ['another protocol', (ends) => ipPacket(ends, 50, pattern(80))],
  ['SCTP, whose checksum knows no addresses', (ends) => ipPacket(ends, 132, pattern(80))],
  ['no payload at all', (ends) => ipPacket(ends, 59, pattern(0))],
  ['a first fragment of UDP', (ends) => fragment(ends, UDP, udp(pattern(1200)), 0)],
  ['a first fragment of TCP', (ends) => fragment(ends, TCP, tcp(1200), 0)],
  ['a first fragment of an echo', (ends, f) => fragment(ends, ICMP[f], echo(f === 4 ? 8 : 128), 0)],
  ['a later fragment', (ends) => fragment(ends, UDP, udp(pattern(1200)), 64)],
];

for (const [name, make] of ROWS) {
  both(`${name} leaves from the outside address, for the gateway`, (f) => {
    const sent = frame('out', make(endsOf('out', INSIDE[f], PEER[f]), f));
    tap.passes('out', sent, frameToGateway(make(endsOf('out', OUTSIDE[f], PEER[f]), f)));
  });
  both(`${name} arrives at the inside address`, (f) => {
    const sent = frame('in', make(endsOf('in', OUTSIDE[f], PEER[f]), f));
    tap.passes('in', sent, frame('in', make(endsOf('in', INSIDE[f], PEER[f]), f)));
  });
}

/** RFC 768, RFC 8200 section 8.1: a UDP checksum that comes out as zero is sent as 0xffff. */
both('a UDP checksum that becomes zero', (f) => {
  for (const d of ['out', 'in'] as const) {
    const [from, to] = d === 'out' ? [INSIDE, OUTSIDE] : [OUTSIDE, INSIDE];
    const ends = endsOf(d, to[f], PEER[f]);
    const message = udp(pattern(32));
    // With its checksum as two more bytes of payload, the sum is 0xffff.
    message.fill(0, 8, 10);
    const checksum = sealed(ends, UDP, message).slice(6, 8);
    message.set(checksum, 8);
    const expected = ipMessage(ends, UDP, message);
    const at = f === 4 ? 26 : 46;
    assert.deepEqual(expected.slice(at, at + 2), Uint8Array.of(0xff, 0xff));
    const sent = frame(d, ipMessage(endsOf(d, from[f], PEER[f]), UDP, message));
    tap.passes(d, sent, d === 'out' ? frameToGateway(expected) : frame(d, expected));
  }
});

test('IPv4 options stay', () => {
  const make = (ends: Ends) => {
    const plain = ipMessage(ends, UDP, udp(pattern(20)));
    const routed = Uint8Array.of(...plain.slice(0, 20), 0x94, 4, 0, 0, ...plain.slice(20));
    routed[0] = 0x46;
    routed[3] = routed.length;
    routed.fill(0, 10, 12);
    new DataView(routed.buffer).setUint16(10, ~sumOf(routed.subarray(0, 24)) & 0xffff);
    return routed;
  };
  const sent = frame('out', make(endsOf('out', INSIDE[4], PEER[4])));
  tap.passes('out', sent, frameToGateway(make(endsOf('out', OUTSIDE[4], PEER[4]))));
});

/** `count` headers of destination options before a UDP message. */
function extended(ends: Ends, count: number): Uint8Array {
  const message = sealed(ends, UDP, udp(pattern(20)));
  const headers = Array.from({ length: count }, (_, i) => [
    ...[i === count - 1 ? UDP : 60, 0, 1, 4],
    ...[0, 0, 0, 0],
  ]);
  return ipPacket(ends, 60, Uint8Array.of(...headers.flat(), ...message));
}

test('extension headers that can be read, and one too many', () => {
  const [inside, there] = [INSIDE, OUTSIDE].map((a) => endsOf('out', a[6], PEER[6])) as [
    Ends,
    Ends,
  ];
  tap.passes('out', frame('out', extended(inside, 4)), frameToGateway(extended(there, 4)));
  tap.drops('out', frame('out', extended(inside, 5)), 'malformed');
  tap.drops('in', frame('in', extended(endsOf('in', OUTSIDE[6], PEER[6]), 5)), 'malformed');
});

both('a header that ends before its checksum', (f) => {
  for (const [protocol, length] of [
    [TCP, 8],
    [UDP, 6],
    ...(f === 6 ? ([[ICMP[6], 2]] as const) : []),
  ] as const) {
    for (const d of ['out', 'in'] as const) {
      const ends = endsOf(d, d === 'out' ? INSIDE[f] : OUTSIDE[f], PEER[f]);
      const bytes = frame(d, ipPacket(ends, protocol, pattern(length)));
      tap.drops(d, bytes, 'malformed');
      // Padding of the link layer is not a part of it.
      tap.drops(d, Uint8Array.of(...bytes, ...new Uint8Array(30)), 'malformed');
    }
  }
});

both('IP whose lengths lie', (f) => {
  for (const d of ['out', 'in'] as const) {
    const packet = ipMessage(endsOf(d, INSIDE[f], PEER[f]), UDP, udp(pattern(20)));
    packet.set([0xff, 0xff], f === 4 ? 2 : 4);
    tap.drops(d, frame(d, packet), 'malformed');
    const other = frame(d, packet);
    other[14] = 0x20;
    tap.drops(d, other, 'malformed');
  }
});

both('what is not IP passes', () => {
  tap.passes('out', etherFrame(HOME_MAC, GUEST_MAC, 0x88cc, pattern(60)));
  tap.passes('in', etherFrame(GUEST_MAC, HOME_MAC, 0x88cc, pattern(60)));
});

const MULTICAST: Record<4 | 6, { to: Address; mac: Uint8Array }> = {
  4: { to: address('224.0.0.251'), mac: Uint8Array.of(1, 0, 0x5e, 0, 0, 0xfb) },
  6: { to: address('ff02::fb'), mac: Uint8Array.of(0x33, 0x33, 0, 0, 0, 0xfb) },
};

both('multicast leaves translated, for its group, and arrives as it is', (f) => {
  const { to, mac } = MULTICAST[f];
  const make = (source: Address) =>
    withMacs(frame('out', ipMessage({ source, destination: to }, UDP, udp(pattern(40)))), mac);
  tap.passes('out', make(INSIDE[f]), make(OUTSIDE[f]));
  tap.passes('in', withMacs(make(GATEWAY[f]), mac, GATEWAY_MAC[f]));
});

test('broadcast', () => {
  const all = { mac: new Uint8Array(6).fill(0xff), to: address('255.255.255.255') };
  const make = (source: string) => {
    const ends = { source: address(source), destination: all.to };
    return withMacs(frame('out', ipMessage(ends, UDP, udp(pattern(40)))), all.mac);
  };
  tap.passes('out', make(INSIDE[4]), make(OUTSIDE[4]));
  tap.passes('out', make('0.0.0.0'));
  tap.passes('in', make(GATEWAY[4]));
});

test('what is of the link only passes: link-local, multicast listener reports', () => {
  const [guest, router] = [address('fe80::10'), GATEWAY[6]];
  const ping = (ends: Ends) => ipMessage(ends, ICMP[6], echo(128));
  tap.passes('out', frame('out', ping({ source: guest, destination: router })));
  tap.passes('in', frame('in', ping({ source: router, destination: guest })));
  for (const source of [guest, NONE]) {
    const ends = { source, destination: address('ff02::16') };
    const report = Uint8Array.of(
      143,
      0,
      0,
      0,
      0,
      0,
      0,
      1,
      4,
      0,
      0,
      0,
      ...addressBytes(ends.destination),
    );
    // RFC 3810, section 5: hop limit 1 and a router alert.
    const alert = Uint8Array.of(58, 0, 5, 2, 0, 0, 1, 0);
    const mld = ipPacket(ends, 0, Uint8Array.of(...alert, ...sealed(ends, 58, report)), 1);
    tap.passes('out', withMacs(frame('out', mld), Uint8Array.of(0x33, 0x33, 0, 0, 0, 0x16)));
  }
  const ends = { source: router, destination: address('ff02::1') };
  const query = ipMessage(ends, 58, Uint8Array.of(130, ...new Uint8Array(27)), 1);
  tap.passes('in', withMacs(frame('in', query), Uint8Array.of(0x33, 0x33, 0, 0, 0, 1)));
});

both('the gateway is not known yet', (f) => {
  const packet = ipMessage(endsOf('out', INSIDE[f], PEER[f]), UDP, udp(pattern(20)));
  tap.place = { ...AWAY, gateway4Mac: new Uint8Array(6), gateway6Mac: new Uint8Array(6) };
  try {
    tap.drops('out', frame('out', packet), 'no-next-hop');
  } finally {
    tap.place = AWAY;
  }
});

both('from an address that is not the guest’s, or for one', (f) => {
  for (const stranger of [ROUTER[f], OUTSIDE[f]]) {
    const sent = ipMessage(endsOf('out', stranger, PEER[f]), UDP, udp(pattern(20)));
    tap.drops('out', frame('out', sent), 'foreign');
  }
  for (const stranger of [ROUTER[f], INSIDE[f]]) {
    const sent = ipMessage(endsOf('in', stranger, PEER[f]), UDP, udp(pattern(20)));
    tap.drops('in', frame('in', sent), 'foreign');
  }
});

test('what the guest sends from other networks is not learned', () => {
  for (const last of [1, 2, 3, 4]) {
    const ends = endsOf('out', address(`2001:db8:9::${last}`), PEER[6]);
    tap.drops('out', frame('out', ipMessage(ends, UDP, udp(pattern(20)))), 'foreign');
  }
  assert.deepEqual(tap.place, AWAY);
});

test('another identifier of the prefix is the guest’s as well', () => {
  const make = (prefix: string, d: 'out' | 'in') =>
    ipMessage(endsOf(d, address(`${prefix}:a:b:c:d`), PEER[6]), UDP, udp(pattern(20)));
  const [inside, there] = ['2001:db8:1:0', '2001:db8:2:0'];
  tap.passes('out', frame('out', make(inside, 'out')), frameToGateway(make(there, 'out')));
  tap.passes('in', frame('in', make(there, 'in')), frame('in', make(inside, 'in')));
});

both('a place without this family: nothing leaves, nothing arrives', (f) => {
  const none = { 4: { outside4: NONE }, 6: { outside6: NONE } } as const;
  tap.place = { ...AWAY, ...none[f] };
  try {
    const sent = ipMessage(endsOf('out', INSIDE[f], PEER[f]), UDP, udp(pattern(20)));
    tap.drops('out', frame('out', sent), 'foreign');
    const nobody = f === 4 ? address('0.0.0.0') : NONE;
    for (const guest of [OUTSIDE[f], nobody]) {
      const arrived = ipMessage(endsOf('in', guest, PEER[f]), UDP, udp(pattern(20)));
      tap.drops('in', frame('in', arrived), 'foreign');
    }
  } finally {
    tap.place = AWAY;
  }
});

both('frames for other hosts pass untouched', (f) => {
  const arrived = ipMessage(endsOf('in', OUTSIDE[f], PEER[f]), UDP, udp(pattern(20)));
  assert.deepEqual(tap.passes('in', withMacs(frame('in', arrived), OTHER_MAC)).counted, []);
});

both('DHCP is between the guest and the daemon', (f) => {
  const [server, client] = f === 4 ? [67, 68] : [547, 546];
  const type = f === 4 ? 0x0800 : 0x86dd;
  tap.told();
  for (const d of ['out', 'in'] as const) {
    const ports: [number, number] = d === 'out' ? [client, server] : [server, client];
    const guest = d === 'out' ? INSIDE[f] : OUTSIDE[f];
    const message = ipMessage(endsOf(d, guest, HOME_GATEWAY[f]), UDP, udp(dhcp(300), ports));
    tap.drops(d, frame(d, message), 'foreign');
    assert.deepEqual(tap.told(), [[d === 'out', type, message]]);
  }
  // The other way round it is somebody's traffic.
  const ports: [number, number] = [server, client];
  const make = (guest: Address) =>
    ipMessage(endsOf('out', guest, PEER[f]), UDP, udp(pattern(9), ports));
  tap.passes('out', frame('out', make(INSIDE[f])), frameToGateway(make(OUTSIDE[f])));
});

both('frames of the daemon, marked', (f) => {
  const from = (guest: Address) => ipMessage(endsOf('out', guest, PEER[f]), UDP, udp(pattern(20)));
  const asGuest = { mark: MARK_NETWORK };
  // Given to the tap as if for the guest, so that it comes out of it as if of the guest.
  const sent = frame('out', from(INSIDE[f]));
  const turned = tap.run('in', sent, asGuest);
  assert.deepEqual([turned.verdict, turned.counted, turned.mark], ['redirect', [], MARK_NETWORK]);
  assert.deepEqual(turned.frame, sent);
  tap.passes('out', sent, frameToGateway(from(OUTSIDE[f])), asGuest);
  // With an outside address it is ready.
  tap.passes('out', frame('out', from(OUTSIDE[f])), undefined, asGuest);
  // Verbatim: even what has an inside address, to tell those at home of it.
  const verbatim = { mark: MARK_VERBATIM };
  assert.equal(tap.run('in', sent, verbatim).verdict, 'redirect');
  tap.passes('out', sent, undefined, verbatim);
  // Either mark goes, or the next VM's tap on the bridge would turn the frame round, and so on.
  for (const mark of [MARK_NETWORK, MARK_VERBATIM]) {
    assert.equal(tap.run('out', sent, { mark }).mark, 0);
  }
  // For the guest: in its view already.
  const back = frame('in', ipMessage(endsOf('in', INSIDE[f], PEER[f]), UDP, udp(pattern(20))));
  tap.passes('in', back, back, { mark: MARK_GUEST });
});

both('a mark that is not set is no mark', (f) => {
  tap.plane.boundary.writeSettings({ markGuest: 0, markNetwork: 0, markVerbatim: 0 });
  try {
    const arrived = ipMessage(endsOf('in', INSIDE[f], PEER[f]), UDP, udp(pattern(20)));
    tap.drops('in', frame('in', arrived), 'foreign');
    const sent = ipMessage(endsOf('out', OUTSIDE[f], PEER[f]), UDP, udp(pattern(20)));
    tap.drops('out', frame('out', sent), 'foreign');
  } finally {
    tap.plane.boundary.writeSettings(MARKS);
  }
});

both('a new connection of a VM that is away', (f) => {
  const view = guestView(f);
  const there = outside(view);
  tap.openFlow(view, there);
  tap.line(view, 'out', 'PA 1:101(100) ack 1 win 9', 'PA 1:101(100) ack 1 win 9', there);
  tap.line(there, 'in', 'PA 1:51(50) ack 101 win 9', 'PA 1:51(50) ack 101 win 9', view);
  assert.equal(tap.plane.boundary.flow(view.tuple)?.sndUna, view.iss + 101);
  tap.line(there, 'in', 'R  51:51(0) win 0', 'R  51:51(0) win 0', view);
});
