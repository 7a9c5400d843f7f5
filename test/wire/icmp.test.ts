/* ICMP errors for our own kernel: type, code, quote, checksum, for both families. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { address } from '../../src/wire/address.js';
import { internetChecksum, pseudoHeaderSum } from '../../src/wire/checksum.js';
import { hostUnreachable, packetTooBig } from '../../src/wire/icmp.js';
import { encodePacket, type Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';

const ROUTER4 = address('192.0.2.1');
const ROUTER6 = address('2001:db8:1::1');

const lost = (local: string, remote: string, length: number): Uint8Array => {
  const p: Packet = {
    source: address(local),
    sourcePort: 22,
    destination: address(remote),
    destinationPort: 40000,
    flags: 'A',
    seq: seq(0xfffffff0),
    ack: seq(1),
    window: 1,
    options: [],
    payload: new Uint8Array(length).fill(0xaa),
  };
  return encodePacket(p);
};

const LOST4 = lost('192.0.2.10', '203.0.113.7', 100);
const LOST6 = lost('2001:db8:1::10', '2001:db8:3::7', 1400);

test('IPv4 host unreachable goes to the sender of what it quotes: header and 8 bytes', () => {
  const bytes = hostUnreachable(LOST4, ROUTER4);
  assert.equal(bytes.length, 20 + 8 + 28);
  assert.deepEqual([...bytes.subarray(12, 20)], [192, 0, 2, 1, 192, 0, 2, 10]);
  assert.equal(bytes[9], 1);
  assert.deepEqual([...bytes.subarray(20, 22)], [3, 1]);
  assert.deepEqual(bytes.subarray(28), LOST4.subarray(0, 28));
  assert.equal(internetChecksum(bytes.subarray(0, 20)), 0);
  assert.equal(internetChecksum(bytes.subarray(20)), 0);
});

test('IPv6 no route quotes as much as fits the minimum MTU', () => {
  const bytes = hostUnreachable(LOST6, ROUTER6);
  assert.equal(bytes.length, 1280);
  assert.equal(bytes[6], 58);
  assert.deepEqual(bytes.subarray(24, 40), LOST6.subarray(8, 24));
  assert.deepEqual([...bytes.subarray(40, 42)], [1, 0]);
  assert.deepEqual(bytes.subarray(48), LOST6.subarray(0, 1232));
  const pseudo = pseudoHeaderSum(ROUTER6, address('2001:db8:1::10'), 58, 1240);
  assert.equal(internetChecksum(bytes.subarray(40), pseudo), 0);
});

test('IPv6 quotes a small packet whole', () => {
  const small = lost('2001:db8:1::10', '2001:db8:3::7', 0);
  assert.deepEqual(hostUnreachable(small, ROUTER6).subarray(48), small);
});

test('too big says the MTU where each family looks for it', () => {
  const four = packetTooBig(LOST4, ROUTER4, 1400);
  assert.deepEqual([...four.subarray(20, 22)], [3, 4]);
  assert.deepEqual([...four.subarray(24, 28)], [0, 0, 1400 >> 8, 1400 & 0xff]);
  assert.equal(internetChecksum(four.subarray(20)), 0);
  const six = packetTooBig(LOST6, ROUTER6, 1400);
  assert.deepEqual([...six.subarray(40, 42)], [2, 0]);
  assert.deepEqual([...six.subarray(44, 48)], [0, 0, 1400 >> 8, 1400 & 0xff]);
});

test('a packet cut off behind its headers can be quoted', () => {
  const cut = LOST4.subarray(0, 40);
  assert.deepEqual(hostUnreachable(cut, ROUTER4), hostUnreachable(LOST4, ROUTER4));
});

test('what is no packet, or of another family, is a mistake of the caller', () => {
  assert.throws(() => hostUnreachable(new Uint8Array(10), ROUTER4), TypeError);
  assert.throws(() => hostUnreachable(LOST6, ROUTER4), TypeError);
  assert.throws(() => packetTooBig(LOST4, ROUTER6, 1400), TypeError);
});
