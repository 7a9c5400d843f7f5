/*
 * TCP options between bytes and values (RFC 9293, section 3.1; RFC 7323; RFC 2018).
 *
 * Two kinds of wrong are told apart.  A length byte that lies about the list (0, 1, past the
 * end) makes the whole list meaningless: an error.  An option that is well delimited but not
 * of a shape that we know is 'unknown', kept verbatim: Linux skips it as well.
 */
import { type Seq, seq } from './seq.js';
import { decodeTiOption, encodeTiOption, TI, type TiOption } from './ti-option.js';

export { TI } from './ti-option.js';

export type TcpOption =
  | { kind: 'mss'; mss: number }
  | { kind: 'sack-permitted' }
  | { kind: 'wscale'; shift: number }
  | { kind: 'timestamps'; value: number; echo: number }
  | { kind: 'sack'; blocks: [Seq, Seq][] }
  | { kind: 'nop' }
  | TiOption
  | { kind: 'unknown'; number: number; bytes: Uint8Array }; // bytes after kind and length

/** Option space of a TCP header: data offset 15, minus the 20 fixed bytes. */
export const OPTIONS_BYTES_MAX = 40;

const END = 0;
const NOP = 1;
const MSS = 2;
const WSCALE = 3;
const SACK_PERMITTED = 4;
const SACK = 5;
const TIMESTAMPS = 8;

/** The option's bytes as on the wire, kind byte first.  Throws RangeError if it cannot be one. */
export function encodeOption(o: TcpOption): Uint8Array {
  switch (o.kind) {
    case 'mss':
      return Uint8Array.of(MSS, 4, o.mss >> 8, o.mss & 0xff);
    case 'sack-permitted':
      return Uint8Array.of(SACK_PERMITTED, 2);
    case 'wscale':
      return Uint8Array.of(WSCALE, 3, o.shift);
    case 'timestamps':
      return words(TIMESTAMPS, [o.value, o.echo]);
    case 'sack':
      return words(SACK, o.blocks.flat());
    case 'nop':
      return Uint8Array.of(NOP);
    case 'unknown':
      return encodeUnknown(o.number, o.bytes);
    default:
      return encodeTiOption(o);
  }
}

/**
 * The options in `bytes`, the part of a TCP header after its 20 fixed bytes, of a packet with
 * `flags` (a TI_SYNC on a SYN and one on a SYN/ACK differ).  Ends at the end-of-list option;
 * what follows that is padding.  Never throws.
 */
export function decodeOptions(bytes: Uint8Array, flags: string): TcpOption[] | { error: string } {
  const options: TcpOption[] = [];
  let at = 0;
  while (at < bytes.length) {
    const kind = bytes[at] ?? END;
    if (kind === END) break;
    if (kind === NOP) {
      options.push({ kind: 'nop' });
      at += 1;
      continue;
    }
    const length = bytes[at + 1];
    if (length === undefined) return { error: `option ${kind} has no length` };
    if (length < 2) return { error: `option ${kind} has length ${length}` };
    if (at + length > bytes.length) return { error: `option ${kind} ends behind the header` };
    options.push(decodeOption(bytes.subarray(at, at + length), flags));
    at += length;
  }
  return options;
}

/** One option, kind byte first, exactly as long as its length byte says. */
function decodeOption(bytes: Uint8Array, flags: string): TcpOption {
  const number = bytes[0] ?? END;
  return decodeKnown(number, bytes, flags) ?? { kind: 'unknown', number, bytes: bytes.slice(2) };
}

function decodeKnown(number: number, bytes: Uint8Array, flags: string): TcpOption | undefined {
  const length = bytes.length;
  switch (number) {
    case MSS:
      return length === 4 ? { kind: 'mss', mss: word(bytes, 0) & 0xffff } : undefined;
    case WSCALE:
      return length === 3 ? { kind: 'wscale', shift: bytes[2] ?? 0 } : undefined;
    case SACK_PERMITTED:
      return length === 2 ? { kind: 'sack-permitted' } : undefined;
    case SACK:
      return length >= 10 && length % 8 === 2 ? decodeSack(bytes) : undefined;
    case TIMESTAMPS:
      return length === 10
        ? { kind: 'timestamps', value: word(bytes, 2), echo: word(bytes, 6) }
        : undefined;
    case TI.kind:
      return decodeTiOption(bytes, flags);
    default:
      return undefined;
  }
}

function decodeSack(bytes: Uint8Array): TcpOption {
  const blocks: [Seq, Seq][] = [];
  for (let at = 2; at < bytes.length; at += 8) {
    blocks.push([seq(word(bytes, at)), seq(word(bytes, at + 4))]);
  }
  return { kind: 'sack', blocks };
}

function encodeUnknown(number: number, bytes: Uint8Array): Uint8Array {
  if (number <= NOP || number > 255) throw new RangeError(`option ${number} has no length byte`);
  if (bytes.length > OPTIONS_BYTES_MAX - 2) {
    throw new RangeError(`option of ${bytes.length + 2} bytes; a header has ${OPTIONS_BYTES_MAX}`);
  }
  return Uint8Array.of(number, 2 + bytes.length, ...bytes);
}

/** The 32-bit number at `at`; the caller has checked that it is there. */
const word = (b: Uint8Array, at: number): number =>
  (((b[at] ?? 0) << 24) | ((b[at + 1] ?? 0) << 16) | ((b[at + 2] ?? 0) << 8) | (b[at + 3] ?? 0)) >>>
  0;

function words(kind: number, numbers: number[]): Uint8Array {
  const bytes = new Uint8Array(2 + 4 * numbers.length);
  const view = new DataView(bytes.buffer);
  bytes[0] = kind;
  bytes[1] = bytes.length;
  for (const [index, number] of numbers.entries()) view.setUint32(2 + 4 * index, number);
  return bytes;
}
