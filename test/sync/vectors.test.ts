/*
 * The test vectors, which are made from docs/PROTOCOL.md and not from this code: keys, MACs, and
 * whole synchronizations, byte for byte.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ROLE, type TiOpen } from '../../src/boundary/abi.gen.js';
import type { EndKeys } from '../../src/sync/attempt.js';
import { REFUSAL } from '../../src/sync/handshake.js';
import {
  type Confirm,
  commonKeyId,
  deriveKeys,
  type Sync,
  signConfirm,
  signRst,
  signSync,
  signSyncAck,
} from '../../src/sync/keys.js';
import { newMover, stepMover } from '../../src/sync/mover.js';
import { stepResponder } from '../../src/sync/responder.js';
import { decodeOptions } from '../../src/wire/option.js';
import { decodePacket, encodePacket, type Packet } from '../../src/wire/packet.js';
import { seq, seqAdd } from '../../src/wire/seq.js';
import { tupleReverse } from '../../src/wire/tuple.js';
import { incoming, outgoing } from '../sim/boundary-model.js';
import { openedFlow, tiOpen } from '../sim/opened-flow.js';
import {
  fromHex,
  keyVectors,
  macVectors,
  type SynchronizationVector,
  synchronizationVectors,
  toHex,
} from '../wire/vectors.js';
import { optionOf, packetEvent } from './fixture.js';

for (const v of keyVectors) {
  test(`keys: ${v.name}`, () => {
    const opens = [fromHex(v.initiator_open), fromHex(v.responder_open)] as const;
    const keyId = commonKeyId(openOf(v.initiator_open), openOf(v.responder_open));
    assert.equal(keyId === undefined, v.key_root === null);
    if (keyId === undefined) return;
    const psk = v.psk === null || keyId === 0 ? undefined : fromHex(v.psk);
    const keys = deriveKeys(...opens, psk);
    assert.equal(toHex(keys.initiator), v.key_initiator);
    assert.equal(toHex(keys.responder), v.key_responder);
  });
}

test('MACs cover what the vectors say', () => {
  for (const group of [macVectors.slice(0, 4), macVectors.slice(4)]) {
    const [syn, synAck, confirm, rst] = group;
    assert.ok(syn && synAck && confirm && rst);
    const option = <T>(covered: string, length: number, mac: string, flags: string): T => {
      const own = covered.slice(0, 2 * length);
      const options = decodeOptions(fromHex(own + mac), flags);
      assert.ok(!('error' in options));
      return options[0] as T;
    };
    const sync = option<Sync>(syn.covered, 23, syn.mac, 'S');
    const ack = option<Parameters<typeof signSyncAck>[1]>(synAck.covered, 15, synAck.mac, 'SA');
    assert.equal(toHex(signSync(fromHex(syn.key), sync).mac), syn.mac);
    const signedAck = signSyncAck(fromHex(synAck.key), ack, sync);
    assert.equal(toHex(signedAck.mac), synAck.mac);
    const { epoch } = sync;
    const signed = signConfirm(fromHex(confirm.key), { kind: 'ti-confirm', epoch }, [
      sync,
      signedAck,
    ]);
    assert.equal(toHex(signed.mac), confirm.mac);
    const reason = REFUSAL.tiack;
    const reset = signRst(fromHex(rst.key), { kind: 'ti-rst', reason, epoch });
    assert.equal(toHex(reset.mac), rst.mac);
  }
});

const openOf = (hex: string): TiOpen => {
  const options = decodeOptions(fromHex(hex), 'S');
  const open = 'error' in options ? undefined : options[0];
  assert.ok(open?.kind === 'ti-open');
  return tiOpen(open.tifidHalf, open.keyHalf, open.keyId);
};

const packetOf = (v: SynchronizationVector, name: string): { hex: string; packet: Packet } => {
  const found = v.packets.find((p) => p.name === name);
  assert.ok(found);
  const packet = decodePacket(fromHex(found.hex));
  assert.ok(!('error' in packet));
  return { hex: found.hex, packet };
};

/** Both ends as the vector has them before the move. */
function endsOf(v: SynchronizationVector) {
  const opens = { initiator: openOf(v.initiator_open), responder: openOf(v.responder_open) };
  const isInitiator = v.mover === 'initiator';
  const [iss, irs] = isInitiator
    ? [seq(v.iss_initiator), seq(v.iss_responder)]
    : [seq(v.iss_responder), seq(v.iss_initiator)];
  const first = v.data[0];
  assert.ok(first);
  const inside = decodePacket(fromHex(first.kernel.hex));
  assert.ok(!('error' in inside));
  const kernel = outgoing(inside);
  const epoch = v.epoch - 1;
  const role = isInitiator ? ROLE.INITIATOR : ROLE.RESPONDER;
  const other = isInitiator ? ROLE.RESPONDER : ROLE.INITIATOR;
  const mover = openedFlow({ ...opens, kernel, role, iss, irs, epoch });
  const peer = openedFlow({
    ...opens,
    kernel: tupleReverse(kernel),
    role: other,
    iss: irs,
    irs: iss,
    epoch,
  });
  mover.rcvNxt = peer.sndNxt = seqAdd(irs, 1 + v.tiack_mover);
  peer.rcvNxt = mover.sndNxt = seqAdd(iss, 1 + v.tiack_peer);
  mover.windowOut = packetOf(v, 'CONFIRM').packet.window;
  peer.mssOut = v.family === 'ipv4' ? 1460 : 1440;
  peer.windowOut = packetOf(v, 'ACK').packet.window;
  const keys = deriveKeys(
    fromHex(v.initiator_open),
    fromHex(v.responder_open),
    v.psk === null ? undefined : fromHex(v.psk),
  );
  const [ours, theirs] = isInitiator
    ? [keys.initiator, keys.responder]
    : [keys.responder, keys.initiator];
  return { mover, peer, kernel, keys: { ours, theirs }, peerKeys: { ours: theirs, theirs: ours } };
}

const word = (hex: string): number => Buffer.from(hex, 'hex').readUInt32BE();

for (const v of synchronizationVectors) {
  test(`synchronization: ${v.name}`, () => {
    const { mover, peer, kernel, keys, peerKeys } = endsOf(v);
    const wire = outgoing(packetOf(v, 'SYN').packet);
    const isn = seq(v.wire_isn_mover);
    const nonce = word(v.nonce_mover);
    const drawn = { held: true, wire, isn, nonce, pending: [], mtu: 1500, redirect: false, way: 0 };
    const draw = { kernel, flow: mover, keys, ...drawn };
    const sent = stepMover(newMover(), { event: 'begin', draw });
    assert.ok(sent.next.state === 'syn-sent');
    assert.equal(toHex(encodePacket(sent.next.attempt.syn)), packetOf(v, 'SYN').hex);

    const { packet } = packetOf(v, 'SYN');
    const syn = {
      ...{ packet, sync: optionOf<Sync>(packet, 'ti-sync'), kernel: tupleReverse(kernel) },
      ...{ wire: incoming(packet), flow: peer, keys: peerKeys },
      ...{ isn: seq(v.wire_isn_peer), nonce: word(v.nonce_peer), objection: () => undefined },
    };
    const pending = stepResponder({ state: 'listening' }, { event: 'syn', syn });
    assert.ok(pending.next.state === 'pending');
    const { synAck } = pending.next.candidate;
    assert.equal(toHex(encodePacket(synAck)), packetOf(v, 'SYN/ACK').hex);

    const confirming = stepMover(sent.next, packetEvent(synAck, mover));
    assert.ok(confirming.next.state === 'confirming');
    assert.equal(toHex(encodePacket(confirming.next.confirm)), packetOf(v, 'CONFIRM').hex);
    checkMapping(v, 'mover', confirming.effects);

    const confirm = packetOf(v, 'CONFIRM').packet;
    const committed = stepResponder(pending.next, {
      ...{ event: 'confirm', packet: confirm, flow: peer, redirect: false, silentMs: 0 },
      objection: () => undefined,
      confirm: optionOf<Confirm>(confirm, 'ti-confirm'),
    });
    assert.equal(committed.next.state, 'committed');
    checkMapping(v, 'peer', committed.effects);
    const ack = committed.effects.find((e) => e.effect === 'send');
    assert.ok(ack);
    assert.equal(toHex(encodePacket(ack.packet)), packetOf(v, 'ACK').hex);
  });

  test(`refusals: ${v.name}`, () => {
    const { mover, peer, kernel, peerKeys } = endsOf(v);
    const { packet } = packetOf(v, 'SYN');
    const answer = (keys: EndKeys): string | undefined => {
      const sync = optionOf<Sync>(packet, 'ti-sync');
      const wire = incoming(packet);
      const own = { kernel: tupleReverse(kernel), flow: peer, isn: mover.iss, nonce: 1 };
      const syn = { packet, sync, wire, keys, ...own, objection: () => undefined };
      const { effects } = stepResponder({ state: 'listening' }, { event: 'syn', syn });
      const sent = effects.find((e) => e.effect === 'send' || e.effect === 'refuse');
      return sent && toHex(encodePacket(sent.packet));
    };
    peer.sndNxt = seqAdd(peer.sndNxt, -1);
    assert.equal(answer(peerKeys), packetOf(v, 'TI_RST').hex);
    const strangers = { ours: peerKeys.theirs, theirs: peerKeys.ours };
    assert.equal(answer(strangers), packetOf(v, 'RST').hex);
  });
}

function checkMapping(
  v: SynchronizationVector,
  who: 'mover' | 'peer',
  effects: ReturnType<typeof stepMover>['effects'],
): void {
  const map = effects.find((e) => e.effect === 'map');
  assert.ok(map);
  const { sndDelta, rcvDelta, sndBase, rcvBase } = map.mapping;
  assert.deepEqual(
    { snd_delta: sndDelta, rcv_delta: rcvDelta, snd_base: sndBase, rcv_base: rcvBase },
    v.deltas[who],
  );
  assert.equal(map.epoch, v.epoch);
  assert.equal(map.unproven, who === 'mover');
}
