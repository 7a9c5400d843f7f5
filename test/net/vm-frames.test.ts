/* Frames of the daemon on a VM's tap come out where they should, and pass the boundary as they are
 * marked.
 *
 *   fd ── vnet0 (tap) ── br0 ── n0 ──── n1     fd: what the guest gets   n1: what the network gets
 *      ── vnet1 (tap) ───┘                        the tap of another VM
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { PLACE_FLAG } from '../../src/boundary/abi.gen.js';
import { Boundary } from '../../src/boundary/boundary.js';
import { DAEMON_MAC, DaemonOutlet, TapSender } from '../../src/daemon/flows/outlet.js';
import { tapMarks } from '../../src/daemon/host/settings.js';
import { nowhere } from '../../src/daemon/vm/place.js';
import { openTap, readFrame } from '../../src/lab/tap.js';
import { until } from '../../src/lab/wait.js';
import { FrameSender } from '../../src/libc/frame.js';
import { RawSender } from '../../src/libc/raw.js';
import {
  AF_PACKET,
  bindSocket,
  closeFd,
  interfaceIndex,
  openSocket,
  packetSockaddr,
  receive,
  SOCK_RAW,
} from '../../src/libc/socket.js';
import { type Address, address } from '../../src/wire/address.js';
import {
  BROADCAST_MAC,
  decodeFrame,
  encodeFrame,
  type Frame,
  type Mac,
  mac,
  macBytes,
  macFromBytes,
} from '../../src/wire/ethernet.js';
import { parsePacketLine } from '../../src/wire/notation.js';
import { decodePacket, encodePacket } from '../../src/wire/packet.js';
import { runDirectory } from '../boundary/runtime-directory.js';
import { ownNetwork, run } from '../libc/own-network.js';

const MARK = 0x7469;
const GUEST = mac('52:54:00:00:00:0a');
const GATEWAY = mac('52:54:00:00:00:01');
const [INSIDE, OUTSIDE, PEER] = ['192.0.2.10', '198.51.100.10', '203.0.113.7'].map(address);
const [INSIDE6, OUTSIDE6, PEER6] = ['2001:db8:1::a', '2001:db8:2::a', '2001:db8:3::7'].map(address);
const ETH_P_ALL = 3;
const ETHER = { 4: 0x0800, 6: 0x86dd } as const;

ownNetwork();
for (const line of [
  'link add br0 type bridge',
  'tuntap add vnet0 mode tap',
  'tuntap add vnet1 mode tap',
  'link add n0 type veth peer name n1',
  'link set vnet0 master br0',
  'link set vnet1 master br0',
  'link set n0 master br0',
]) {
  run('ip', ...line.split(' '));
}
for (const name of ['br0', 'vnet0', 'vnet1', 'n0', 'n1']) {
  run('ip', 'link', 'set', name, 'addrgenmode', 'none');
  run('ip', 'link', 'set', name, 'up');
}
const guest = openTap('/proc/thread-self/ns/net', 'vnet0');
const other = openTap('/proc/thread-self/ns/net', 'vnet1');
const tap = indexOf('vnet0');
const network = openSocket(AF_PACKET, SOCK_RAW, ETH_P_ALL << 8);
bindSocket(network, packetSockaddr(indexOf('n1'), ETH_P_ALL));
const boundary = Boundary.open({ runDir: runDirectory() });
const marks = tapMarks(MARK);
boundary.writeSettings({
  ...{ enabled: 1, markGuest: marks.guest, markNetwork: marks.network },
  markVerbatim: marks.verbatim,
});
boundary.attach('vnet0', 'tap');
boundary.attach('vnet1', 'tap');
const raw = new RawSender();
const taps = new TapSender(marks);
const outlet = new DaemonOutlet({
  boundary,
  raw,
  taps,
  wayOf: () => undefined,
  isRetained: () => false,
  isLocal: () => true,
});

after(() => {
  raw.close();
  taps.close();
  boundary.detach('vnet0', 'tap');
  boundary.detach('vnet1', 'tap');
  boundary.close();
  closeFd(network);
  closeFd(guest);
  closeFd(other);
});

function indexOf(name: string): number {
  const index = interfaceIndex(name);
  assert.ok(index);
  return index;
}

const placed = (o: { away: boolean; gateway?: boolean }): void => {
  const gateway = o.gateway === false ? new Uint8Array(6) : macBytes(GATEWAY);
  const prefix = (a: Address | undefined): Address => address(`${a?.replace(/a$/, '')}`);
  boundary.setPlace(tap, {
    ...nowhere(),
    ...{ inside4: INSIDE as Address, outside4: (o.away ? OUTSIDE : INSIDE) as Address },
    ...{ inside6: prefix(INSIDE6), outside6: prefix(o.away ? OUTSIDE6 : INSIDE6) },
    ...{ guestMac: macBytes(GUEST), gateway4Mac: gateway, gateway6Mac: gateway },
    flags: o.away ? PLACE_FLAG.AWAY : 0,
  });
};

/** Keeps all that has come, so that what should not have is found as well. */
const bench = (reader: (buffer: Uint8Array) => number) => {
  const buffer = new Uint8Array(4096);
  const seen: Frame[] = [];
  const found = (port: number) => {
    for (let length = reader(buffer); length >= 0; length = reader(buffer)) {
      const frame = decodeFrame(buffer.slice(0, length));
      if (!('error' in frame)) seen.push(frame);
    }
    for (const frame of seen) {
      const packet = decodePacket(frame.payload);
      if (!('error' in packet) && packet.sourcePort === port) return { ...frame, packet };
    }
    return undefined;
  };
  const count = (port: number): number => {
    found(port);
    return seen.filter(({ payload }) => sourcePortOf(payload) === port).length;
  };
  return { found, count };
};

function sourcePortOf(payload: Uint8Array): number | undefined {
  const packet = decodePacket(payload);
  return 'error' in packet ? undefined : packet.sourcePort;
}
const guestSide = bench((buffer) => readFrame(guest, buffer));
const otherSide = bench((buffer) => readFrame(other, buffer));
const networkSide = bench((buffer) => receive(network, buffer));

let port = 1000;
const packetOf = (source: Address, destination: Address): Uint8Array =>
  encodePacket(
    parsePacketLine('A 0:10(10) ack 1 win 9', {
      ...{ source, destination, sourcePort: ++port, destinationPort: 22 },
    }),
  );
const kernel = {
  local: INSIDE as Address,
  remote: PEER as Address,
  localPort: 1,
  remotePort: 2,
  tap,
};

type Seen = NonNullable<ReturnType<typeof guestSide.found>>;
async function arrives(at: typeof guestSide): Promise<Seen> {
  let seen: Seen | undefined;
  await until('the frame arrives', () => {
    seen ??= at.found(port);
    return seen !== undefined;
  });
  assert.ok(seen);
  return seen;
}
/** Nothing came: a frame of the same kind that is sent after it, and did come, would be behind it. */
function nothingAt(at: typeof guestSide, sent: number): void {
  assert.equal(at.found(sent), undefined);
}

for (const [version, inside, outside, peer] of [
  [4, INSIDE, OUTSIDE, PEER],
  [6, INSIDE6, OUTSIDE6, PEER6],
] as const) {
  assert.ok(inside && outside && peer);
  describe(`IPv${version}`, () => {
    test('to the wire: as from the guest, by the gateway, from its outside address', async () => {
      placed({ away: true });
      outlet.toWire(packetOf(inside, peer), kernel);
      const seen = await arrives(networkSide);
      assert.deepEqual(
        [
          seen.destination,
          seen.source,
          seen.etherType,
          seen.packet.source,
          seen.packet.destination,
        ],
        [GATEWAY, GUEST, ETHER[version], outside, peer],
      );
      nothingAt(guestSide, port);
    });

    test('to the wire at home: with its own', async () => {
      placed({ away: false });
      outlet.toWire(packetOf(inside, peer), kernel);
      assert.equal((await arrives(networkSide)).packet.source, inside);
    });

    test('verbatim: with what is in it, whatever it is called here', async () => {
      placed({ away: true });
      outlet.toWireVerbatim(packetOf(inside, peer), tap);
      const seen = await arrives(networkSide);
      assert.deepEqual([seen.destination, seen.packet.source], [GATEWAY, inside]);
      nothingAt(guestSide, port);
    });

    test('to the kernel: the guest gets it untranslated, and the network does not', async () => {
      placed({ away: true });
      outlet.toKernel(packetOf(peer, inside), kernel);
      const seen = await arrives(guestSide);
      assert.deepEqual(
        [seen.destination, seen.source, seen.packet.source, seen.packet.destination],
        [GUEST, macFromBytes(DAEMON_MAC), peer, inside],
      );
      nothingAt(networkSide, port);
    });

    test('without a gateway nothing is sent anywhere', async () => {
      placed({ away: true, gateway: false });
      outlet.toWire(packetOf(inside, peer), kernel);
      const sent = port;
      outlet.toWireVerbatim(packetOf(inside, peer), tap);
      const verbatim = port;
      outlet.toKernel(packetOf(peer, inside), kernel);
      await arrives(guestSide);
      placed({ away: true });
      outlet.toWireVerbatim(packetOf(inside, peer), tap);
      await arrives(networkSide);
      nothingAt(networkSide, sent);
      nothingAt(networkSide, verbatim);
    });

    test('what comes through the bridge, unmarked, is looked at', async () => {
      placed({ away: true });
      const stranger = new FrameSender(0);
      const frame = (packet: Uint8Array) =>
        Uint8Array.of(
          ...macBytes(GUEST),
          ...macBytes(GATEWAY),
          ...[ETHER[version] >> 8, ETHER[version] & 0xff],
          ...packet,
        );
      stranger.send(indexOf('n1'), frame(packetOf(peer, inside)));
      const foreign = port;
      stranger.send(indexOf('n1'), frame(packetOf(peer, outside)));
      const seen = await arrives(guestSide);
      assert.equal(seen.packet.destination, inside);
      nothingAt(guestSide, foreign);
      stranger.close();
    });
  });
}

test('a broadcast in the name of a guest reaches all once: the tap of another VM leaves it alone', async () => {
  placed({ away: true });
  boundary.setPlace(indexOf('vnet1'), nowhere());
  assert.ok(OUTSIDE && PEER);
  const frame = (to: Mac, packet: Uint8Array) =>
    encodeFrame({ source: GUEST, destination: to, etherType: ETHER[4], payload: packet });
  taps.toNetwork(tap, frame(BROADCAST_MAC, packetOf(OUTSIDE, PEER)));
  await arrives(networkSide);
  await arrives(otherSide);
  const broadcast = port;
  // By the time that these have come, any echo has.
  for (let n = 0; n < 20; n++) {
    taps.toNetwork(tap, frame(GATEWAY, packetOf(OUTSIDE, PEER)));
    await arrives(networkSide);
  }
  assert.deepEqual(
    [networkSide, otherSide, guestSide].map((side) => side.count(broadcast)),
    [1, 1, 0],
  );
});

test('a tap that is down, or gone: lost on the way for the guest, told to the agent', () => {
  placed({ away: true });
  run('ip', 'link', 'set', 'vnet0', 'down');
  assert.ok(INSIDE && PEER);
  const toWire = () => outlet.toWire(packetOf(INSIDE as Address, PEER as Address), kernel);
  assert.throws(toWire, { code: 'ENETDOWN' });
  outlet.toKernel(packetOf(PEER, INSIDE), kernel);
  outlet.toWireVerbatim(packetOf(INSIDE, PEER), tap);
  run('ip', 'link', 'set', 'vnet0', 'up');
  boundary.deletePlace(tap);
  toWire();
  outlet.toKernel(packetOf(PEER, INSIDE), kernel);
  outlet.toWireVerbatim(packetOf(INSIDE, PEER), tap);
});
