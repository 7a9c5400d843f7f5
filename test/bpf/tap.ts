/*
 * A VM's tap as a bench: whole Ethernet frames that the guest sends ('out') and receives ('in').
 *
 *   guest ── tap ── bridge ── gateway ── peer
 *   inside 192.0.2.10, 2001:db8:1::10      outside 198.51.100.10, 2001:db8:2::10
 *
 * BPF_PROG_TEST_RUN's device is lo, so the tap has index 1.  Packets are made here from nothing,
 * before and after translation alike, with checksums summed naively: frames are compared whole.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Place } from '../../src/boundary/boundary.js';
import type { TestOptions } from '../../src/boundary/test-run.js';
import { type Address, address, addressBytes, family } from '../../src/wire/address.js';
import { writeIpHeader } from '../../src/wire/ip.js';
import { encodePacket } from '../../src/wire/packet.js';
import { seq, seqAdd } from '../../src/wire/seq.js';
import {
  DataPlane,
  type Direction,
  ETHER_HEADER,
  FAMILIES,
  type Family,
  type MoveOptions as HostMoveOptions,
  type Outcome,
  PEER_OPEN,
  packetOf,
  SYN_ACK_OPTIONS,
  SYN_OPTIONS,
  type View,
} from './data-plane.js';
import { naiveSum, naiveTransportSum } from './model.js';

export const TAP = 1;
export const PLACE_FLAG = { AWAY: 1, ANSWER: 2 } as const;
export const MARK_GUEST = 0x7467;
export const MARK_NETWORK = 0x746e;
export const MARK_VERBATIM = 0x7476;
export const MARKS = {
  markGuest: MARK_GUEST,
  markNetwork: MARK_NETWORK,
  markVerbatim: MARK_VERBATIM,
};

const pair = (four: string, six: string): Record<Family, Address> => ({
  4: address(four),
  6: address(six),
});
export const INSIDE = pair('192.0.2.10', '2001:db8:1::10');
export const OUTSIDE = pair('198.51.100.10', '2001:db8:2::10');
export const PEER = pair('203.0.113.7', '2001:db8:3::7');
export const ROUTER = pair('192.88.99.1', '2001:db8:9::1');
/** Next hops: what the guest was told at home, and what there is at the foreign place. */
export const HOME_GATEWAY = pair('192.0.2.1', 'fe80::1');
export const GATEWAY = pair('198.51.100.1', 'fe80::61');
export const NONE = address('::');
const PREFIX = { inside: address('2001:db8:1::'), outside: address('2001:db8:2::') };

export const mac = (last: number): Uint8Array => Uint8Array.of(2, 0, 0, 0, 0, last);
export const GUEST_MAC = mac(0x10);
export const HOME_MAC = mac(0x01);
export const OTHER_MAC = mac(0x99);
export const GATEWAY_MAC: Record<Family, Uint8Array> = { 4: mac(0x41), 6: mac(0x61) };
const NO_MAC = new Uint8Array(6);

/** A tap of which nothing is known. */
export const UNKNOWN: Place = {
  inside4: NONE,
  outside4: NONE,
  inside6: NONE,
  outside6: NONE,
  router6: NONE,
  own6: [NONE, NONE, NONE, NONE],
  since: 0n,
  guestMac: NO_MAC,
  gateway4Mac: NO_MAC,
  gateway6Mac: NO_MAC,
  flags: 0,
  own6Next: 0,
};

export const HOME: Place = {
  ...UNKNOWN,
  inside4: INSIDE[4],
  outside4: INSIDE[4],
  inside6: PREFIX.inside,
  outside6: PREFIX.inside,
  router6: HOME_GATEWAY[6],
  own6: [INSIDE[6], NONE, NONE, NONE],
  guestMac: GUEST_MAC,
  own6Next: 1,
};

export const AWAY: Place = {
  ...HOME,
  outside4: OUTSIDE[4],
  outside6: PREFIX.outside,
  gateway4Mac: GATEWAY_MAC[4],
  gateway6Mac: GATEWAY_MAC[6],
  flags: PLACE_FLAG.AWAY | PLACE_FLAG.ANSWER,
};

/** Runs a test for both families. */
export function both(name: string, run: (f: Family) => void): void {
  for (const f of FAMILIES) test(`${name} (IPv${f})`, () => run(f));
}

export const ICMP: Record<Family, number> = { 4: 1, 6: 58 };
export const TCP = 6;
export const UDP = 17;

export interface Ends {
  source: Address;
  destination: Address;
}

/** From the guest to the peer or back, the guest under one of its names. */
export const endsOf = (direction: Direction, guest: Address, peer: Address): Ends =>
  direction === 'out' ? { source: guest, destination: peer } : { source: peer, destination: guest };

const CHECKSUM_AT = new Map([
  [TCP, 16],
  [UDP, 6],
  [ICMP[4], 2],
  [ICMP[6], 2],
]);

/** `message` with its checksum filled in, if its protocol has one over the addresses or itself. */
export function sealed(ends: Ends, protocol: number, message: Uint8Array): Uint8Array {
  const at = CHECKSUM_AT.get(protocol);
  if (at === undefined) return message;
  const copy = message.slice();
  copy.fill(0, at, at + 2);
  const sum = protocol === ICMP[4] ? naiveSum([copy]) : naiveTransportSum(ends, protocol, copy);
  const checksum = ~sum & 0xffff;
  // RFC 768: zero stands for none.
  new DataView(copy.buffer).setUint16(at, checksum === 0 && protocol === UDP ? 0xffff : checksum);
  return copy;
}

/** An IP packet around bytes that are taken as they are. */
export function ipPacket(
  ends: Ends,
  protocol: number,
  payload: Uint8Array,
  hopLimit = 64,
): Uint8Array {
  const bytes = new Uint8Array((family(ends.source) === 4 ? 20 : 40) + payload.length);
  bytes.set(payload, bytes.length - payload.length);
  writeIpHeader(bytes, {
    source: addressBytes(ends.source),
    destination: addressBytes(ends.destination),
    protocol,
    hopLimit,
  });
  return bytes;
}

/** An IP packet whose message gets its checksum here. */
export const ipMessage = (
  ends: Ends,
  protocol: number,
  message: Uint8Array,
  hopLimit = 64,
): Uint8Array => ipPacket(ends, protocol, sealed(ends, protocol, message), hopLimit);

/** A pattern without symmetries, so that misplaced bytes show. */
export const pattern = (length: number, from = 0): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => ((from + i) * 31 + 7) & 0xff);

/** As much of a DHCP message as tells whose it is: chaddr is at 28. */
export function dhcp(length: number, chaddr = GUEST_MAC): Uint8Array {
  const bytes = pattern(length);
  bytes.set(chaddr, 28);
  return bytes;
}

export function udp(payload: Uint8Array, ports: [number, number] = [5353, 4000]): Uint8Array {
  const bytes = new Uint8Array(8 + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, ports[0]);
  view.setUint16(2, ports[1]);
  view.setUint16(4, bytes.length);
  bytes.set(payload, 8);
  return bytes;
}

/** An ICMP error that quotes `quoted`: host unreachable, no route to destination. */
export const icmpError = (ends: Ends, quoted: Uint8Array): Uint8Array => {
  const f = family(ends.source);
  const type = f === 4 ? [3, 1] : [1, 0];
  return ipMessage(ends, ICMP[f], Uint8Array.of(...type, 0, 0, 0, 0, 0, 0, ...quoted));
};

export function etherFrame(
  to: Uint8Array,
  from: Uint8Array,
  type: number,
  payload: Uint8Array,
): Uint8Array {
  return Uint8Array.of(...to, ...from, type >> 8, type & 0xff, ...payload);
}

const etherType = (ip: Uint8Array): number => ((ip[0] ?? 0) >> 4 === 6 ? 0x86dd : 0x0800);

/** The frame that the guest sends to its gateway at home, or that comes for it. */
export const frame = (direction: Direction, ip: Uint8Array): Uint8Array =>
  direction === 'out'
    ? etherFrame(HOME_MAC, GUEST_MAC, etherType(ip), ip)
    : etherFrame(GUEST_MAC, GATEWAY_MAC[4], etherType(ip), ip);

/** The same with other ends. */
export function withMacs(bytes: Uint8Array, to: Uint8Array, from?: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  copy.set(to, 0);
  if (from !== undefined) copy.set(from, 6);
  return copy;
}

/** What leaves for the foreign place's gateway. */
export const frameToGateway = (ip: Uint8Array): Uint8Array =>
  withMacs(frame('out', ip), GATEWAY_MAC[etherType(ip) === 0x0800 ? 4 : 6]);

let portsUsed = 0;

/** A connection of the guest that no test before has used, as the guest names it. */
export function guestView(f: Family, o: MoveOptions = {}): View {
  portsUsed += 1;
  const ends = { local: INSIDE[f], remote: PEER[f] };
  const tuple = { ...ends, localPort: 20000 + portsUsed, remotePort: 22, tap: TAP };
  return { tuple, iss: seq(o.iss ?? 1000000), irs: seq(o.irs ?? 5000000) };
}

/** The same connection as this place's network sees it. */
export const outside = (view: View): View => ({
  ...view,
  tuple: { ...view.tuple, local: OUTSIDE[family(view.tuple.local)] },
});

/** A flow that has moved with its guest. */
export interface GuestFlow {
  kernel: View;
  /** As the network sees it. */
  there: View;
}

/** `redirect`: the next hop is not the guest's choice. */
export type MoveOptions = Omit<HostMoveOptions, 'epoch' | 'held' | 'responder'> & {
  redirect?: number;
};

/** The data plane with a place on the tap. */
export class Tap {
  readonly plane = new DataPlane();

  constructor(place: Place) {
    this.plane.boundary.writeSettings(MARKS);
    this.place = place;
  }

  get place(): Place {
    const place = this.plane.boundary.place(TAP);
    assert.ok(place);
    return place;
  }

  set place(place: Place) {
    this.plane.boundary.setPlace(TAP, place);
  }

  /** Runs a test with the VM at another place. */
  at(place: Place, run: () => void): void {
    const before = this.place;
    this.place = place;
    try {
      run();
    } finally {
      this.place = before;
    }
  }

  run(direction: Direction, bytes: Uint8Array, o: TestOptions = {}): Outcome {
    return this.plane.run(direction, bytes, o, 'tap');
  }

  /** The frame passes, as `expected`. */
  passes(direction: Direction, bytes: Uint8Array, expected = bytes, o: TestOptions = {}): Outcome {
    const outcome = this.run(direction, bytes, o);
    assert.equal(outcome.verdict, 'pass', `counted ${outcome.counted}`);
    assertSameBytes(outcome.frame, expected);
    return outcome;
  }

  /** The frame is dropped or stolen for this reason alone. */
  drops(direction: Direction, bytes: Uint8Array, reason: string, verdict = 'drop'): Outcome {
    const outcome = this.run(direction, bytes);
    assert.deepEqual([outcome.verdict, outcome.counted], [verdict, [reason]]);
    return outcome;
  }

  /** The frame is dropped for it has no business here, and the daemon told of it or not. */
  dropsForeign(direction: Direction, bytes: Uint8Array, told: boolean): void {
    this.told();
    this.drops(direction, bytes, 'foreign');
    const type = ((bytes[12] ?? 0) << 8) | (bytes[13] ?? 0);
    const copy = bytes.slice(ETHER_HEADER);
    assert.deepEqual(this.told(), told ? [[direction === 'out', type, copy]] : []);
  }

  /** A question comes back as `expected`, on its way to who asked. */
  answers(direction: Direction, bytes: Uint8Array, expected: Uint8Array): void {
    const outcome = this.run(direction, bytes);
    assert.deepEqual([outcome.verdict, outcome.counted], ['redirect', ['answered']]);
    assertSameBytes(outcome.frame, expected);
    assert.equal(outcome.mark, direction === 'out' ? MARK_GUEST : MARK_NETWORK);
    // Marked so that the other program lets it pass as it is.
    const back = direction === 'out' ? 'in' : 'out';
    this.passes(back, outcome.frame, outcome.frame, { mark: outcome.mark });
  }

  /** A TCP packet by its line: as it is sent, and what becomes of it in the view `then`. */
  line(view: View, direction: Direction, line: string, expected: string, then = view): Outcome {
    const sent = packetOf(view, direction, line);
    const bytes = frame(direction, encodePacket(sent));
    const [verdict = '', reason = ''] = expected.split(' ');
    if (verdict === 'drop' || verdict === 'stolen')
      return this.drops(direction, bytes, reason, verdict);
    const { payload } = sent;
    const ip = encodePacket({ ...packetOf(then, direction, expected), payload });
    const toGateway = direction === 'out' && (this.place.flags & PLACE_FLAG.AWAY) !== 0;
    return this.passes(direction, bytes, toGateway ? frameToGateway(ip) : frame(direction, ip));
  }

  /** A connection that the guest opens to a peer with a boundary, at this place. */
  openFlow(view: View, there = view): View {
    const open = this.plane.stockHalf();
    const syn = `S 0:0(0) win 65535 <${SYN_OPTIONS}>`;
    this.line(view, 'out', syn, `S 0:0(0) win 65535 <${SYN_OPTIONS},${open}>`, there);
    const answer = `SA 0:0(0) ack 1 win 65160 <${SYN_ACK_OPTIONS},${PEER_OPEN}>`;
    this.line(there, 'in', answer, answer, view);
    assert.ok(this.plane.boundary.flow(view.tuple), 'a flow');
    return view;
  }

  /** A flow of the guest from before it went away, now on a wire from the outside address. */
  moveFlow(f: Family, o: MoveOptions = {}): GuestFlow {
    this.place = HOME;
    const kernel = this.openFlow(guestView(f, o));
    this.place = AWAY;
    const wire = { ...kernel.tuple, localPort: kernel.tuple.localPort + 20000 };
    const { result } = this.plane.boundary.command({
      verb: 'map',
      kernel: kernel.tuple,
      mapping: {
        wire,
        sndDelta: seq(o.sndDelta ?? 1000),
        rcvDelta: seq(o.rcvDelta ?? 5000),
        sndBase: seqAdd(kernel.iss, o.sndBase ?? 1),
        rcvBase: seqAdd(kernel.irs, o.rcvBase ?? 1),
        redirect: o.redirect ?? 0,
      },
      epoch: 1,
      unproven: o.unproven ?? false,
      held: false,
    });
    assert.equal(result, 'ok');
    return { kernel, there: outside({ ...kernel, tuple: wire }) };
  }

  /** The frames that were told of since, as [of the guest, EtherType, bytes]. */
  told(): Array<[boolean, number, Uint8Array]> {
    return this.plane
      .events()
      .filter((e) => e.type === 'guest')
      .map((e) => [e.fromGuest, e.etherType, e.packet]);
  }

  remove(): void {
    this.plane.remove();
  }
}

const hex = (bytes: Uint8Array): string =>
  `${Buffer.from(bytes.subarray(0, ETHER_HEADER)).toString('hex')} ${Buffer.from(
    bytes.subarray(ETHER_HEADER),
  ).toString('hex')}`;

/** As text: a difference that can be read. */
export const assertSameBytes = (actual: Uint8Array, expected: Uint8Array): void =>
  assert.equal(hex(actual), hex(expected));
