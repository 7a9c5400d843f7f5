/*
 * The order of a commit and its kick, as measured; and what is put into the own kernel.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FLOW_FLAG, type Flow } from '../../src/boundary/abi.gen.js';
import { type Effect, mappingOf, tiackSeq } from '../../src/sync/handshake.js';
import { commitEffects, kickEffects, silentMs } from '../../src/sync/kick.js';
import { pureAck } from '../../src/sync/segments.js';
import { decodePacket } from '../../src/wire/packet.js';
import { seq, seqAdd } from '../../src/wire/seq.js';
import { brief, flows, MOVER_KERNEL, MOVER_WIRE } from './fixture.js';

const commit = (flow: Flow, tiack: number, silentMs = 5000) =>
  commitEffects({
    kernel: MOVER_KERNEL,
    flow,
    mapping: mappingOf(flow, {
      wire: MOVER_WIRE,
      isn: { ours: seq(1), theirs: seq(2) },
      tiack: { sent: 0, received: tiack },
      redirect: false,
    }),
    epoch: 1,
    unproven: true,
    announce: pureAck(MOVER_WIRE, { seq: seq(2), ack: seq(3), window: 1 }),
    silentMs,
  });

const injected = (o: { commit: Effect[]; kick: Effect[] }): Uint8Array[] =>
  [...o.commit, ...o.kick].flatMap((e) => (e.effect === 'inject' ? [e.packet] : []));

test('TIAck = SND.UNA: map, announce, release; then ICMPs, local ACK', () => {
  const { mover } = flows({ moverSent: 10, moverAcked: 4 });
  const { commit: first, kick } = commit(mover, 4);
  assert.deepEqual(brief(first), ['map', 'report mapped', 'send A', 'release']);
  assert.deepEqual(brief(kick), ['inject ICMP x7', 'inject ACK', 'report kicked']);
});

test('TIAck > SND.UNA: hold, ICMPs, two ACKs against F-RTO, map, release; then local ACK', () => {
  const { mover } = flows({ moverSent: 10, moverAcked: 4 });
  const { commit: first, kick } = commit(mover, 9);
  const heard = ['inject ICMP x7', 'inject ACK x2'];
  const swallowed = [...heard, 'map', 'report mapped', 'send A', 'release'];
  assert.deepEqual(brief(first), ['hold', ...swallowed]);
  assert.deepEqual(brief(kick), ['inject ACK', 'report kicked']);
  mover.flags = FLOW_FLAG.HELD;
  assert.deepEqual(brief(commit(mover, 9).commit), swallowed, 'held already');
});

test('as many ICMPs as the kernel can have doubled its timer, and two', () => {
  const { mover } = flows({ moverSent: 10, moverAcked: 4 });
  const counts = [0, 1, 200, 201, 400, 401, 1000, 60_000, 3_600_000].map((silentMs) => [
    silentMs,
    injected(commit(mover, 4, silentMs)).length - 1,
  ]);
  assert.deepEqual(counts, [
    [0, 2],
    [1, 2],
    [200, 2],
    [201, 3],
    [400, 3],
    [401, 4],
    [1000, 5],
    [60_000, 11],
    [3_600_000, 16],
  ]);
});

test('silence is counted from the last packet in, and never negative', () => {
  const { mover } = flows();
  mover.seenIn = 1_500_000_000n;
  assert.equal(silentMs(mover, 2000), 500);
  assert.equal(silentMs(mover, 1000), 0);
});

test('a flow that looks idle is kicked as well: its kernel may have sent what never got here', () => {
  const { mover } = flows({ moverSent: 10, moverAcked: 10 });
  assert.ok(brief(commit(mover, 10).kick).includes('inject ICMP x7'));
});

test('the ICMPs quote SND.UNA in the kernel tuple, and come from the peer: nobody takes them for martians', () => {
  const { mover } = flows({ moverSent: 10, moverAcked: 4 });
  for (const icmp of injected(commit(mover, 9)).slice(0, 7)) {
    assert.deepEqual([icmp[9], icmp[20], icmp[21]], [1, 3, 1], 'host unreachable');
    const text = Buffer.from(icmp).toString('hex');
    assert.equal(text.slice(24, 40), 'cb007107c000020a', 'to the own address, from the peer');
    const quoted = new DataView(icmp.buffer, icmp.byteOffset + 28);
    assert.equal(quoted.getUint32(24), tiackSeq(mover, 4));
    assert.deepEqual([quoted.getUint16(20), quoted.getUint16(22)], [22, 40_000]);
  }
});

test("the local ACK is the peer's, in kernel view, without timestamps", () => {
  const { mover } = flows({ moverSent: 10, moverAcked: 4, moverGot: 7 });
  mover.windowIn = 321;
  const ack = injected(commit(mover, 9)).at(-1);
  assert.ok(ack);
  const packet = decodePacket(ack);
  assert.ok(!('error' in packet));
  assert.equal(packet.source, MOVER_KERNEL.remote);
  assert.equal(packet.destination, MOVER_KERNEL.local);
  assert.equal(packet.flags, 'A');
  assert.equal(packet.seq, mover.rcvNxt);
  assert.equal(packet.ack, tiackSeq(mover, 9));
  assert.equal(packet.window, 321);
  assert.deepEqual(packet.options, []);
});

test('its SEQ is in window also if the last ACKs of the own kernel never got here', () => {
  const { mover } = flows({ moverSent: 10, moverAcked: 4, moverGot: 7 });
  mover.rcvMax = seqAdd(mover.rcvNxt, 1000);
  const ack = decodePacket(injected(commit(mover, 9)).at(-1) ?? new Uint8Array(0));
  assert.ok(!('error' in ack));
  assert.equal(ack.seq, mover.rcvMax);
});

test('its SEQ is in window also if what they are about came by a wire before the last one', () => {
  const { mover } = flows({ moverSent: 10, moverAcked: 4, moverGot: 7 });
  Object.assign(mover, { active: 1, rcvBefore: seqAdd(mover.rcvNxt, 1000) });
  const ack = decodePacket(injected(commit(mover, 9)).at(-1) ?? new Uint8Array(0));
  assert.ok(!('error' in ack));
  assert.equal(ack.seq, mover.rcvBefore);
});

test('the path is back as it was: release, ICMPs, local ACK, and the peer is told', () => {
  const { mover } = flows({ moverSent: 10 });
  const kick = ['inject ICMP x5', 'inject ACK x2', 'report kicked'];
  assert.deepEqual(brief(kickEffects(MOVER_KERNEL, mover, 1000)), kick);
  mover.flags = FLOW_FLAG.HELD;
  assert.deepEqual(brief(kickEffects(MOVER_KERNEL, mover, 1000)), ['release', ...kick]);
});
