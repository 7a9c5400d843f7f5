/* System calls: what they return, and what their errors say. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ERRNO, errnoName, SystemError } from '../../src/libc/errno.js';
import { RawSender } from '../../src/libc/raw.js';
import {
  AF_INET,
  AF_INET6,
  closeFd,
  hardwareType,
  interfaceIndex,
  interfaces,
  openSocket,
  receive,
  SOCK_RAW,
} from '../../src/libc/socket.js';
import { address } from '../../src/wire/address.js';
import { encodePacket, type Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { ownNetwork } from './own-network.js';

ownNetwork();

const IPPROTO_TCP = 6;
const ARPHRD_LOOPBACK = 772;

test('an error names its number, what was attempted and what to do', () => {
  assert.equal(errnoName(1), 'EPERM');
  assert.equal(errnoName(ERRNO.EAGAIN), 'EAGAIN');
  assert.equal(errnoName(524), 'ENOTSUPP');
  assert.equal(errnoName(9999), 'errno 9999');
  const error = new SystemError('attach boundary to eth0', 1);
  assert.equal(
    error.message,
    'attach boundary to eth0: EPERM (needs root, or CAP_BPF and CAP_NET_ADMIN)',
  );
  assert.equal(new SystemError('read x', 5).message, 'read x: EIO');
  assert.equal(new SystemError('read x', 5, { hint: 'do y' }).message, 'read x: EIO (do y)');
});

test('a call that fails throws', () => {
  assert.throws(() => openSocket(9999, 1, 0), /open socket .*: EAFNOSUPPORT/);
  assert.throws(() => closeFd(12345), /close descriptor 12345: EBADF/);
});

test('interfaces of this namespace', () => {
  const lo = interfaces().find((i) => i.name === 'lo');
  assert.ok(lo);
  assert.equal(interfaceIndex('lo'), lo.index);
  assert.equal(interfaceIndex('nosuchif0'), undefined);
  assert.equal(hardwareType('lo'), ARPHRD_LOOPBACK);
  assert.throws(() => hardwareType('nosuchif0'), /hardware type of nosuchif0: ENODEV/);
});

for (const [name, domain, host] of [
  ['IPv4', AF_INET, '127.0.0.1'],
  ['IPv6', AF_INET6, '::1'],
] as const) {
  test(`a raw packet arrives as it was sent (${name})`, () => {
    const listener = openSocket(domain, SOCK_RAW, IPPROTO_TCP);
    const sender = new RawSender();
    const packet: Packet = {
      source: address(host),
      sourcePort: 61234,
      destination: address(host),
      destinationPort: 61235,
      flags: 'R', // answered by no one
      seq: seq(1),
      ack: seq(0),
      window: 0,
      options: [],
      payload: Uint8Array.of(1, 2, 3),
    };
    const bytes = encodePacket(packet);
    for (const send of ['toKernel', 'toWire'] as const) {
      sender[send](bytes);
      const received = receiveFrom(listener, 61234);
      const skip = domain === AF_INET ? 20 : 40; // the IPv6 header is not handed to raw sockets
      assert.deepEqual(received.slice(domain === AF_INET ? 20 : 0), bytes.slice(skip));
    }
    sender.close();
    closeFd(listener);
  });
}

/** Loopback delivers at once. */
function receiveFrom(fd: number, port: number): Uint8Array {
  const buffer = Buffer.alloc(2048);
  for (let length = receive(fd, buffer); length >= 0; length = receive(fd, buffer)) {
    const tcp = (buffer[0] ?? 0) >> 4 === 4 && length >= 40 && buffer[9] === IPPROTO_TCP ? 20 : 0;
    if (buffer.readUInt16BE(tcp) === port) return new Uint8Array(buffer.subarray(0, length));
  }
  assert.fail('nothing arrived');
}
