/* Raw IP sockets that receive: whose packets, from whom, with which header. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { openRawFrom, receiveFrom, reservePort } from '../../src/libc/inet-socket.js';
import { RawSender } from '../../src/libc/raw.js';
import { closeFd } from '../../src/libc/socket.js';
import { type Address, address } from '../../src/wire/address.js';
import { encodePacket, type Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { ownNetwork, run } from './own-network.js';

ownNetwork();
run('ip', 'addr', 'add', '127.0.0.9/8', 'dev', 'lo');

const TCP = 6;

const syn = (source: Address, destination: Address): Packet => ({
  ...{ source, sourcePort: 40000, destination, destinationPort: 7, flags: 'S', seq: seq(1) },
  ...{ ack: seq(0), window: 1, options: [], payload: new Uint8Array(0) },
});

for (const [own, other, headerBytes] of [
  ['127.0.0.1', '127.0.0.9', 20],
  ['::1', undefined, 0],
] as const) {
  test(`what comes from ${own}, in ${headerBytes === 0 ? 'TCP' : 'IP'}`, () => {
    const fd = openRawFrom(address(own), TCP);
    const sender = new RawSender();
    try {
      if (other !== undefined) sender.toWire(encodePacket(syn(address(other), address(other))));
      const sent = encodePacket(syn(address(own), address(own)));
      sender.toWire(sent);
      const buffer = new Uint8Array(2048);
      const received = receiveFrom(fd, buffer);
      assert.equal(received?.from, own);
      // The kernel fills in the identification, so only what follows the header is compared.
      const segment = buffer.slice(headerBytes, received?.length);
      assert.deepEqual(segment, sent.slice(own.includes(':') ? 40 : 20));
      // The kernel answered with a reset: that came from there as well.
      assert.equal(buffer[headerBytes + 13], 0x02);
      assert.equal(receiveFrom(fd, buffer)?.from, own);
      assert.equal(buffer[headerBytes + 13], 0x14);
      assert.equal(receiveFrom(fd, buffer), undefined);
    } finally {
      sender.close();
      closeFd(fd);
    }
  });

  test(`a port of ${own} that nobody else gets`, async () => {
    const { fd, port } = reservePort(address(own));
    try {
      const server = createServer().listen(port, own);
      const [error] = await once(server, 'error');
      assert.equal((error as NodeJS.ErrnoException).code, 'EADDRINUSE');
    } finally {
      closeFd(fd);
    }
  });
}

test('an address that is not ours has no ports', () => {
  assert.throws(() => reservePort(address('192.0.2.1')), /bind socket .*: EADDRNOTAVAIL/);
});
