/*
 * Codec and notation against the vectors, and the vectors against themselves: every MAC over
 * the bytes that stand in the packets, every delta between the two views of a packet.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { address, addressFromBytes } from '../../src/wire/address.js';
import { internetChecksum, pseudoHeaderSum } from '../../src/wire/checksum.js';
import { packetTooBig } from '../../src/wire/icmp.js';
import { formatPacket, parsePacketLine } from '../../src/wire/notation.js';
import { decodeOptions, encodeOption, type TcpOption, TI } from '../../src/wire/option.js';
import { formatOption, parseOption } from '../../src/wire/option-notation.js';
import {
  checksumsAreRight,
  decodePacket,
  encodePacket,
  type Packet,
} from '../../src/wire/packet.js';
import { type Seq, seq, seqAdd } from '../../src/wire/seq.js';
import {
  fromHex,
  GENERATOR,
  keyVectors,
  macVectors,
  optionVectors,
  type PacketVector,
  type SynchronizationVector,
  setUpVectors,
  synchronizationVectors,
  toHex,
} from './vectors.js';

function decoded(vector: PacketVector): Packet {
  const p = decodePacket(fromHex(vector.hex));
  if ('error' in p) assert.fail(`${p.error}: ${vector.line}`);
  return p;
}

function checkPacket(vector: PacketVector): void {
  const p = decoded(vector);
  assert.ok(checksumsAreRight(fromHex(vector.hex)));
  assert.equal(formatPacket(p), vector.line);
  assert.equal(toHex(encodePacket(p)), vector.hex);
  const fill = () => p.payload;
  assert.equal(toHex(encodePacket(parsePacketLine(vector.line, { ...p, fill }))), vector.hex);
}

test('the vectors are what generate.py makes', (t) => {
  const run = spawnSync('python3', [fileURLToPath(GENERATOR), '--check'], { encoding: 'utf8' });
  if (run.error !== undefined) t.skip('no python3');
  else assert.equal(run.status, 0, run.stderr);
});

for (const vector of optionVectors) {
  test(`option ${vector.name}`, () => {
    const option = parseOption(vector.notation, seq(0));
    assert.ok(option);
    assert.equal(toHex(encodeOption(option)), vector.hex);
    assert.deepEqual(decodeOptions(fromHex(vector.hex), vector.flags), [option]);
    assert.equal(formatOption(option, seq(0)), vector.notation);
  });
}

const hmac = (key: Uint8Array, bytes: Uint8Array): string =>
  createHmac('sha256', key).update(bytes).digest('hex');

for (const vector of keyVectors) {
  test(`keys: ${vector.name}`, () => {
    const [initiator, responder] = [vector.initiator_open, vector.responder_open].map(fromHex);
    assert.ok(initiator && responder);
    const isNone = initiator[6] !== responder[6];
    assert.equal(vector.key_root === null, isNone);
    if (vector.key_root === null) return;
    const psk =
      initiator[6] !== 0 && vector.psk !== null ? fromHex(vector.psk) : new Uint8Array(32);
    const root = hmac(psk, Buffer.concat([Buffer.from('TI1'), initiator, responder]));
    assert.equal(root, vector.key_root);
    assert.equal(hmac(fromHex(root), Buffer.from('TI1 initiator')), vector.key_initiator);
    assert.equal(hmac(fromHex(root), Buffer.from('TI1 responder')), vector.key_responder);
  });
}

for (const vector of macVectors) {
  test(`MAC of ${vector.name}`, () => {
    const whole = hmac(fromHex(vector.key), fromHex(vector.covered));
    assert.equal(whole.slice(0, vector.mac.length), vector.mac);
  });
}

for (const vector of setUpVectors) {
  test(`set-up: ${vector.name}`, () => {
    checkPacket(vector.kernel);
    checkPacket(vector.wire);
    const [kernel, wire] = [decoded(vector.kernel), decoded(vector.wire)];
    assert.deepEqual({ ...wire, options: wire.options.slice(0, -1) }, kernel);
    assert.equal(wire.options.at(-1)?.kind, 'ti-open');
  });
}

/** The bytes of the TI option on the packet called `name`. */
function tiBytes(vector: SynchronizationVector, name: string): Uint8Array {
  const row = vector.packets.find((packet) => packet.name === name);
  assert.ok(row);
  const option = decoded(row).options.find((o) => o.kind.startsWith('ti-'));
  assert.ok(option);
  return encodeOption(option);
}

/** Kernel view to wire view of what the mover or the peer sends. */
function rewrite(
  p: Packet,
  deltas: { snd_delta: number; rcv_delta: number },
  wire: Packet,
): Packet {
  const translate = (s: Seq) => seqAdd(s, deltas.rcv_delta);
  const { source, sourcePort, destination, destinationPort } = wire;
  return {
    ...p,
    ...{ source, sourcePort, destination, destinationPort },
    seq: seqAdd(p.seq, deltas.snd_delta),
    ack: translate(p.ack),
    options: p.options.map(
      (o): TcpOption =>
        o.kind === 'sack'
          ? { kind: 'sack', blocks: o.blocks.map(([a, b]) => [translate(a), translate(b)]) }
          : o,
    ),
  };
}

for (const vector of synchronizationVectors) {
  test(`synchronization, packets: ${vector.name}`, () => {
    for (const row of vector.packets) checkPacket(row);
  });

  test(`synchronization, MACs: ${vector.name}`, () => {
    const mac = (name: string) => macVectors.find((row) => row.name === name);
    const [syn, synAck, confirm, rst] = ['SYN', 'SYN/ACK', 'CONFIRM', 'TI_RST'].map((name) => ({
      row: mac(`${name}, the ${vector.mover} moves`),
      option: tiBytes(vector, name),
    }));
    assert.ok(syn && synAck && confirm && rst);
    const covered = [
      { ...syn, before: [], after: [], unsigned: TI.unsigned.sync },
      { ...synAck, before: [], after: [syn.option], unsigned: TI.unsigned.syncAck },
      {
        ...confirm,
        before: [syn.option, synAck.option],
        after: [],
        unsigned: TI.unsigned.confirm,
      },
      { ...rst, before: [], after: [], unsigned: TI.unsigned.rst },
    ];
    for (const { row, option, before, after, unsigned } of covered) {
      const own = option.slice(0, unsigned);
      assert.equal(toHex(Buffer.concat([...before, own, ...after])), row?.covered);
      assert.equal(toHex(option.slice(unsigned)), row?.mac);
    }
  });

  test(`synchronization, data: ${vector.name}`, () => {
    for (const row of vector.data) {
      checkPacket(row.kernel);
      checkPacket(row.wire);
      const [kernel, wire] = [decoded(row.kernel), decoded(row.wire)];
      assert.deepEqual(rewrite(kernel, vector.deltas[row.sender], wire), wire);
    }
  });

  test(`synchronization, deltas: ${vector.name}`, () => {
    const { mover, peer } = vector.deltas;
    assert.equal(mover.snd_delta, peer.rcv_delta);
    assert.equal(mover.rcv_delta, peer.snd_delta);
    // The first byte that is not yet acknowledged goes out as the first one of the connection.
    assert.equal(seqAdd(seq(mover.snd_base), mover.snd_delta), seq(vector.wire_isn_mover + 1));
    assert.equal(seqAdd(seq(peer.snd_base), peer.snd_delta), seq(vector.wire_isn_peer + 1));
  });

  test(`synchronization, ICMP: ${vector.name}`, () => {
    const [sent] = vector.data;
    const [error] = vector.icmp;
    assert.ok(sent && error);
    const from = address(vector.family === 'ipv4' ? '198.51.100.1' : '2001:db8:b::1');
    assert.equal(toHex(packetTooBig(fromHex(sent.wire.hex), from, 1400)), error.wire);
    const kernel = packetTooBig(fromHex(sent.kernel.hex), from, 1400);
    // An IPv6 error quotes more than is translated: ACK, SACK blocks and TCP checksum stay.
    const [ip, quote] = vector.family === 'ipv4' ? [20, 20 + 8] : [40, 40 + 8];
    const at = (bytes: Uint8Array) => toHex(bytes.subarray(ip + 8, ip + 8 + quote));
    const seen = fromHex(error.kernel);
    assert.equal(at(seen), at(kernel));
    assert.equal(toHex(seen.subarray(0, ip)), toHex(kernel.subarray(0, ip)));
    const to = vector.family === 'ipv4' ? [] : [kernelAddress(seen)];
    const pseudo = to.map((a) => pseudoHeaderSum(from, a, 58, seen.length - ip))[0];
    assert.equal(internetChecksum(seen.subarray(ip), pseudo), 0);
  });
}

/** The destination of an IPv6 packet. */
const kernelAddress = (bytes: Uint8Array) => addressFromBytes(bytes.subarray(24, 40));
