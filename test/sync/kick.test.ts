/*
 * The order of a commit and its kick, as measured; and what is put into the own kernel.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FLOW_FLAG, type Flow } from '../../src/boundary/abi.gen.js';
import { mappingOf, tiackSeq } from '../../src/sync/handshake.js';
import { commitEffects, kickEffects } from '../../src/sync/kick.js';
import { pureAck } from '../../src/sync/segments.js';
import { decodePacket } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { brief, flows, MOVER_KERNEL, MOVER_WIRE } from './fixture.js';

const commit = (flow: Flow, tiack: number) =>
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
  });

const injected = (effects: ReturnType<typeof commit>): Uint8Array[] =>
  effects.flatMap((e) => (e.effect === 'inject' ? [e.packet] : []));

test('TIAck = SND.UNA: map, announce, release, then a burst', () => {
  const { mover } = flows({ moverSent: 10, moverAcked: 4 });
  assert.deepEqual(brief(commit(mover, 4)), [
    'map',
    'report mapped',
    'send A',
    'release',
    'inject x5',
    'report kicked',
  ]);
});

test('TIAck > SND.UNA: hold, burst, map, announce, local ACK, release', () => {
  const { mover } = flows({ moverSent: 10, moverAcked: 4 });
  const effects = commit(mover, 9);
  assert.deepEqual(brief(effects), [
    'hold',
    'inject x16',
    'map',
    'report mapped',
    'send A',
    'inject',
    'release',
    'report kicked',
  ]);
});

test('a flow that looks idle is kicked as well: its kernel may have sent what never got here', () => {
  const { mover } = flows({ moverSent: 10, moverAcked: 10 });
  assert.ok(brief(commit(mover, 10)).includes('inject x5'));
});

test('the ICMPs quote SND.UNA in the kernel tuple, and come from the own address', () => {
  const { mover } = flows({ moverSent: 10, moverAcked: 4 });
  for (const icmp of injected(commit(mover, 9)).slice(0, 16)) {
    assert.deepEqual([icmp[9], icmp[20], icmp[21]], [1, 3, 1], 'host unreachable');
    const text = Buffer.from(icmp).toString('hex');
    assert.equal(text.slice(24, 40), 'c000020ac000020a', 'to the own address, from it');
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

test('what a former local ACK has acknowledged is not acknowledged again', () => {
  const { mover } = flows({ moverSent: 10, moverAcked: 4 });
  mover.active = 1;
  mover.mapping[0].sndBase = tiackSeq(mover, 9);
  assert.ok(!brief(commit(mover, 9)).includes('hold'));
});

test('the path is back as it was: release what is held, and a burst', () => {
  const { mover } = flows({ moverSent: 10 });
  assert.deepEqual(brief(kickEffects(MOVER_KERNEL, mover)), ['inject x5', 'report kicked']);
  mover.flags = FLOW_FLAG.HELD;
  const held = ['release', 'inject x5', 'report kicked'];
  assert.deepEqual(brief(kickEffects(MOVER_KERNEL, mover)), held);
});
