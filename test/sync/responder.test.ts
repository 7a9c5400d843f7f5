/*
 * The responder: every transition of the graph in responder.ts, the order of its checks, and
 * what must move nothing.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { FLOW_FLAG, type Flow } from '../../src/boundary/abi.gen.js';
import { REFUSAL } from '../../src/sync/handshake.js';
import {
  type Confirm,
  isRstFrom,
  type Rst,
  type Sync,
  signRst,
  signSync,
} from '../../src/sync/keys.js';
import {
  answerRepeatedConfirm,
  type Responder,
  type ResponderEvent,
  stepResponder,
} from '../../src/sync/responder.js';
import { resetOf } from '../../src/sync/segments.js';
import { decodePacket, type Packet } from '../../src/wire/packet.js';
import { seq, seqAdd } from '../../src/wire/seq.js';
import {
  accepted,
  answered,
  brief,
  candidateOf,
  confirmEvent,
  flows,
  ISN_MOVER,
  ISN_PEER,
  keysOf,
  MOVER_KERNEL,
  optionOf,
  PEER_WIRE,
  synOf,
  synSent,
} from './fixture.js';

/** A SYN whose TI_SYNC is changed, and signed again unless a MAC is given. */
function synWith(f: { mover: Flow }, change: Partial<Sync>): Packet {
  const { attempt } = synSent(f.mover);
  const sync = { ...attempt.sync, ...change };
  const signed = change.mac === undefined ? signSync(attempt.keys.ours, sync) : sync;
  const options = attempt.syn.options.map((o) => (o.kind === 'ti-sync' ? signed : o));
  return { ...attempt.syn, options };
}

/** A pending candidate at the peer, and the CONFIRM that commits it. */
function pending(f: { mover: Flow; peer: Flow }): { responder: Responder; confirm: Packet } {
  const { syn } = synSent(f.mover).attempt;
  const candidate = candidateOf(f.peer, syn);
  return { responder: { state: 'pending', candidate }, confirm: accepted(f).next.confirm };
}

describe('listening', () => {
  test('a valid SYN: a candidate and one SYN/ACK', () => {
    const f = flows({ peerGot: 7, moverSent: 7 });
    const { next, effects } = answered(f.peer, synSent(f.mover).attempt.syn);
    assert.ok(next.state === 'pending');
    assert.deepEqual(brief(effects), ['set-wire', 'send SA ti-sync-ack', 'report candidate']);
    const { synAck, syncAck } = next.candidate;
    assert.equal(syncAck.tiack, 7);
    assert.equal(synAck.seq, ISN_PEER);
    assert.equal(synAck.ack, seqAdd(ISN_MOVER, 1));
    assert.deepEqual(
      synAck.options.map((o) => o.kind),
      ['mss', 'sack-permitted', 'wscale', 'ti-sync-ack'],
    );
  });

  test('a wrong MAC: bare RST', () => {
    const f = flows();
    const { next, effects } = answered(f.peer, synWith(f, { mac: new Uint8Array(8) }));
    assert.equal(next.state, 'gone');
    assert.deepEqual(brief(effects), ['refuse RA', 'report refused bad-mac']);
  });

  test('signed by the wrong direction: bare RST', () => {
    const f = flows();
    const syn = synSent(f.mover, { keys: keysOf(f.peer) }).attempt.syn;
    assert.ok(brief(answered(f.peer, syn).effects).includes('report refused bad-mac'));
  });

  test('an epoch that is not newer: bare RST, for it may be an end that has fallen behind', () => {
    const f = flows();
    f.peer.epoch = 5;
    for (const epoch of [5, 4, 5 + 0x8000]) {
      const { next, effects } = answered(f.peer, synWith(f, { epoch }));
      assert.equal(next.state, 'gone');
      assert.deepEqual(brief(effects), ['refuse RA', 'report refused stale-epoch']);
    }
  });

  test('a flow that was reset here: TI_RST, as a bare reset would not be believed', () => {
    const f = flows();
    f.peer.flags = FLOW_FLAG.RESET;
    const { effects } = answered(f.peer, synSent(f.mover).attempt.syn);
    assert.deepEqual(brief(effects), ['send RA ti-rst', 'report refused ended']);
    const sent = effects.find((e) => e.effect === 'send');
    assert.ok(sent);
    const rst = optionOf<Rst>(sent.packet, 'ti-rst');
    assert.equal(rst.reason, REFUSAL.ended);
    assert.ok(isRstFrom(keysOf(f.mover).theirs, rst));
  });

  test('a TIAck outside [SND.UNA, SND.NXT]: TI_RST that the mover can verify', () => {
    const f = flows({ peerSent: 10, peerAcked: 5 });
    for (const tiack of [4, 11, 0xffff_ffff]) {
      const { effects } = answered(f.peer, synWith(f, { tiack }));
      assert.deepEqual(brief(effects), ['send RA ti-rst', 'report refused invalid-tiack']);
      const sent = effects.find((e) => e.effect === 'send');
      assert.ok(sent);
      const rst = optionOf<Rst>(sent.packet, 'ti-rst');
      assert.ok(isRstFrom(keysOf(f.mover).theirs, rst));
      assert.equal(sent.packet.ack, seqAdd(ISN_MOVER, 1));
    }
    for (const tiack of [5, 10]) {
      assert.equal(answered(f.peer, synWith(f, { tiack })).next.state, 'pending');
    }
  });

  test('the checks have an order: MAC, epoch, TIAck', () => {
    const f = flows();
    f.peer.epoch = 5;
    const mac = new Uint8Array(8);
    const all = answered(f.peer, synWith(f, { mac, epoch: 1, tiack: 99 }));
    assert.deepEqual(brief(all.effects), ['refuse RA', 'report refused bad-mac']);
    const two = answered(f.peer, synWith(f, { epoch: 1, tiack: 99 }));
    assert.deepEqual(brief(two.effects), ['refuse RA', 'report refused stale-epoch']);
  });

  test('anything else is nothing', () => {
    const responder: Responder = { state: 'listening' };
    assert.deepEqual(stepResponder(responder, { event: 'expired' }), {
      next: responder,
      effects: [],
    });
  });
});

describe('pending', () => {
  test('the same SYN: the same SYN/ACK, although more has arrived since', () => {
    const f = flows();
    const { responder } = pending(f);
    assert.ok(responder.state === 'pending');
    f.peer.rcvNxt = seqAdd(f.peer.rcvNxt, 100);
    const syn = synOf(f.peer, synSent(f.mover).attempt.syn, { isn: seq(1), nonce: 1 });
    const { next, effects } = stepResponder(responder, { event: 'syn', syn });
    assert.equal(next, responder);
    assert.deepEqual(effects, [{ effect: 'send', packet: responder.candidate.synAck }]);
  });

  test('another valid SYN from the same port replaces it; an invalid one does not', () => {
    const f = flows();
    const { responder } = pending(f);
    const another = synOf(f.peer, synSent(f.mover, { nonce: 9 }).attempt.syn);
    const replaced = stepResponder(responder, { event: 'syn', syn: another });
    assert.ok(replaced.next.state === 'pending');
    assert.equal(replaced.next.candidate.sync.nonce, 9);
    const forged = synOf(f.peer, synWith(f, { mac: new Uint8Array(8) }));
    const kept = stepResponder(responder, { event: 'syn', syn: forged });
    assert.equal(kept.next, responder);
    assert.deepEqual(brief(kept.effects), ['refuse RA', 'report refused bad-mac']);
  });

  test('a valid CONFIRM commits: mapped before the answer, and the answer begins the wire', () => {
    const f = flows();
    const { responder, confirm } = pending(f);
    const { next, effects } = stepResponder(responder, confirmEvent(confirm, f.peer, true));
    assert.equal(next.state, 'committed');
    assert.deepEqual(brief(effects), [
      'map',
      'report mapped',
      'send A',
      'release',
      'inject ICMP x2',
      'inject ACK',
      'report kicked',
      'report committed',
    ]);
    const map = effects.find((e) => e.effect === 'map');
    assert.deepEqual([map?.unproven, map?.mapping.redirect, map?.epoch], [false, 1, 1]);
    const answer = effects.find((e) => e.effect === 'send');
    assert.equal(answer?.packet.seq, seqAdd(ISN_PEER, 1));
    assert.equal(answer?.packet.ack, seqAdd(ISN_MOVER, 1));
    assert.equal(answer?.packet.window, f.peer.windowOut);
  });

  test("the kernel gets the CONFIRM's window: the one before may have been closed", () => {
    const f = flows();
    f.peer.windowIn = 0;
    f.mover.windowOut = 321;
    const { responder, confirm } = pending(f);
    const { effects } = stepResponder(responder, confirmEvent(confirm, f.peer));
    const ack = effects
      .flatMap((e) => (e.effect === 'inject' ? [decodePacket(e.packet)] : []))
      .at(-1);
    assert.ok(ack !== undefined && !('error' in ack));
    assert.equal(ack.window, 321);
  });

  test('a CONFIRM that does not fit is silence', () => {
    const f = flows();
    const { responder, confirm } = pending(f);
    const wrong: Packet[] = [
      { ...confirm, seq: seqAdd(confirm.seq, 1) },
      { ...confirm, ack: seqAdd(confirm.ack, 1) },
      changed(confirm, { epoch: 2 }),
    ];
    for (const packet of wrong) {
      const step = stepResponder(responder, confirmEvent(packet, f.peer));
      assert.deepEqual(step, { next: responder, effects: [] });
    }
  });

  test('a CONFIRM with a wrong MAC: nothing moves, nothing is sent, the candidate stays', () => {
    const f = flows();
    const { responder, confirm } = pending(f);
    const mac = new Uint8Array(16);
    const step = stepResponder(responder, confirmEvent(changed(confirm, { mac }), f.peer));
    assert.equal(step.next, responder);
    assert.deepEqual(brief(step.effects), ['report refused bad-mac']);
  });

  test('the CONFIRM of another handshake, replayed, has a wrong MAC', () => {
    const f = flows();
    const { confirm } = pending(f);
    const { syn } = synSent(f.mover).attempt;
    const candidate = candidateOf(f.peer, syn, { nonce: 0x1234 });
    const step = stepResponder({ state: 'pending', candidate }, confirmEvent(confirm, f.peer));
    assert.deepEqual(brief(step.effects), ['report refused bad-mac']);
  });

  test('the old path went on acknowledging: two machines hold the flow, this one is refused', () => {
    const f = flows({ peerSent: 10 });
    const { responder, confirm } = pending(f);
    f.peer.sndUna = seqAdd(f.peer.sndUna, 1);
    const { next, effects } = stepResponder(responder, confirmEvent(confirm, f.peer));
    assert.equal(next.state, 'gone');
    assert.deepEqual(brief(effects), [
      'send R ti-rst',
      'report refused invalid-tiack',
      'delete-wire',
    ]);
    const sent = effects.find((e) => e.effect === 'send');
    assert.equal(sent?.packet.seq, confirm.ack, 'where the mover expects it');
  });

  test('the old path went on delivering: commits, with the TIAck that was sent', () => {
    const f = flows({ moverSent: 10 });
    const { responder, confirm } = pending(f);
    f.peer.rcvNxt = seqAdd(f.peer.rcvNxt, 10);
    const { effects } = stepResponder(responder, confirmEvent(confirm, f.peer));
    const map = effects.find((e) => e.effect === 'map');
    assert.equal(map?.mapping.rcvBase, seqAdd(f.peer.irs, 1));
  });

  test('another epoch was committed meanwhile: gone', () => {
    const f = flows();
    const { responder, confirm } = pending(f);
    f.peer.epoch = 1;
    const { next, effects } = stepResponder(responder, confirmEvent(confirm, f.peer));
    assert.equal(next.state, 'gone');
    assert.deepEqual(brief(effects), ['report refused stale-epoch', 'delete-wire']);
  });

  test('time is up, or the wire could not be noted: its wire goes', () => {
    const { responder } = pending(flows());
    assert.deepEqual(brief(stepResponder(responder, { event: 'expired' }).effects), [
      'delete-wire',
    ]);
    const full = stepResponder(responder, { event: 'effect-failed', why: 'full' });
    assert.deepEqual(brief(full.effects), ['report refused table-full', 'delete-wire']);
  });

  test('a valid TI_RST ends it, others do not', () => {
    const f = flows();
    const { responder } = pending(f);
    assert.ok(responder.state === 'pending');
    const { synAck } = responder.candidate;
    const keys = keysOf(f.mover);
    const option = { kind: 'ti-rst', reason: REFUSAL.tiack, epoch: 1 } as const;
    const good = resetOf(synAck, signRst(keys.ours, option));
    const step = stepResponder(responder, { event: 'reset', packet: good });
    assert.deepEqual(brief(step.effects), ['delete-wire']);
    const wrong = [
      resetOf(synAck),
      resetOf(synAck, signRst(keys.theirs, option)),
      resetOf(synAck, signRst(keys.ours, { ...option, epoch: 2 })),
      { ...good, seq: seqAdd(good.seq, 1) },
    ];
    for (const packet of wrong) {
      const ignored = stepResponder(responder, { event: 'reset', packet });
      assert.deepEqual(ignored, { next: responder, effects: [] });
    }
  });
});

test('a mapping that was refused gives its wire back', () => {
  const { responder } = pending(flows());
  assert.ok(responder.state === 'pending');
  const committed: Responder = { state: 'committed', candidate: responder.candidate };
  const { next, effects } = stepResponder(committed, {
    event: 'effect-failed',
    why: 'stale-epoch',
  });
  assert.equal(next.state, 'gone');
  assert.deepEqual(brief(effects), ['report refused stale-epoch', 'delete-wire']);
});

test('nothing moves a responder that is committed or gone', () => {
  const f = flows();
  const { responder, confirm } = pending(f);
  assert.ok(responder.state === 'pending');
  const events: ResponderEvent[] = [
    { event: 'syn', syn: synOf(f.peer, synSent(f.mover).attempt.syn) },
    confirmEvent(confirm, f.peer),
    { event: 'expired' },
    { event: 'reset', packet: confirm },
  ];
  const ends: Responder[] = [
    { state: 'committed', candidate: responder.candidate },
    { state: 'gone' },
  ];
  for (const end of ends) {
    for (const event of events) {
      assert.deepEqual(stepResponder(end, event), { next: end, effects: [] });
    }
  }
});

test('a repeated CONFIRM is answered from the flow alone', () => {
  const f = flows();
  const { responder, confirm } = pending(f);
  const { effects } = stepResponder(responder, confirmEvent(confirm, f.peer));
  const map = effects.find((e) => e.effect === 'map');
  const first = effects.find((e) => e.effect === 'send');
  assert.ok(map && first);
  const o = { packet: confirm, confirm: optionOf<Confirm>(confirm, 'ti-confirm') };
  assert.equal(answerRepeatedConfirm(f.peer, PEER_WIRE, o), undefined, 'not moved');
  f.peer.mapping[0] = map.mapping;
  f.peer.active = 1;
  f.peer.epoch = 1;
  assert.deepEqual(answerRepeatedConfirm(f.peer, PEER_WIRE, o), first.packet);
  assert.equal(answerRepeatedConfirm(f.peer, MOVER_KERNEL, o), undefined, 'another wire');
  f.peer.epoch = 2;
  assert.equal(answerRepeatedConfirm(f.peer, PEER_WIRE, o), undefined, 'another epoch');
  f.peer.epoch = 1;
  for (const change of [{ seq: seq(1) }, { ack: seq(1) }]) {
    const packet = { ...confirm, ...change };
    assert.equal(answerRepeatedConfirm(f.peer, PEER_WIRE, { ...o, packet }), undefined);
  }
});

test('nobody without the key makes a candidate, whatever is changed in a SYN', () => {
  const f = flows({ peerSent: 1000 });
  const { sync } = synSent(f.mover).attempt;
  const change = fc.record(
    {
      epoch: fc.integer({ min: 0, max: 0xffff }),
      tiack: fc.integer({ min: 0, max: 1000 }),
      nonce: fc.integer({ min: 0, max: 0xffff_ffff }),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(change, fc.uint8Array({ minLength: 8, maxLength: 8 }), (fields, mac) => {
      const forged = { ...sync, ...fields, mac: 'epoch' in fields ? sync.mac : mac };
      if (JSON.stringify(forged) === JSON.stringify(sync)) return;
      assert.equal(answered(f.peer, synWith(f, forged)).next.state, 'gone');
    }),
  );
});

const changed = (packet: Packet, change: Partial<Confirm>): Packet => ({
  ...packet,
  options: packet.options.map((o) => (o.kind === 'ti-confirm' ? { ...o, ...change } : o)),
});
