/*
 * A packet as one line, close to packetdrill's, for tests, logs, errors and documents:
 *
 *     S  0:0(0) win 65535 <mss 1460,sackOK,ti-open 0a0b0c0d>
 *     SA 0:0(0) ack 1 win 65535 <mss 1460>
 *     PA 1:101(100) ack 1 win 512
 *
 * Flags, first and last sequence number (SYN and FIN not counted) and length, ack if the ACK
 * flag is set, window as in the header, options.  Not in the line: addresses, ports, hop
 * limit and the payload's bytes; they come from the defaults when a line is read.
 */
import type { Address } from './address.js';
import { FLAG_LETTERS } from './flags.js';
import { formatOption, parseOption } from './option-notation.js';
import type { Packet } from './packet.js';
import { type Seq, seq, seqAdd } from './seq.js';

/** What the numbers of a line are relative to: `ack` and SACK blocks to the second. */
export interface NotationBase {
  seq?: Seq;
  ack?: Seq;
}

/** What a line does not say. */
export interface PacketDefaults {
  source: Address;
  sourcePort: number;
  destination: Address;
  destinationPort: number;
  hopLimit?: number;
  base?: NotationBase;
  /** The payload of `length` bytes at `offset` from the base; zeros by default. */
  fill?: (offset: number, length: number) => Uint8Array;
}

/** The packet as one line, its numbers relative to `base`. */
export function formatPacket(p: Packet, base: NotationBase = {}): string {
  const start = seq(p.seq - (base.seq ?? 0));
  const end = seqAdd(start, p.payload.length);
  const ackBase = base.ack ?? seq(0);
  const ack = p.flags.includes('A') ? ` ack ${seq(p.ack - ackBase)}` : '';
  const options = p.options.map((option) => formatOption(option, ackBase)).join(',');
  const list = options === '' ? '' : ` <${options}>`;
  const flags = (p.flags === '' ? '-' : p.flags).padEnd(2);
  return `${flags} ${start}:${end}(${p.payload.length})${ack} win ${p.window}${list}`;
}

const LINE =
  /^(?<flags>[A-Z]+|-)\s+(?<start>\d+):(?<end>\d+)\((?<length>\d+)\)(?: ack (?<ack>\d+))? win (?<window>\d+)(?: <(?<options>[^>]*)>)?$/;

/**
 * The packet that `line` denotes, completed from `defaults`.  Throws SyntaxError, which quotes
 * the line, if it denotes none.
 */
export function parsePacketLine(line: string, defaults: PacketDefaults): Packet {
  const groups = LINE.exec(line.trim())?.groups;
  if (groups === undefined) throw new SyntaxError(`not a packet: '${line}'`);
  const fail = (what: string): never => {
    throw new SyntaxError(`${what} in packet '${line}'`);
  };
  const flags = groups.flags === '-' ? '' : (groups.flags ?? '');
  if (!flagsInOrder(flags)) fail(`flags are a subset of ${FLAG_LETTERS} in that order`);
  if (flags.includes('A') !== (groups.ack !== undefined)) fail(`ack without flag A, or A without`);
  const start = Number(groups.start);
  const length = Number(groups.length);
  if (length > 0xffff) fail('length above 65535');
  if (seq(start + length) !== seq(Number(groups.end))) fail(`end is not start plus length`);
  const window = Number(groups.window);
  if (window > 0xffff) fail(`window above 65535`);
  const ackBase = defaults.base?.ack ?? seq(0);
  const items = (groups.options ?? '').split(',').filter((item) => item.trim() !== '');
  const payload = defaults.fill?.(start, length) ?? new Uint8Array(length);
  return {
    source: defaults.source,
    sourcePort: defaults.sourcePort,
    destination: defaults.destination,
    destinationPort: defaults.destinationPort,
    flags,
    seq: seqAdd(seq(start), defaults.base?.seq ?? 0),
    ack: groups.ack === undefined ? seq(0) : seqAdd(seq(Number(groups.ack)), ackBase),
    window,
    options: items.map((item) => parseOption(item, ackBase) ?? fail(`option '${item}'`)),
    payload,
    ...(defaults.hopLimit === undefined ? {} : { hopLimit: defaults.hopLimit }),
  };
}

const flagsInOrder = (flags: string): boolean =>
  [...FLAG_LETTERS].filter((letter) => flags.includes(letter)).join('') === flags;
