/**
 * A middlebox that rewrites initial sequence numbers, as firewalls do that distrust the ISNs of
 * the hosts behind them (Cisco's "TCP sequence randomization" is the best known): each
 * connection, both directions, gets a random delta when its SYN passes. It changes SEQ and ACK
 * and, unless it is one of the old ones that forget them, the edges of SACK blocks.
 *
 * Pure: frames in, frames changed in place. Between two TAPs it is part of programs/wire.ts.
 */
import { checksumAdd, internetChecksum } from '../wire/checksum.js';

/** 'sack-forgotten': SACK blocks keep the numbers that the far end has never seen. */
export type IsnMode = 'rewritten' | 'sack-forgotten';
export const ISN_MODES: readonly IsnMode[] = ['rewritten', 'sack-forgotten'];

/** Which of the two sides of the box the sender is on. */
export type Side = 'a' | 'b';

interface Connection {
  /** of the SYN: another one on the same ports is another connection */
  isn: number;
  delta: Record<Side, number>;
}

interface Segment {
  /** of the TCP header in the frame */
  at: number;
  options: number;
  payload: number;
  key: string;
  flags: number;
  pseudoSum: number;
}

/** As a small firewall's table; the oldest is forgotten, and then passes as it is. */
const CONNECTIONS_MAX = 4096;
const ETHERNET = 14;
const TCP = 6;
const SYN = 0x02;
const ACK = 0x10;
const OPTION = { end: 0, nop: 1, sack: 5 };

export class Randomizer {
  readonly #mode: IsnMode;
  readonly #draw: () => number;
  readonly #onConnection: (key: string) => void;
  readonly #connections = new Map<string, Connection>();

  /** `draw` returns random 32-bit numbers; `onConnection` hears of each new connection. */
  constructor(mode: IsnMode, draw: () => number, onConnection: (key: string) => void = () => {}) {
    this.#mode = mode;
    this.#draw = draw;
    this.#onConnection = onConnection;
  }

  /** Changes the frame, which comes from that side and has a right TCP checksum, in place. */
  rewrite(frame: Buffer, from: Side): void {
    const s = segment(frame, from);
    if (!s) return;
    const connection = this.#connection(frame, s);
    if (!connection) return;
    const { delta } = connection;
    const back = -delta[from === 'a' ? 'b' : 'a'];
    add(frame, s.at + 4, delta[from]);
    if (s.flags & ACK) add(frame, s.at + 8, back);
    if (this.#mode === 'rewritten') {
      for (const edge of sackEdges(frame, s)) add(frame, edge, back);
    }
    frame.writeUInt16BE(0, s.at + 16);
    frame.writeUInt16BE(internetChecksum(frame.subarray(s.at, s.payload), s.pseudoSum), s.at + 16);
  }

  #connection(frame: Buffer, s: Segment): Connection | undefined {
    const known = this.#connections.get(s.key);
    if ((s.flags & (SYN | ACK)) !== SYN) return known;
    const isn = frame.readUInt32BE(s.at + 4);
    if (known?.isn === isn) return known;
    const fresh = { isn, delta: { a: this.#draw(), b: this.#draw() } };
    this.#connections.delete(s.key);
    const [oldest] = this.#connections.keys();
    if (this.#connections.size >= CONNECTIONS_MAX && oldest !== undefined) {
      this.#connections.delete(oldest);
    }
    this.#connections.set(s.key, fresh);
    this.#onConnection(s.key);
    return fresh;
  }
}

/** The TCP segment of a frame; undefined: none, a fragment, or one behind extension headers. */
function segment(frame: Buffer, from: Side): Segment | undefined {
  const ip = frame.subarray(ETHERNET);
  if (ip.length < 40) return undefined;
  const v6 = frame.readUInt16BE(12) === 0x86dd;
  if (!v6 && frame.readUInt16BE(12) !== 0x0800) return undefined;
  const header = v6 ? 40 : (ip.readUInt8(0) & 15) * 4;
  const end = v6 ? 40 + ip.readUInt16BE(4) : ip.readUInt16BE(2);
  if (ip.readUInt8(v6 ? 6 : 9) !== TCP || end > ip.length || end < header + 20) return undefined;
  if (!v6 && (ip.readUInt16BE(6) & 0x3fff) !== 0) return undefined;
  const addresses = v6 ? ip.subarray(8, 40) : ip.subarray(12, 20);
  const tcp = ip.subarray(header, end);
  const at = ETHERNET + header;
  const options = at + 20;
  const half = addresses.length / 2;
  const source = `${addresses.toString('hex', 0, half)}.${tcp.readUInt16BE(0)}`;
  const target = `${addresses.toString('hex', half)}.${tcp.readUInt16BE(2)}`;
  return {
    ...{ at, options, payload: ETHERNET + end, flags: tcp.readUInt8(13) },
    key: from === 'a' ? `${source} ${target}` : `${target} ${source}`,
    pseudoSum: checksumAdd(addresses) + TCP + tcp.length,
  };
}

/** Where the edges of SACK blocks stand in the frame. */
function sackEdges(frame: Buffer, s: Segment): number[] {
  const end = Math.min(s.at + (frame.readUInt8(s.at + 12) >> 4) * 4, s.payload);
  for (let at = s.options; at < end; ) {
    const kind = frame.readUInt8(at);
    if (kind === OPTION.end) break;
    const length = kind === OPTION.nop ? 1 : at + 1 < end ? frame.readUInt8(at + 1) : 0;
    if (length === 0 || (kind !== OPTION.nop && length < 2) || at + length > end) break;
    if (kind === OPTION.sack) {
      return Array.from({ length: Math.floor((length - 2) / 4) }, (_, i) => at + 2 + 4 * i);
    }
    at += length;
  }
  return [];
}

const add = (frame: Buffer, at: number, delta: number): void => {
  frame.writeUInt32BE((frame.readUInt32BE(at) + delta) >>> 0, at);
};
