/* Who knocks where the peer of a moved flow was: whom that lets in, and whom it does not harm. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FLOW_SIZE, type Flow, readFlow } from '../../../src/boundary/abi.gen.js';
import { Knocks } from '../../../src/daemon/flows/knocks.js';
import { address } from '../../../src/wire/address.js';
import { encodePacket, type Packet } from '../../../src/wire/packet.js';
import { seq } from '../../../src/wire/seq.js';
import { type Tuple, tupleReverse } from '../../../src/wire/tuple.js';
import { FakeClock } from '../../sim/fake-clock.js';

const KERNEL: Tuple = {
  local: address('192.0.2.10'),
  remote: address('203.0.113.7'),
  localPort: 22,
  remotePort: 700,
};
const WIRE: Tuple = { ...KERNEL, remote: address('198.51.100.7'), remotePort: 12_345 };
const KNOCK = 0x1234_5679;

/** A server's flow whose client has moved to another address, and what is done. */
function machine() {
  const clock = new FakeClock();
  clock.pass(1_000_000);
  const nowNs = () => BigInt(Math.round(clock.now())) * 1_000_000n;
  const flow: Flow = readFlow(new DataView(new ArrayBuffer(FLOW_SIZE)));
  Object.assign(flow, { active: 1, knock: seq(KNOCK), seenIn: nowNs() });
  Object.assign(flow, { sndUna: seq(500), rcvNxt: seq(900), rcvMax: seq(900) });
  Object.assign(flow.mapping[0], { wire: WIRE, sndDelta: seq(1_000), rcvDelta: seq(2_000) });
  const sent: Packet[] = [];
  const ended: string[] = [];
  const knocks = new Knocks({
    boundary: { flow: () => flow },
    clock,
    send: (_, packet) => sent.push(packet),
    end: (_, reason) => ended.push(reason),
  });
  const from = tupleReverse(KERNEL);
  const comes = (flags: string, at: number) =>
    knocks.knock(
      KERNEL,
      encodePacket({
        ...{ source: from.local, sourcePort: from.localPort },
        ...{ destination: from.remote, destinationPort: from.remotePort },
        ...{ flags, seq: seq(at), ack: seq(0), window: 1000, options: [] },
        payload: new Uint8Array(0),
      }),
    );
  return { knocks, flow, clock, nowNs, sent, ended, comes };
}

test('both are asked: who knocks by a challenge, the owner by a keepalive on its wire', () => {
  const { sent, comes } = machine();
  comes('S', 77);
  const brief = sent.map((p) => [p.destination, p.destinationPort, p.flags, p.seq, p.ack]);
  assert.deepEqual(brief, [
    [KERNEL.remote, 700, 'A', 0, KNOCK],
    [WIRE.remote, 12_345, 'A', 1_499, 2_900],
  ]);
});

test('the owner is silent for 5 s, and who knocks has answered: the flow ends', () => {
  const { clock, sent, ended, comes } = machine();
  comes('S', 77);
  comes('R', KNOCK);
  clock.pass(4_999);
  assert.deepEqual([ended, sent.length], [[], 6]);
  clock.pass(1);
  assert.deepEqual(ended, ['peer-restarted']);
});

test('the owner answers: whoever knocks, however often, the flow lives', () => {
  const { flow, clock, nowNs, ended, comes } = machine();
  for (let i = 0; i < 10; i++) {
    comes('S', 77);
    comes('R', KNOCK);
    clock.pass(900);
    flow.seenIn = nowNs();
    clock.pass(4_100);
  }
  clock.pass(60_000);
  assert.deepEqual(ended, []);
});

test('a SYN with a made-up source: nobody is there to answer, and the flow lives', () => {
  const { clock, ended, comes } = machine();
  for (let i = 0; i < 30; i++) {
    comes('S', 77);
    comes('R', KNOCK + 1);
    clock.pass(1_000);
  }
  assert.deepEqual(ended, []);
});

test('an answer to a question that was not asked now says nothing', () => {
  const { clock, ended, comes } = machine();
  comes('R', KNOCK);
  comes('S', 77);
  clock.pass(5_000);
  assert.deepEqual(ended, []);
});

test('ended, or closed: nothing is left', () => {
  for (const end of ['ended', 'close'] as const) {
    const { knocks, clock, ended, comes } = machine();
    comes('S', 77);
    comes('R', KNOCK);
    knocks[end](KERNEL);
    clock.pass(5_000);
    assert.deepEqual(ended, []);
  }
});
