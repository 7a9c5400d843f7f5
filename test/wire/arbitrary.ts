/*
 * Generators of wire values, for the property tests.
 *
 * Only what `encodePacket` can represent: options of at most 40 bytes together, numbers in
 * range.  Hostile bytes are made from these by breaking them (decode.test.ts).
 */
import fc from 'fast-check';
import { type Address, addressFromBytes } from '../../src/wire/address.js';
import { flagsFromBits } from '../../src/wire/flags.js';
import { encodeOption, OPTIONS_BYTES_MAX, type TcpOption } from '../../src/wire/option.js';
import type { Packet } from '../../src/wire/packet.js';
import { type Seq, seq } from '../../src/wire/seq.js';

export const uint8 = fc.integer({ min: 0, max: 0xff });
export const uint16 = fc.integer({ min: 0, max: 0xffff });
export const uint32 = fc.integer({ min: 0, max: 0xffffffff });

/** Plain objects: deepEqual tells one without a prototype from what a decoder returns. */
const record = <T extends object>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record<T>(fields, { noNullPrototype: true });

/** Any sequence number, those around the wrap more often than chance would have them. */
export const anySeq: fc.Arbitrary<Seq> = fc
  .oneof(uint32, fc.integer({ min: -1000, max: 1000 }))
  .map(seq);

export const bytes = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length });

export const address4: fc.Arbitrary<Address> = bytes(4).map(addressFromBytes);

/** Sparse ones too, so that `::` stands at the start, in the middle, at the end. */
export const address6: fc.Arbitrary<Address> = fc
  .array(fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: uint16 }), {
    minLength: 8,
    maxLength: 8,
  })
  .map((groups) => addressFromBytes(Uint8Array.from(groups.flatMap((g) => [g >> 8, g & 0xff]))))
  .filter((a) => a.includes(':'));

const mac8 = bytes(8);
const mac16 = bytes(16);

export const anyOption: fc.Arbitrary<TcpOption> = fc.oneof(
  record({ kind: fc.constant('mss' as const), mss: uint16 }),
  fc.constant<TcpOption>({ kind: 'sack-permitted' }),
  record({ kind: fc.constant('wscale' as const), shift: uint8 }),
  record({ kind: fc.constant('timestamps' as const), value: uint32, echo: uint32 }),
  record({
    kind: fc.constant('sack' as const),
    blocks: fc.array(fc.tuple(anySeq, anySeq), { minLength: 1, maxLength: 4 }),
  }),
  fc.constant<TcpOption>({ kind: 'nop' }),
  record({
    kind: fc.constant('unknown' as const),
    number: fc.integer({ min: 9, max: 252 }),
    bytes: fc.uint8Array({ maxLength: 38 }),
  }),
);

export const tiOpen: fc.Arbitrary<TcpOption> = record({
  kind: fc.constant('ti-open' as const),
  flags: uint8,
  keyId: uint8,
  reserved: uint8,
  tifidHalf: uint32,
  keyHalf: bytes(8),
});

/** The option of ours that a packet with these flags may carry; undefined if none. */
export function tiOption(flags: string): fc.Arbitrary<TcpOption> | undefined {
  const [syn, ack, rst] = ['S', 'A', 'R'].map((letter) => flags.includes(letter));
  const epoch = uint16;
  if (syn && ack) {
    const kind = fc.constant('ti-sync-ack' as const);
    const sync = record({ kind, epoch, tiack: uint32, nonce: uint32, mac: mac16 });
    return fc.oneof(tiOpen, sync);
  }
  if (syn) return fc.oneof(tiOpen, tiSync);
  if (rst) {
    return record({ kind: fc.constant('ti-rst' as const), reason: uint8, epoch, mac: mac8 });
  }
  return record({ kind: fc.constant('ti-confirm' as const), epoch, mac: mac16 });
}

const tiSync: fc.Arbitrary<TcpOption> = record({
  kind: fc.constant('ti-sync' as const),
  epoch: uint16,
  initiatorHalf: uint32,
  responderHalf: uint32,
  tiack: uint32,
  nonce: uint32,
  mac: mac8,
});

export const anyPacket: fc.Arbitrary<Packet> = uint8.map(flagsFromBits).chain((flags) => {
  const ours = tiOption(flags);
  const option = ours === undefined ? anyOption : fc.oneof(anyOption, ours);
  return fc
    .oneof(fc.tuple(address4, address4), fc.tuple(address6, address6))
    .chain(([source, destination]) =>
      record({
        source: fc.constant(source),
        sourcePort: uint16,
        destination: fc.constant(destination),
        destinationPort: uint16,
        flags: fc.constant(flags),
        seq: anySeq,
        ack: anySeq,
        window: uint16,
        options: fc.array(option, { maxLength: 6 }).map(fitting),
        payload: fc.uint8Array({ maxLength: 80 }),
        hopLimit: uint8,
      }),
    );
});

/** The longest start of the list that a header has room for. */
function fitting(options: TcpOption[]): TcpOption[] {
  let length = 0;
  return options.filter((option) => {
    length += encodeOption(option).length;
    return length <= OPTIONS_BYTES_MAX;
  });
}
