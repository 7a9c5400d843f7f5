/*
 * The mover once it has mapped: until a packet comes over the new wire, or it begins anew.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { REFUSAL } from '../../src/sync/handshake.js';
import { signRst } from '../../src/sync/keys.js';
import {
  CONFIRM_TRIES_MAX,
  duesOf,
  type Mover,
  newestEpoch,
  stepMover,
} from '../../src/sync/mover.js';
import { resetOf } from '../../src/sync/segments.js';
import { seq, seqAdd } from '../../src/wire/seq.js';
import {
  accepted,
  brief,
  type Confirming,
  flows,
  keysOf,
  on,
  onPacket,
  synAckTo,
  synSent,
  tampered,
} from './fixture.js';

/** A mover whose lead is over. */
function kicked(f = flows()): Confirming {
  const { next } = on(accepted(f).next, 'timer');
  assert.ok(next.state === 'confirming');
  return next;
}

const KICK = ['inject ICMP x2', 'inject ACK', 'report kicked'];

describe('confirming, the kick is due', () => {
  test('proven: kicked at once', () => {
    const { next, effects } = on(accepted(flows()).next, 'proven');
    assert.deepEqual(next, { state: 'proven' });
    assert.deepEqual(brief(effects), [...KICK, 'disarm', 'report proven']);
  });

  test('the lead is over: kicked, once; the timer goes on as for the CONFIRM', () => {
    const { next, effects } = on(accepted(flows()).next, 'timer');
    assert.ok(next.state === 'confirming');
    assert.deepEqual(brief(effects), [...KICK, 'arm 245']);
    assert.deepEqual(next.kick, []);
    assert.deepEqual(brief(on(next, 'proven').effects), ['disarm', 'report proven']);
    assert.equal(brief(on(next, 'timer').effects)[0], 'send A ti-confirm');
  });

  test('the lead is longer while other flows wait for the same peer', () => {
    const { next, effects } = accepted(flows(), { waiting: 63 });
    assert.ok(brief(effects).includes('arm 36.5'));
    assert.equal(brief(on(next, 'timer').effects).at(-1), 'arm 213.5');
  });

  test('the same SYN/ACK again: CONFIRM again, and the kick comes when it was to come', () => {
    const { next: mover, synAck } = accepted(flows());
    const { next, effects } = onPacket(mover, synAck);
    assert.deepEqual(next, mover);
    assert.deepEqual(brief(effects), ['send A ti-confirm', 'report confirm-sent']);
  });

  test('a new attempt begins: not kicked', () => {
    const { next: mover } = accepted(flows());
    for (const event of ['refused', 'superseded'] as const) {
      const { next, effects } = on(mover, event);
      assert.equal(next.state, 'waiting');
      assert.ok(!brief(effects).some((line) => line.startsWith('inject')));
    }
  });

  test('the peer cannot go on: not kicked', () => {
    const f = flows();
    const { next: mover } = accepted(f);
    const option = { kind: 'ti-rst', reason: REFUSAL.tiack, epoch: mover.attempt.epoch } as const;
    const rst = resetOf(mover.confirm, signRst(keysOf(f.peer).ours, option));
    const { next, effects } = onPacket(mover, rst);
    assert.deepEqual(next, { state: 'failed', why: 'reset' });
    assert.deepEqual(brief(effects), ['disarm', 'report failed reset final']);
  });

  test('ended from outside: kicked, for its kernel must hear of the ACK', () => {
    const { next: mover } = accepted(flows());
    assert.deepEqual(brief(duesOf(mover)), ['release', ...KICK]);
    assert.deepEqual(brief(duesOf(on(mover, 'timer').next)), ['release']);
    assert.deepEqual(brief(duesOf(synSent(flows().mover))), ['release']);
  });
});

describe('confirming, kicked', () => {
  test('timer: the same CONFIRM, with backoff; then a new attempt with a higher epoch', () => {
    let state: Mover = kicked();
    const pauses: string[] = [];
    for (let tries = 2; tries <= CONFIRM_TRIES_MAX; tries++) {
      const { next, effects } = on(state, 'timer');
      assert.equal(brief(effects)[0], 'send A ti-confirm');
      pauses.push(...brief(effects).filter((line) => line.startsWith('arm')));
      state = next;
    }
    assert.deepEqual(pauses, ['arm 500', 'arm 1000', 'arm 2000', 'arm 2000']);
    const { next, effects } = on(state, 'timer');
    assert.deepEqual(brief(effects), ['report failed unconfirmed', 'disarm', 'begin']);
    assert.equal(newestEpoch(next), 1);
  });

  test('the same SYN/ACK again: CONFIRM again, and the timer goes on', () => {
    const { synAck } = accepted(flows());
    const mover = kicked();
    const { next, effects } = onPacket(mover, synAck);
    assert.deepEqual(next, mover);
    assert.deepEqual(brief(effects), ['send A ti-confirm', 'report confirm-sent']);
  });

  test('another valid SYN/ACK: the peer has lost its memory', () => {
    const f = flows();
    const mover = kicked(f);
    const sent = synSent(f.mover);
    for (const change of [{ nonce: 1 }, { isn: seq(1) }]) {
      const { effects } = onPacket(mover, synAckTo(sent, f.peer, change));
      assert.deepEqual(brief(effects), ['report failed peer-restarted', 'disarm', 'begin']);
    }
  });

  test('SYN/ACKs that are not valid are nothing', () => {
    const { next: mover, synAck } = accepted(flows());
    const wrong = [
      { ...synAck, options: [] },
      tampered(synAck, { mac: new Uint8Array(16) }),
      { ...synAck, ack: seqAdd(synAck.ack, 1) },
      { ...synAck, flags: 'A' },
    ];
    for (const packet of wrong) {
      assert.deepEqual(onPacket(mover, packet), { next: mover, effects: [] });
    }
  });

  test('resets count if they answer the CONFIRM', () => {
    const f = flows();
    const mover = kicked(f);
    assert.deepEqual(brief(onPacket(mover, resetOf(mover.confirm)).effects), [
      'report failed refused',
      'arm 250',
    ]);
    const other = { ...resetOf(mover.confirm), seq: seq(1) };
    assert.deepEqual(onPacket(mover, other), { next: mover, effects: [] });
    const option = { kind: 'ti-rst', reason: REFUSAL.tiack, epoch: mover.attempt.epoch } as const;
    const rst = resetOf(mover.confirm, signRst(keysOf(f.peer).ours, option));
    const { next, effects } = onPacket(mover, rst);
    assert.deepEqual(next, { state: 'failed', why: 'reset' });
    assert.deepEqual(brief(effects), ['disarm', 'report failed reset final']);
  });

  test('refused, superseded', () => {
    const mover = kicked();
    assert.deepEqual(brief(on(mover, 'refused').effects), ['report failed refused', 'arm 250']);
    assert.deepEqual(brief(on(mover, 'superseded').effects), [
      'report failed stale-epoch',
      'disarm',
      'begin',
    ]);
  });

  test('a mapping that was not committed gives its wire back', () => {
    const { next: mover } = accepted(flows());
    assert.deepEqual(brief(stepMover(mover, { event: 'effect-failed', why: 'full' }).effects), [
      'delete-wire',
      'report failed table-full',
      'arm 250',
    ]);
    const stale = stepMover(mover, { event: 'effect-failed', why: 'stale-epoch' });
    assert.deepEqual(brief(stale.effects), [
      'delete-wire',
      'report failed stale-epoch',
      'disarm',
      'begin',
    ]);
  });
});
