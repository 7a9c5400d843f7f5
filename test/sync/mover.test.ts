/*
 * The mover: every transition of the graph in mover.ts, and what must move nothing.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { NEGOTIATED } from '../../src/boundary/abi.gen.js';
import { REFUSAL } from '../../src/sync/handshake.js';
import { type Sync, type SyncAck, signRst } from '../../src/sync/keys.js';
import {
  abandon,
  BACKOFF_MS,
  type Mover,
  type MoverEvent,
  newestEpoch,
  newMover,
  SYN_TRIES_MAX,
  stepMover,
} from '../../src/sync/mover.js';
import { resetOf } from '../../src/sync/segments.js';
import { encodeOption } from '../../src/wire/option.js';
import { encodePacket, type Packet } from '../../src/wire/packet.js';
import { seq, seqAdd } from '../../src/wire/seq.js';
import {
  accepted,
  begun,
  brief,
  candidateOf,
  drawOf,
  flows,
  ISN_MOVER,
  ISN_PEER,
  keysOf,
  on,
  onPacket,
  optionOf,
  packetEvent,
  synAckTo,
  synSent,
  tampered,
} from './fixture.js';

const bareReset = (mover: ReturnType<typeof synSent>) => resetOf(mover.attempt.syn);

describe('waiting', () => {
  test('begin sends the SYN', () => {
    const { next, effects } = begun(flows().mover);
    assert.equal(next.state, 'syn-sent');
    assert.deepEqual(brief(effects), ['set-wire', 'send S ti-sync', 'arm 250', 'report syn-sent']);
  });

  test('its SYN has all 40 bytes of options, and no timestamps', () => {
    const { attempt } = synSent(flows().mover);
    const kinds = attempt.syn.options.map((o) => o.kind);
    assert.deepEqual(kinds, ['mss', 'sack-permitted', 'wscale', 'ti-sync']);
    const bytes = attempt.syn.options.reduce((sum, o) => sum + encodeOption(o).length, 0);
    assert.equal(bytes, 40);
    assert.equal(encodePacket(attempt.syn).length, 80);
    assert.equal(attempt.syn.options[0]?.kind === 'mss' && attempt.syn.options[0].mss, 1460);
  });

  test('its SYN repeats only what was negotiated', () => {
    const { mover } = flows();
    mover.options = NEGOTIATED.TIMESTAMPS;
    const { attempt } = synSent(mover, { mtu: 1400 });
    assert.deepEqual(
      attempt.syn.options.map((o) => o.kind),
      ['mss', 'ti-sync'],
    );
  });

  test('the epoch goes above the flow, older attempts and open candidates', () => {
    const { mover } = flows();
    mover.epoch = 40_000;
    assert.equal(synSent(mover).attempt.epoch, 40_001);
    assert.equal(synSent(mover, { pending: [40_005] }).attempt.epoch, 40_006);
    const event = { event: 'begin', draw: drawOf(mover) } as const;
    assert.equal(newestEpoch(stepMover(newMover(40_009), event).next), 40_010);
  });

  test('an obstacle is a failed attempt', () => {
    const { next, effects } = stepMover(newMover(), { event: 'obstacle', reason: 'no-port' });
    assert.equal(next.state, 'waiting');
    assert.deepEqual(brief(effects), ['report failed no-port', 'arm 250']);
  });

  test('timer and superseded begin', () => {
    assert.deepEqual(brief(on(newMover(), 'timer').effects), ['begin']);
    assert.deepEqual(brief(on(newMover(), 'superseded').effects), ['begin']);
  });
});

describe('while the old path works', () => {
  const unheld = { held: false };

  test('nothing has gone either way since the SYN: its answer commits', () => {
    const f = flows();
    f.mover.sndUna = f.mover.sndNxt;
    f.peer.rcvNxt = f.mover.sndNxt;
    const mover = synSent(f.mover, unheld);
    assert.equal(onPacket(mover, synAckTo(mover, f.peer), f.mover).next.state, 'confirming');
  });

  test('more has: once more, and held', () => {
    const f = flows();
    const mover = synSent(f.mover, unheld);
    const synAck = synAckTo(mover, f.peer);
    const { next, effects } = onPacket(mover, synAck, {
      ...f.mover,
      rcvNxt: seqAdd(f.mover.rcvNxt, 1),
    });
    assert.deepEqual(next, { state: 'waiting', failures: 0, newest: 1, answered: true });
    assert.deepEqual(brief(effects), ['send R', 'delete-wire', 'disarm', 'begin']);
  });

  test('the old path has told the peer more than the SYN: the same, and no end', () => {
    const { mover } = flows();
    const { attempt } = synSent(mover);
    const rst = signRst(keysOf(mover).theirs, { kind: 'ti-rst', reason: REFUSAL.tiack, epoch: 1 });
    const packet = resetOf(attempt.syn, rst);
    const { next, effects } = onPacket(synSent(mover, unheld), packet, mover);
    assert.ok(next.state === 'waiting' && next.answered);
    assert.deepEqual(brief(effects), ['delete-wire', 'disarm', 'begin']);
    assert.equal(onPacket(synSent(mover), packet, mover).next.state, 'failed');
  });

  test('held, and no answer any more: the old path goes on after 750 ms', () => {
    const { mover } = flows();
    const waiting = { state: 'waiting', failures: 0, newest: 1, answered: true } as const;
    const sent = stepMover(waiting, { event: 'begin', draw: drawOf(mover) });
    const again = on(sent.next, 'timer');
    const { next, effects } = on(again.next, 'timer');
    const arms = [sent, again].flatMap((step) => brief(step.effects).filter((e) => /^arm/.test(e)));
    assert.deepEqual(arms, ['arm 250', 'arm 500']);
    assert.ok(next.state === 'waiting' && !next.answered);
    assert.ok(brief(effects).includes('release'));
  });
});

describe('syn-sent', () => {
  test('no answer: the same SYN, at the pace of the backoff; then a new attempt', () => {
    const { mover } = flows();
    let state: Mover = synSent(mover);
    const first = synSent(mover).attempt.syn;
    const pauses: string[] = [];
    for (let tries = 2; tries <= SYN_TRIES_MAX; tries++) {
      const { next, effects } = on(state, 'timer');
      const sent = effects.find((e) => e.effect === 'send');
      assert.deepEqual(sent?.packet, first);
      pauses.push(...brief(effects).filter((line) => line.startsWith('arm')));
      state = next;
    }
    assert.deepEqual(pauses, ['arm 500', 'arm 1000', 'arm 2000', 'arm 2000']);
    const { next, effects } = on(state, 'timer');
    assert.deepEqual(brief(effects), ['delete-wire', 'report failed no-answer', 'disarm', 'begin']);
    assert.deepEqual(next, {
      state: 'waiting',
      failures: SYN_TRIES_MAX,
      newest: 1,
      answered: false,
    });
    const again = stepMover(next, { event: 'begin', draw: drawOf(mover) });
    assert.ok(brief(again.effects).includes(`arm ${BACKOFF_MS[3]}`), 'the pace stays');
    assert.equal(newestEpoch(again.next), 5);
  });

  test('a peer that is ahead is caught up with: the epoch goes up by more each time', () => {
    const { mover } = flows();
    let state: Mover = { state: 'waiting', failures: 0, newest: undefined, answered: false };
    const epochs: (number | undefined)[] = [];
    for (let i = 0; i < 6; i++) {
      const begun: Mover = stepMover(state, { event: 'begin', draw: drawOf(mover) }).next;
      epochs.push(newestEpoch(begun));
      state = { state: 'waiting', failures: i + 1, newest: newestEpoch(begun), answered: false };
    }
    assert.deepEqual(epochs, [1, 2, 4, 8, 12, 16]);
  });

  test('a valid SYN/ACK: map before CONFIRM, held until after it; the kick is due', () => {
    const { next, effects } = accepted(flows());
    assert.equal(next.state, 'confirming');
    assert.deepEqual(brief(effects), [
      'report syn-ack-received',
      'map',
      'report mapped',
      'send A ti-confirm',
      'release',
      'arm 5',
      'report confirm-sent',
    ]);
    const kick = ['inject ICMP x2', 'inject ACK', 'report kicked'];
    assert.deepEqual(brief(next.kick), kick);
    const map = effects.find((e) => e.effect === 'map');
    assert.ok(map?.unproven);
    assert.equal(next.confirm.seq, seqAdd(ISN_MOVER, 1));
    assert.equal(next.confirm.ack, seqAdd(ISN_PEER, 1));
  });

  test('a bare RST: backs off and begins anew', () => {
    const mover = synSent(flows().mover);
    const { next, effects } = onPacket(mover, bareReset(mover));
    assert.deepEqual(brief(effects), ['delete-wire', 'report failed refused', 'arm 250']);
    assert.deepEqual(next, { state: 'waiting', failures: 1, newest: 1, answered: false });
  });

  test('refusals in a row slow down', () => {
    const { mover } = flows();
    let state: Mover = newMover();
    const pauses = Array.from({ length: 6 }, () => {
      const { next } = stepMover(state, { event: 'begin', draw: drawOf(mover) });
      assert.ok(next.state === 'syn-sent');
      const refused = onPacket(next, bareReset(next));
      state = refused.next;
      return brief(refused.effects).at(-1);
    });
    assert.deepEqual(pauses, [
      'arm 250',
      'arm 500',
      'arm 1000',
      'arm 2000',
      'arm 2000',
      'arm 2000',
    ]);
  });

  test('a valid TI_RST is final', () => {
    const f = flows();
    const mover = synSent(f.mover);
    const rst = signRst(keysOf(f.peer).ours, {
      kind: 'ti-rst',
      reason: REFUSAL.tiack,
      epoch: mover.attempt.epoch,
    });
    const { next, effects } = onPacket(mover, resetOf(mover.attempt.syn, rst));
    assert.deepEqual(next, { state: 'failed', why: 'reset' });
    assert.deepEqual(brief(effects), ['delete-wire', 'disarm', 'report failed reset final']);
  });

  test('a TI_RST with a wrong MAC, epoch or direction is a bare RST', () => {
    const f = flows();
    const mover = synSent(f.mover);
    const { ours, theirs } = keysOf(f.peer);
    const option = { kind: 'ti-rst', reason: REFUSAL.tiack, epoch: mover.attempt.epoch } as const;
    const wrong = [
      { ...signRst(ours, option), mac: new Uint8Array(8) },
      signRst(ours, { ...option, epoch: option.epoch + 1 }),
      signRst(theirs, option),
    ];
    for (const rst of wrong) {
      const { next, effects } = onPacket(mover, resetOf(mover.attempt.syn, rst));
      assert.equal(next.state, 'waiting');
      assert.ok(brief(effects).includes('report failed refused'));
    }
  });

  test('a SYN/ACK without TI_SYNC, or with a wrong one, is a ghost: reset at once', () => {
    const f = flows();
    const mover = synSent(f.mover);
    const good = synAckTo(mover, f.peer);
    const mac = new Uint8Array(16);
    const ghosts = [
      { ...good, options: [] },
      tampered(good, { mac }),
      tampered(good, { epoch: 2 }),
      tampered(good, { tiack: 1 }),
      tampered(good, { nonce: 1 }),
      synAckTo(synSent(f.mover, { nonce: 4711 }), f.peer), // of another SYN of ours
    ];
    for (const ghost of ghosts) {
      const { next, effects } = onPacket(mover, ghost);
      assert.equal(next.state, 'waiting');
      assert.deepEqual(brief(effects), ['send R', 'delete-wire', 'report failed ghost', 'arm 250']);
      const reset = effects.find((e) => e.effect === 'send');
      assert.equal(reset?.packet.seq, ghost.ack, 'RFC 9293, section 3.5.2: SEQ = SEG.ACK');
    }
  });

  test('a TIAck behind SND.UNA: asks again', () => {
    const f = flows({ moverSent: 10, peerGot: 5 });
    const mover = synSent(f.mover);
    const packet = synAckTo(mover, f.peer);
    f.mover.sndUna = seqAdd(f.mover.iss, 1 + 6); // the old path has delivered meanwhile
    const { next, effects } = onPacket(mover, packet, f.mover);
    assert.equal(next.state, 'waiting');
    assert.deepEqual(brief(effects), [
      'send R',
      'delete-wire',
      'report failed tiack-behind',
      'arm 250',
    ]);
  });

  test('a TIAck beyond SND.NXT is final, and the peer is told', () => {
    const f = flows({ peerGot: 11 });
    const mover = synSent(f.mover);
    const { next, effects } = onPacket(mover, synAckTo(mover, f.peer), f.mover);
    assert.deepEqual(next, { state: 'failed', why: 'invalid-tiack' });
    assert.deepEqual(brief(effects), [
      'send R ti-rst',
      'delete-wire',
      'disarm',
      'report failed invalid-tiack final',
    ]);
  });

  test('what does not acknowledge our SYN is not an answer', () => {
    const f = flows();
    const mover = synSent(f.mover);
    const good = synAckTo(mover, f.peer);
    const strangers: Packet[] = [
      { ...good, ack: seqAdd(good.ack, 1) },
      { ...good, flags: 'A' },
      { ...good, flags: 'S' },
      { ...good, flags: 'PA', payload: Uint8Array.of(1) },
      { ...bareReset(mover), ack: seq(0) },
      { ...bareReset(mover), ack: ISN_MOVER },
    ];
    for (const packet of strangers) {
      assert.deepEqual(onPacket(mover, packet), { next: mover, effects: [] });
    }
  });

  test('yield: waits, with its wire gone; superseded: begins at once', () => {
    const mover = synSent(flows().mover);
    const yielded = on(mover, 'yield').effects;
    assert.deepEqual(brief(yielded), ['delete-wire', 'report failed yielded', 'arm 250']);
    assert.deepEqual(brief(on(mover, 'superseded').effects), [
      'delete-wire',
      'report failed stale-epoch',
      'disarm',
      'begin',
    ]);
  });

  test('a wire that cannot be noted is a failed attempt', () => {
    const mover = synSent(flows().mover);
    const { next, effects } = stepMover(mover, { event: 'effect-failed', why: 'full' });
    assert.equal(next.state, 'waiting');
    assert.ok(brief(effects).includes('report failed table-full'));
  });

  test("abandoned, its wire is deleted; confirming, it is the flow's", () => {
    assert.deepEqual(brief(abandon(synSent(flows().mover))), ['delete-wire']);
    assert.deepEqual(abandon(accepted(flows()).next), []);
  });
});

test('nothing moves a mover that is proven or has failed', () => {
  const f = flows();
  const events: MoverEvent[] = [
    { event: 'begin', draw: drawOf(f.mover) },
    { event: 'timer' },
    { event: 'proven' },
    { event: 'yield' },
    { event: 'refused' },
    { event: 'superseded' },
    { event: 'obstacle', reason: 'no-port' },
    { event: 'effect-failed', why: 'full' },
    packetEvent(synAckTo(synSent(f.mover), f.peer), f.mover),
  ];
  const ends: Mover[] = [{ state: 'proven' }, { state: 'failed', why: 'reset' }];
  for (const end of ends) {
    for (const event of events) assert.deepEqual(stepMover(end, event), { next: end, effects: [] });
  }
});

test("no packet but the peer's own maps anything, whatever is changed in it", () => {
  const f = flows();
  const mover = synSent(f.mover);
  const good = candidateOf(f.peer, mover.attempt.syn).synAck;
  const option = encodeOption(optionOf<Sync>(good, 'ti-sync-ack'));
  fc.assert(
    fc.property(
      fc.integer({ min: 5, max: option.length - 1 }),
      fc.integer({ min: 1, max: 255 }),
      (at, flip) => {
        const sync = optionOf<SyncAck>(good, 'ti-sync-ack');
        const bytes = Uint8Array.from(option);
        bytes[at] = (bytes[at] ?? 0) ^ flip;
        const view = new DataView(bytes.buffer);
        const changed = tampered(good, {
          ...sync,
          epoch: view.getUint16(5),
          tiack: view.getUint32(7),
          nonce: view.getUint32(11),
          mac: bytes.slice(15),
        });
        const { effects } = onPacket(mover, changed);
        assert.ok(!effects.some((e) => e.effect === 'map'));
      },
    ),
  );
});
