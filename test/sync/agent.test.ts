/*
 * The agent as the daemon uses it: whole synchronizations, how they end, both ends moving.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { WIRE_STATE } from '../../src/boundary/abi.gen.js';
import { deliverReset, type SyncEvent } from '../../src/sync/agent.js';
import { address } from '../../src/wire/address.js';
import { encodePacket, type Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { type Tuple, tupleText } from '../../src/wire/tuple.js';
import { exchange, pair } from './end.js';

const NEW = address('198.51.100.10');
const NEWER = address('198.51.100.11');
const PATH = { mtu: 1500, redirect: false };

/** A bare reset from the peer, in kernel view. */
const resetOn = (kernel: Tuple, at: number): Uint8Array => {
  const { local, localPort, remote, remotePort } = kernel;
  return encodePacket({
    ...{ source: remote, sourcePort: remotePort, destination: local },
    ...{ destinationPort: localPort, flags: 'R', seq: seq(at), ack: seq(0), window: 0 },
    ...{ options: [], payload: new Uint8Array(0) },
  });
};

describe('a synchronization', () => {
  test('from the move to the proof: the timeline', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    assert.equal(p.mover.agent.state(p.kernel), 'syncing');
    assert.ok(p.mover.isHeld(p.kernel));
    exchange(p);
    assert.deepEqual(p.mover.types(), [
      'syn-sent',
      'syn-ack-received',
      'mapped',
      'confirm-sent',
      'kicked',
      'proven',
    ]);
    assert.deepEqual(p.peer.types(), ['candidate', 'mapped', 'kicked', 'committed']);
    assert.equal(p.mover.agent.state(p.kernel), 'steady');
    assert.ok(!p.mover.isHeld(p.kernel) && !p.peer.isHeld(p.peerKernel));
    const [m, q] = [p.mover.flow(p.kernel), p.peer.flow(p.peerKernel)];
    assert.equal(m.mapping[0].sndDelta, q.mapping[0].rcvDelta);
    assert.deepEqual([m.epoch, q.epoch], [1, 1]);
    assert.deepEqual(p.mover.agent.load(), { moving: 0, candidates: 0 });
    assert.deepEqual(p.peer.agent.load(), { moving: 0, candidates: 0 });
  });

  test('again from the same address is a no-op; from another it drops the first', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.mover.agent.move(p.kernel, NEW, PATH);
    assert.equal(p.mover.takeSent().length, 1);
    p.mover.agent.move(p.kernel, NEWER, PATH);
    assert.equal(p.mover.wiresIn(WIRE_STATE.SYNCING), 1);
    const [syn] = p.mover.takeSent();
    assert.equal(syn?.source, NEWER);
    assert.ok(syn?.options.some((o) => o.kind === 'ti-sync' && o.epoch === 2));
  });

  test('an answer to the dropped attempt means nothing', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.peer.receive(...p.mover.takeSent());
    p.mover.agent.move(p.kernel, NEWER, PATH);
    p.mover.receive(...p.peer.takeSent());
    assert.equal(p.mover.agent.state(p.kernel), 'syncing');
    assert.equal(p.mover.flow(p.kernel).active, 0);
  });

  test('SYNs are repeated until there is an answer, and each failure is told', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.mover.takeSent(); // lost
    p.mover.wait(249);
    assert.equal(p.mover.sent.length, 0);
    p.mover.wait(2);
    assert.equal(p.mover.takeSent().length, 1); // lost
    p.mover.wait(500);
    assert.equal(p.mover.types().filter((t) => t === 'failed no-answer').length, 2);
    exchange(p);
    assert.equal(p.mover.types().at(-1), 'proven');
  });

  test('for ever: the daemon decides when it is enough', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.mover.wait(120_000);
    const syns = p.mover.takeSent();
    assert.ok(syns.length > 55 && syns.length < 70, `${syns.length} SYNs`);
    assert.ok(new Set(syns.map((syn) => syn.sourcePort)).size > 5, 'from several ports');
    assert.equal(p.mover.wiresIn(WIRE_STATE.SYNCING), 1);
    exchange(p);
  });

  test('why it comes to nothing that is given up now', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    const reasonAfter = (failed?: 'refused') => p.mover.agent.reasonNow(p.kernel, failed);
    assert.deepEqual([reasonAfter(), reasonAfter('refused')], ['no-answer', 'refused']);
    p.peer.receive(...p.mover.takeSent());
    p.mover.receive(...p.peer.takeSent());
    p.mover.takeSent(); // the CONFIRM: lost
    assert.deepEqual([reasonAfter(), reasonAfter('refused')], ['unconfirmed', 'unconfirmed']);
  });

  test('a peer that is ahead is caught up with, though each attempt is given up and begun anew', () => {
    const p = pair();
    const peer = p.peer.boundary.flows.get(tupleText(p.peerKernel));
    assert.ok(peer);
    peer.flow.epoch = 3;
    const epochs: number[] = [];
    for (let attempt = 1; attempt <= 4; attempt++) {
      p.mover.agent.move(p.kernel, NEW, PATH);
      exchange(p);
      epochs.push(...p.mover.events.flatMap((e) => (e.type === 'syn-sent' ? [e.epoch] : [])));
      p.mover.events.length = 0;
      if (p.mover.agent.state(p.kernel) !== 'steady') p.mover.agent.cancel(p.kernel);
    }
    assert.deepEqual(epochs, [1, 2, 3, 4]);
    assert.equal(p.mover.flow(p.kernel).epoch, 4);
  });

  test('a mover that never hears of its commit has the peer commit again every 5 s at most', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    for (let ms = 0; ms < 60_000; ms += 250) {
      p.peer.receive(...p.mover.takeSent());
      p.mover.receive(...p.peer.takeSent().filter(({ flags }) => flags === 'SA'));
      p.mover.wait(250);
    }
    const commits = p.peer.types().filter((type) => type === 'committed').length;
    assert.ok(commits > 1 && commits <= 12, `${commits} commits in a minute`);
  });

  test('the CONFIRM is lost: it is repeated', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.peer.receive(...p.mover.takeSent());
    p.mover.receive(...p.peer.takeSent());
    assert.equal(p.mover.agent.state(p.kernel), 'confirming');
    p.mover.takeSent();
    p.mover.wait(251);
    exchange(p);
    assert.equal(p.mover.types().at(-1), 'proven');
  });

  test('the answer to the CONFIRM is lost: the peer gives it again, without a memory', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.peer.receive(...p.mover.takeSent());
    p.mover.receive(...p.peer.takeSent());
    p.peer.receive(...p.mover.takeSent());
    p.peer.takeSent();
    p.peer.agent.close();
    p.peer.startAgent();
    p.mover.wait(251);
    exchange(p);
    assert.equal(p.mover.types().at(-1), 'proven');
  });

  test('the event that says "proven" is lost: the flow knows', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.peer.receive(...p.mover.takeSent());
    p.mover.receive(...p.peer.takeSent());
    p.peer.receive(...p.mover.takeSent());
    for (const packet of p.peer.takeSent()) p.mover.boundary.ingress(packet);
    p.mover.boundary.events.length = 0;
    p.mover.wait(251);
    assert.equal(p.mover.types().at(-1), 'proven');
  });

  test('"proven" of an earlier mapping is not that of this one', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.peer.receive(...p.mover.takeSent());
    p.mover.receive(...p.peer.takeSent());
    p.mover.agent.proven(p.kernel, 0n);
    assert.equal(p.mover.agent.state(p.kernel), 'confirming');
  });

  test('what the next hop needs is asked when the peer commits, not for every SYN', () => {
    const asked: string[] = [];
    const redirects = (_: unknown, { remote }: { remote: string }) => asked.push(remote) > 0;
    const p = pair({ peer: { redirects } });
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.peer.receive(...p.mover.takeSent());
    assert.deepEqual(asked, []);
    p.mover.receive(...p.peer.takeSent());
    exchange(p);
    assert.deepEqual(asked, [NEW]);
    assert.equal(p.peer.flow(p.peerKernel).mapping[0].redirect, 1);
  });
});

describe('ends of a synchronization', () => {
  test('cancel: its wire is gone, egress goes on, nothing is left to do', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.mover.agent.cancel(p.kernel);
    assert.equal(p.mover.boundary.wires.size, 0);
    assert.ok(!p.mover.isHeld(p.kernel));
    p.mover.takeSent();
    p.mover.wait(60_000);
    assert.equal(p.mover.sent.length, 0);
    p.mover.agent.cancel(p.kernel);
  });

  test('kick: the address is back; a synchronization of the flow ends', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.mover.agent.kick(p.kernel);
    assert.equal(p.mover.agent.state(p.kernel), 'steady');
    assert.ok(!p.mover.isHeld(p.kernel));
    assert.equal(p.mover.injected.length, 4);
  });

  test('kick while confirming: the CONFIRM goes on', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.peer.receive(...p.mover.takeSent());
    p.mover.receive(...p.peer.takeSent());
    p.mover.agent.kick(p.kernel);
    assert.equal(p.mover.agent.state(p.kernel), 'confirming');
    p.mover.boundary.command({ verb: 'hold', kernel: p.kernel }); // the address went once more
    p.mover.agent.kick(p.kernel);
    assert.ok(!p.mover.isHeld(p.kernel));
    exchange(p);
    assert.equal(p.mover.types().at(-1), 'proven');
  });

  test('cancel while the kick is due: kicked now, and never again', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.peer.receive(...p.mover.takeSent());
    p.mover.receive(...p.peer.takeSent());
    assert.equal(p.mover.injected.length, 0);
    p.mover.agent.cancel(p.kernel);
    assert.equal(p.mover.injected.length, 3);
    p.mover.wait(60_000);
    assert.equal(p.mover.injected.length, 3);
  });

  test('another move while the kick is due: held, not kicked', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.peer.receive(...p.mover.takeSent());
    p.mover.receive(...p.peer.takeSent());
    p.mover.agent.move(p.kernel, NEWER, PATH);
    assert.equal(p.mover.injected.length, 0);
    assert.ok(p.mover.isHeld(p.kernel));
    p.mover.wait(6);
    assert.ok(p.mover.isHeld(p.kernel));
    exchange(p);
    assert.equal(p.mover.types().at(-1), 'proven');
    assert.ok(!p.mover.isHeld(p.kernel));
  });

  test('the flow has ended meanwhile', () => {
    const p = pair();
    p.mover.boundary.command({ verb: 'forget', kernel: p.kernel });
    p.mover.agent.move(p.kernel, NEW, PATH);
    assert.equal(p.mover.agent.state(p.kernel), 'steady');
    const q = pair();
    q.mover.agent.move(q.kernel, NEW, PATH);
    q.peer.receive(...q.mover.takeSent());
    q.mover.boundary.command({ verb: 'forget', kernel: q.kernel });
    q.mover.receive(...q.peer.takeSent());
    assert.deepEqual(q.mover.agent.load(), { moving: 0, candidates: 0 });
    assert.equal(q.mover.boundary.wires.size, 0);
  });

  test('who hears of an event may call the agent', () => {
    const p = pair();
    p.mover.onEvent = (e: SyncEvent) => {
      if (e.type === 'failed') p.mover.agent.cancel(p.kernel);
    };
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.mover.wait(300);
    assert.equal(p.mover.agent.state(p.kernel), 'steady');
    p.mover.takeSent();
    p.mover.wait(10_000);
    assert.equal(p.mover.sent.length, 0);
  });

  test('close: no timer is left', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.peer.receive(...p.mover.takeSent());
    p.mover.agent.close();
    p.peer.agent.close();
    p.peer.takeSent();
    p.mover.wait(60_000);
    assert.deepEqual([p.mover.sent, p.peer.sent], [[], []]);
  });

  test('a reset on a wire in doubt begins anew if the peer has forgotten the handshake', () => {
    const p = pair();
    const reset = (at: number) => p.mover.agent.reset(p.kernel, resetOn(p.kernel, at));
    assert.equal(reset(1), false, 'nothing runs: the quarantine decides');
    p.mover.agent.move(p.kernel, NEW, PATH);
    assert.equal(reset(1), true);
    p.peer.receive(...p.mover.takeSent());
    p.mover.receive(...p.peer.takeSent());
    assert.equal(reset(1), true);
    assert.equal(p.mover.agent.state(p.kernel), 'confirming', 'a stranger');
    assert.equal(reset(p.mover.flow(p.kernel).mapping[0].rcvBase), true);
    assert.equal(p.mover.types().at(-1), 'failed refused');
    assert.equal(p.mover.agent.reset(p.kernel, Uint8Array.of(1, 2, 3)), true);
    p.mover.takeSent();
    p.mover.wait(300);
    exchange(p);
    assert.equal(p.mover.types().at(-1), 'proven');
  });

  test('such a reset does not take its turn from a flow that waits', () => {
    const config = { sourcePorts: { first: 61_000, last: 65_535 }, places: 1 };
    const p = pair({ mover: { config } });
    p.mover.agent.move(p.kernel, NEW, PATH);
    exchange(p);
    p.mover.agent.move(p.mover.open('mover', 1), NEW, PATH);
    p.mover.agent.move(p.kernel, NEWER, PATH);
    assert.equal(p.mover.takeSent().length, 1, 'only the first has begun');
    p.mover.agent.reset(p.kernel, resetOn(p.kernel, p.mover.flow(p.kernel).mapping[0].rcvBase));
    p.mover.wait(30);
    assert.deepEqual(
      p.mover.takeSent().map(({ flags, source }) => [flags, source]),
      [['S', NEWER]],
    );
  });

  test('a reset from quarantine is delivered whole, with right checksums', () => {
    const injected: Uint8Array[] = [];
    const raw = { toKernel: (bytes: Uint8Array) => injected.push(bytes) };
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    const bytes = encodePacket({ ...(p.mover.takeSent()[0] as Packet), flags: 'R', options: [] });
    const damaged = Uint8Array.from(bytes);
    damaged[36] = (damaged[36] ?? 0) ^ 0xff; // checksum
    deliverReset(raw, p.kernel, damaged);
    assert.deepEqual(injected, [bytes]);
    deliverReset(raw, p.kernel, Uint8Array.of(0));
    assert.equal(injected.length, 1);
  });
});

describe('both ends move', () => {
  test('at once, from addresses that the other can still reach: both arrive', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, NEW, PATH);
    p.peer.agent.move(p.peerKernel, address('203.0.113.77'), PATH);
    for (let turn = 0; turn < 10; turn++) {
      exchange(p);
      p.mover.wait(300);
    }
    const [m, q] = [p.mover.flow(p.kernel), p.peer.flow(p.peerKernel)];
    const [mw, qw] = [m.mapping[m.active - 1]?.wire, q.mapping[q.active - 1]?.wire];
    assert.equal(mw?.local, NEW);
    assert.equal(qw?.local, '203.0.113.77');
    assert.equal(mw?.remotePort, qw?.localPort);
    assert.deepEqual([p.mover.agent.load().moving, p.peer.agent.load().moving], [0, 0]);
  });

  test('the other end brings the flow to where we want it: proven', () => {
    const p = pair();
    p.mover.agent.move(p.kernel, p.kernel.local, PATH); // a new daemon found the flow held
    p.mover.takeSent();
    p.peer.agent.move(p.peerKernel, address('203.0.113.77'), PATH);
    exchange(p);
    assert.deepEqual(p.mover.types().slice(-2), ['committed', 'proven']);
    assert.equal(p.mover.agent.state(p.kernel), 'steady');
    assert.ok(!p.mover.isHeld(p.kernel));
  });
});
