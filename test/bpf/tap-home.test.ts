/*
 * The boundary on the tap of a VM that is at home: it learns who the guest is, gives its new
 * connections TI_OPEN, and changes nothing else.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { encodePacket } from '../../src/wire/packet.js';
import { tupleReverse } from '../../src/wire/tuple.js';
import { runs } from '../whole.js';
import { anyPacket } from '../wire/arbitrary.js';
import { type Direction, frameOf, PEER_OPEN, packetOf } from './data-plane.js';
import {
  both,
  dhcp,
  endsOf,
  etherFrame,
  frame,
  GUEST_MAC,
  guestView,
  HOME,
  HOME_MAC,
  ICMP,
  INSIDE,
  ipMessage,
  ipPacket,
  OTHER_MAC,
  PEER,
  pattern,
  ROUTER,
  TAP,
  Tap,
  UDP,
  UNKNOWN,
  udp,
  withMacs,
} from './tap.js';
import { arpFrame } from './tap-neighbour.js';

const tap = new Tap(HOME);
after(() => tap.remove());

const direction = fc.constantFrom<Direction>('out', 'in');

test('a packet of no flow comes out byte-identical', () => {
  const packet = anyPacket.filter(
    (p) => !p.options.some((o) => o.kind.startsWith('ti-')) && !p.flags.includes('S'),
  );
  fc.assert(
    fc.property(direction, packet, (d, p) => {
      tap.passes(d, frame(d, encodePacket(p)));
    }),
    { numRuns: runs(500) },
  );
});

test('bytes that are no packet come out byte-identical', () => {
  const etherType = fc.constantFrom(0x0800, 0x86dd, 0x0806, 0x8100, 0x88cc);
  const bytes = fc.uint8Array({ minLength: 40, maxLength: 106 });
  fc.assert(
    fc.property(direction, etherType, bytes, (d, type, payload) => {
      const version = type === 0x0800 ? 0x45 : 0x60;
      payload[0] = version;
      const [to, from] = d === 'out' ? [HOME_MAC, GUEST_MAC] : [GUEST_MAC, HOME_MAC];
      tap.passes(d, etherFrame(to, from, type, payload));
    }),
    { numRuns: runs(500) },
  );
});

both('UDP, ICMP and fragments pass', (f) => {
  for (const d of ['out', 'in'] as const) {
    const ends = endsOf(d, INSIDE[f], PEER[f]);
    tap.passes(d, frame(d, ipMessage(ends, UDP, udp(pattern(33)))));
    const echo = Uint8Array.of(f === 4 ? 8 : 128, 0, 0, 0, 1, 2, 0, 1, ...pattern(56));
    tap.passes(d, frame(d, ipMessage(ends, ICMP[f], echo)));
    const later = ipPacket(ends, UDP, pattern(64));
    if (f === 4) later[7] = 10;
    tap.passes(d, frame(d, later));
  }
});

both('a connection that the guest opens becomes a flow of its tap', (f) => {
  const view = tap.openFlow(guestView(f));
  assert.deepEqual(
    tap.plane.boundary.flows().filter(([t]) => t.localPort === view.tuple.localPort)[0]?.[0],
    view.tuple,
  );
  tap.line(view, 'out', 'PA 1:101(100) ack 1 win 9', 'PA 1:101(100) ack 1 win 9');
  tap.line(view, 'in', 'A  1:1(0) ack 101 win 9', 'A  1:1(0) ack 101 win 9');
  assert.equal(tap.plane.boundary.flow(view.tuple)?.sndUna, view.iss + 101);
});

both('a connection that the peer opens becomes a flow of the tap', (f) => {
  const view = guestView(f);
  const syn = `S 0:0(0) win 1 <mss 1460,${PEER_OPEN}>`;
  tap.line(view, 'in', syn, syn);
  const open = tap.plane.stockHalf();
  tap.line(view, 'out', 'SA 0:0(0) ack 1 win 1', `SA 0:0(0) ack 1 win 1 <${open}>`);
  assert.ok(tap.plane.boundary.flow(view.tuple));
});

both('the same tuple on an interface of our own is another connection', (f) => {
  const view = tap.openFlow(guestView(f));
  const own = { ...view, tuple: tupleReverse(tupleReverse(view.tuple)) };
  assert.equal(own.tuple.tap, undefined);
  tap.plane.boundary.command({ verb: 'hold', kernel: view.tuple });
  tap.plane.expect(own, 'out', 'PA 1:101(100) ack 1 win 1', 'same');
  tap.line(view, 'out', 'PA 1:101(100) ack 1 win 1', 'stolen held');
  const open = tap.plane.stockHalf();
  tap.plane.expect(own, 'out', 'S 7:7(0) win 1', `S 7:7(0) win 1 <${open}>`);
  tap.plane.expect(own, 'in', `SA 7:7(0) ack 8 win 1 <${PEER_OPEN}>`, 'same');
  assert.ok(tap.plane.boundary.flow(own.tuple));
  assert.equal(tap.plane.boundary.flow(view.tuple)?.iss, view.iss);
});

both('a tap without a place is not looked at', (f) => {
  const view = guestView(f);
  const syn = frame('out', encodePacket(packetOf(view, 'out', 'S 0:0(0) win 1')));
  tap.plane.boundary.deletePlace(TAP);
  try {
    tap.passes('out', syn);
    tap.passes('in', frame('in', encodePacket(packetOf(view, 'in', `S 0:0(0) win 1`))));
    assert.ok(!tap.plane.boundary.plain().some(([t]) => t.localPort === view.tuple.localPort));
  } finally {
    tap.place = HOME;
  }
});

both('a frame that the bridge has flooded for somebody else passes and creates nothing', (f) => {
  const view = guestView(f);
  const line = `S 0:0(0) win 1 <mss 1460,${PEER_OPEN}>`;
  const syn = frame('in', encodePacket(packetOf(view, 'in', line)));
  const outcome = tap.passes('in', withMacs(syn, OTHER_MAC));
  assert.deepEqual(outcome.counted, []);
  const open = 'SA 0:0(0) ack 1 win 1';
  tap.line(view, 'out', open, open);
  assert.equal(tap.plane.boundary.flow(view.tuple), undefined);
  // Nor does it change a flow: held or not, the frame is not ours.
  const held = tap.openFlow(guestView(f));
  const rst = frame('in', encodePacket(packetOf(held, 'in', 'R 1:1(0) win 0')));
  assert.deepEqual(tap.passes('in', withMacs(rst, OTHER_MAC)).counted, []);
});

test('who the guest is, is learned from what it sends', () => {
  tap.place = UNKNOWN;
  try {
    // Before the MAC is known everything is taken for the guest's; it teaches nothing.
    tap.passes(
      'in',
      frame('in', ipMessage(endsOf('in', INSIDE[4], PEER[4]), UDP, udp(pattern(9)))),
    );
    tap.passes('in', arpFrame({ operation: 1, sender: PEER[4], target: INSIDE[4] }, 'in'));
    assert.deepEqual(tap.place, UNKNOWN);
    const six = (source: string) => {
      const ends = { source: PEER[6], destination: PEER[6] };
      return frame('out', ipMessage({ ...ends, source: source as never }, UDP, udp(pattern(9))));
    };
    for (const source of ['fe80::10', '::', INSIDE[6], '2001:db8:1::20', INSIDE[6]]) {
      tap.passes('out', six(source));
    }
    tap.passes('out', arpFrame({ operation: 1, sender: INSIDE[4], target: PEER[4] }, 'out'));
    tap.passes('out', arpFrame({ operation: 1, sender: ROUTER[4], target: PEER[4] }, 'out'));
    assert.deepEqual(tap.place, {
      ...UNKNOWN,
      inside4: INSIDE[4],
      outside4: INSIDE[4],
      own6: [INSIDE[6], '2001:db8:1::20', UNKNOWN.own6[2], UNKNOWN.own6[3]],
      own6Next: 2,
      guestMac: GUEST_MAC,
    });
    // A fifth address takes the place of the first.
    for (const source of ['2001:db8:1::3', '2001:db8:1::4', '2001:db8:1::5']) {
      tap.passes('out', six(source));
    }
    assert.equal(tap.place.own6[0], '2001:db8:1::5');
    assert.equal(tap.place.own6[3], '2001:db8:1::4');
  } finally {
    tap.place = HOME;
  }
});

test('an ARP probe, from nowhere, teaches nothing', () => {
  tap.place = UNKNOWN;
  try {
    const nowhere = '0.0.0.0' as (typeof INSIDE)[4];
    tap.passes('out', arpFrame({ operation: 1, sender: nowhere, target: INSIDE[4] }, 'out'));
    assert.equal(tap.place.inside4, UNKNOWN.inside4);
  } finally {
    tap.place = HOME;
  }
});

test("answers to others, of which a whole network's are broadcast, are not told", () => {
  tap.told();
  for (const d of ['out', 'in'] as const) {
    const ports: [number, number] = d === 'out' ? [68, 67] : [67, 68];
    const message = udp(dhcp(300, OTHER_MAC), ports);
    tap.passes(d, frame(d, ipMessage(endsOf(d, INSIDE[4], ROUTER[4]), UDP, message)));
  }
  assert.deepEqual(tap.told(), []);
});

both('DHCP is copied for the daemon, and passes', (f) => {
  const [server, client] = f === 4 ? [67, 68] : [547, 546];
  const message = (d: Direction) => {
    const ports: [number, number] = d === 'out' ? [client, server] : [server, client];
    return ipMessage(endsOf(d, INSIDE[f], ROUTER[f]), UDP, udp(dhcp(300), ports));
  };
  tap.told();
  for (const d of ['out', 'in'] as const) {
    tap.passes(d, frame(d, message(d)));
    const type = f === 4 ? 0x0800 : 0x86dd;
    assert.deepEqual(tap.told(), [[d === 'out', type, message(d)]]);
  }
  // Only so far as there is room, and only between these ports.
  const long = ipMessage(endsOf('in', INSIDE[f], ROUTER[f]), UDP, udp(dhcp(900), [server, client]));
  tap.passes('in', frame('in', long));
  assert.deepEqual(tap.told()[0]?.[2], long.slice(0, 640));
  const relay = ipMessage(
    endsOf('in', INSIDE[f], ROUTER[f]),
    UDP,
    udp(pattern(9), [server, server]),
  );
  tap.passes('in', frame('in', relay));
  assert.deepEqual(tap.told(), []);
});

test('frames as they come on a real card, padded, pass as they are', () => {
  const ip = ipMessage(endsOf('in', INSIDE[4], PEER[4]), UDP, udp(pattern(1)));
  const padded = withMacs(frameOf(ip, 60), GUEST_MAC, HOME_MAC);
  tap.passes('in', padded);
});
