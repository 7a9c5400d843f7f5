/*
 * Where TI_OPEN finds its room: behind the options as they are, or, where that is not enough, with
 * their padding squeezed out.  PROTOCOL.md, section "Room for TI_OPEN".  Options are bytes here,
 * and the model of what becomes of them is written a second time.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { encodePacket } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { runs } from '../whole.js';
import { vectorText } from '../wire/vectors.js';
import {
  assertChecksums,
  DataPlane,
  ETHER_HEADER,
  FAMILIES,
  type Family,
  frameOf,
  freshTuple,
  PEER_OPEN,
  packetOf,
  type View,
} from './data-plane.js';
import { naiveTransportSum } from './model.js';

const plane = new DataPlane();
after(() => plane.remove());

const OPEN_BYTES = 20;
const SPACE = 40;
const TCP_HEADER = 20;

const freshView = (f: Family): View => ({
  tuple: freshTuple(f),
  iss: seq(0xffffff00),
  irs: seq(1000),
});

/** A frame with these very option bytes, a multiple of four. */
function frameWith(view: View, line: string, options: Uint8Array): Uint8Array {
  const bare = packetOf(view, 'out', line);
  const nops = Array.from(options, () => ({ kind: 'nop' as const }));
  const ip = encodePacket({ ...bare, options: nops });
  const tcp = ip.subarray(ip.length - options.length - TCP_HEADER);
  tcp.set(options, TCP_HEADER);
  tcp.set([0, 0], 16);
  const sum = 0xffff - naiveTransportSum(bare, 6, tcp);
  tcp.set([sum >> 8, sum & 0xff], 16);
  return frameOf(ip);
}

/** The options that are more than padding, in their order; undefined: the list lies. */
function substance(options: Uint8Array): Uint8Array[] | undefined {
  const found: Uint8Array[] = [];
  for (let at = 0; at < options.length && options[at] !== 0; ) {
    const length = options[at] === 1 ? 1 : (options[at + 1] ?? 0);
    if (options[at] !== 1 && length < 2) return undefined;
    if (at + length > options.length) return undefined;
    if (options[at] !== 1) found.push(options.subarray(at, at + length));
    at += length;
  }
  return found;
}

/** Where the end-of-list stands, or the end. */
function endOf(options: Uint8Array): number {
  let at = 0;
  while (at < options.length && options[at] !== 0)
    at += options[at] === 1 ? 1 : (options[at + 1] ?? 1);
  return Math.min(at, options.length);
}

/** Four of them: whoever pads so wants no option of ours. */
function hasNopsInARow(options: Uint8Array): boolean {
  let row = 0;
  for (let at = 0; at < endOf(options) && row < 4; ) {
    row = options[at] === 1 ? row + 1 : 0;
    at += options[at] === 1 ? 1 : (options[at + 1] ?? 1);
  }
  return row >= 4;
}

/** What PROTOCOL.md asks for; undefined: there is no room. */
function withOpen(options: Uint8Array, open: Uint8Array): Uint8Array | undefined {
  const end = endOf(options);
  const nops = (n: number) => new Uint8Array(n).fill(1);
  if (options.length + OPEN_BYTES <= SPACE && options.length - end <= 3)
    return concat([options.subarray(0, end), nops(options.length - end), open]);
  if (hasNopsInARow(options)) return undefined;
  const kept = concat(substance(options) ?? []);
  const padded = concat([kept, nops(-kept.length & 3)]);
  return padded.length + OPEN_BYTES <= SPACE ? concat([padded, open]) : undefined;
}

const concat = (parts: Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((p) => [...p]));

const bytesOf = (hex: string): Uint8Array =>
  Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));

/** The 20 bytes of the option that `stockHalf` has named. */
const openBytes = (open: string): Uint8Array =>
  bytesOf(`fd14544910000000${open.replace(/^ti-open | key /g, '')}`);

/** Runs a SYN, or a SYN/ACK that answers a SYN with TI_OPEN; what is wanted comes from the model. */
function check(f: Family, line: string, options: Uint8Array): void {
  const view = freshView(f);
  if (line.startsWith('SA')) {
    plane.expect(view, 'in', `S 0:0(0) win 1 <mss 1460,${PEER_OPEN}>`, 'same');
  }
  const sent = frameWith(view, line, options);
  // No half is drawn for nothing: where there is no room, there is none in stock either.
  const hasRoom = withOpen(options, new Uint8Array(OPEN_BYTES)) !== undefined;
  const open = hasRoom ? openBytes(plane.stockHalf()) : new Uint8Array(OPEN_BYTES);
  const { verdict, frame, counted } = plane.run('out', sent);
  assert.equal(verdict, 'pass');
  const expected = withOpen(options, open);
  if (expected === undefined) {
    assert.deepEqual(frame, sent);
    assert.deepEqual(counted, ['no-room']);
    return;
  }
  assert.deepEqual(frame, frameWith(view, line, expected));
  assertChecksums(frame.subarray(ETHER_HEADER), packetOf(view, 'out', line));
}

/** As seen in the wild, with what an independent implementation makes of it; null: no room. */
interface Seen {
  name: string;
  flags: 'S' | 'SA';
  before: string;
  after: string | null;
}
const SEEN = JSON.parse(vectorText('room.json')) as Seen[];

for (const f of FAMILIES) {
  for (const { name, flags, before, after } of SEEN) {
    test(`${name}: ${after === null ? 'no room' : 'TI_OPEN'} (IPv${f})`, () => {
      const expected = after === null ? undefined : bytesOf(after);
      const open = expected?.subarray(-OPEN_BYTES) ?? new Uint8Array(OPEN_BYTES);
      assert.deepEqual(withOpen(bytesOf(before), open), expected);
      check(f, flags === 'S' ? 'S 0:0(0) win 1' : 'SA 0:0(0) ack 1 win 1', bytesOf(before));
    });
  }

  test(`a SYN that comes again is squeezed again (IPv${f})`, () => {
    const view = freshView(f);
    const options = bytesOf('020405b4 01 030306 0101 080a0102030400000000 0402 0000');
    const later = bytesOf('020405b4 01 030306 0101 080a0102080900000000 0402 0000');
    const open = openBytes(plane.stockHalf());
    for (const each of [options, later]) {
      const { frame } = plane.run('out', frameWith(view, 'S 0:0(0) win 1', each));
      const expected = withOpen(each, open);
      assert.ok(expected);
      assert.deepEqual(frame, frameWith(view, 'S 0:0(0) win 1', expected));
    }
    const third = frameWith(view, 'S 0:0(0) win 1', later);
    assert.deepEqual(plane.run('out', third).frame, third, 'left out by now');
  });
}

/** Options of a SYN, much padding among them; kinds that forbid TI_OPEN have rows of their own. */
const piece = fc.oneof(
  { weight: 3, arbitrary: fc.constant('01') },
  { weight: 1, arbitrary: fc.constantFrom('00', '020405b4', '0402', '030307', '01030309') },
  { weight: 1, arbitrary: fc.constant('080a0102030400000000') },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.integer({ min: 172, max: 252 }), fc.uint8Array({ maxLength: 12 }))
      .map(([kind, value]) => Buffer.from([kind, value.length + 2, ...value]).toString('hex')),
  },
);
const someOptions = fc
  .tuple(fc.array(piece, { maxLength: 30 }), fc.constantFrom('00', '01'))
  .map(([pieces, filler]) => {
    const bytes = bytesOf(pieces.join('')).slice(0, SPACE);
    const fill = bytesOf(filler.repeat(-bytes.length & 3));
    return concat([bytes, fill]);
  })
  .filter((options) => substance(options) !== undefined);

test('any SYN and SYN/ACK gets TI_OPEN as the model says, or is left alone', () => {
  const line = fc.constantFrom('S 0:0(0) win 1' as const, 'SA 0:0(0) ack 1 win 1' as const);
  fc.assert(
    fc.property(fc.constantFrom(...FAMILIES), line, someOptions, (f, l, options) => {
      check(f, l, options);
    }),
    { numRuns: runs(500) },
  );
});
