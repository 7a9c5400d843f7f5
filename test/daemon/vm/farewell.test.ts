/* A legacy connection that has stayed behind: what is said to its two ends.  Whether they believe
 * it is shown by a real kernel (case legacy); here it is what RFC 5961 lets a receiver believe.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { farewell, provocation } from '../../../src/daemon/vm/farewell.js';
import { address, family } from '../../../src/wire/address.js';
import { parsePacketLine } from '../../../src/wire/notation.js';
import { encodePacket, type Packet } from '../../../src/wire/packet.js';
import { seq, seqAdd } from '../../../src/wire/seq.js';
import { anyPacket } from '../../wire/arbitrary.js';
import { OUTSIDE, read, tupleOf } from '../vm-fixture.js';

const SIX = {
  ...{ local: address('2001:db8:1::10'), remote: address('2001:db8:3::7') },
  ...{ localPort: 22, remotePort: 40_000, tap: 7 },
};
const FORMER = { 4: OUTSIDE, 6: address('2001:db8:2::10') };

for (const [name, t] of [
  ['IPv4', tupleOf(22)],
  ['IPv6', SIX],
] as const) {
  const segment = (line: string): Packet =>
    parsePacketLine(line, {
      ...{ source: t.local, sourcePort: t.localPort },
      ...{ destination: t.remote, destinationPort: t.remotePort },
    });
  const former = FORMER[family(t.local)];

  test(`the guest is provoked in its peer's name (${name})`, () => {
    const syn = read(provocation(t));
    assert.deepEqual(
      [syn.source, syn.sourcePort, syn.destination, syn.destinationPort, syn.flags],
      [t.remote, t.remotePort, t.local, t.localPort, 'S'],
    );
  });

  test(`a bare ACK: one reset for each, at what it expects (${name})`, () => {
    const told = farewell(encodePacket(segment('A 1000:1000(0) ack 5000 win 100')), former);
    assert.ok(told);
    const guest = read(told.toGuest);
    assert.deepEqual(
      [guest.source, guest.sourcePort, guest.destination, guest.destinationPort],
      [t.remote, t.remotePort, t.local, t.localPort],
    );
    assert.deepEqual([guest.flags, guest.seq], ['R', 5000]);
    assert.equal(told.toPeer.length, 1);
    const peer = read(told.toPeer[0] ?? new Uint8Array());
    assert.deepEqual(
      [peer.source, peer.sourcePort, peer.destination, peer.destinationPort],
      [former, t.localPort, t.remote, t.remotePort],
    );
    assert.deepEqual([peer.flags, peer.seq], ['R', 1000]);
  });

  test(`data: the peer may have it or not, so it is told twice (${name})`, () => {
    const told = farewell(encodePacket(segment('PA 1000:1100(100) ack 5000 win 9')), former);
    assert.deepEqual(
      told?.toPeer.map((each) => read(each).seq),
      [1000, 1100],
    );
  });

  test(`handed up without its payload, which is counted all the same (${name})`, () => {
    const whole = encodePacket(segment('PA 1000:1100(100) ack 5000 win 9'));
    const told = farewell(whole.subarray(0, whole.length - 100), former);
    assert.deepEqual(
      told?.toPeer.map((each) => read(each).seq),
      [1000, 1100],
    );
  });

  test(`a FIN takes a number as well, which the peer may have seen (${name})`, () => {
    const told = farewell(encodePacket(segment('FPA 1000:1100(100) ack 5000 win 9')), former);
    assert.deepEqual(
      told?.toPeer.map((each) => read(each).seq),
      [1000, 1100, 1101],
    );
  });

  test(`by whom the peer knew the guest is not known: the guest alone (${name})`, () => {
    const told = farewell(encodePacket(segment('A 1:1(0) ack 1 win 9')), undefined);
    assert.deepEqual(told?.toPeer, []);
  });

  test(`what needs no answer gets none (${name})`, () => {
    for (const line of ['R 1:1(0) win 0', 'RA 1:1(0) ack 1 win 0', 'S 1:1(0) win 9']) {
      assert.equal(farewell(encodePacket(segment(line)), former), undefined, line);
    }
  });
}

test('no segment: nothing', () => {
  assert.equal(farewell(new Uint8Array(0), OUTSIDE), undefined);
  assert.equal(farewell(Uint8Array.of(0x45, 0, 0, 20), OUTSIDE), undefined);
});

test('any segment: resets in the window, of the same family, and of nothing else', () => {
  fc.assert(
    fc.property(anyPacket, (packet) => {
      const former = FORMER[family(packet.source)];
      const told = farewell(encodePacket(packet), former);
      assert.equal(told === undefined, packet.flags.includes('R') || !packet.flags.includes('A'));
      if (told === undefined) return;
      assert.equal(read(told.toGuest).seq, packet.ack);
      const end = seqAdd(packet.seq, packet.payload.length);
      const nexts = told.toPeer.map((each) => read(each).seq);
      const fin = packet.flags.includes('F') ? [seqAdd(end, 1)] : [];
      assert.deepEqual(nexts, [...new Set([packet.seq, end, ...fin])]);
      for (const each of [told.toGuest, ...told.toPeer]) {
        const { flags, options, payload, ack } = read(each);
        assert.deepEqual([flags, options, payload.length, ack], ['R', [], 0, seq(0)]);
      }
    }),
  );
});
