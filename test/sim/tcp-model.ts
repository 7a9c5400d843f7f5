/*
 * A kernel's end of one established TCP connection, as far as a move can disturb it: sequence
 * space, retransmission with a timer that backs off, reassembly, RFC 5961's view of resets,
 * RFC 6069's of ICMP.  No congestion control, no SACK, no timestamps: a fixed window of segments.
 *
 * What the program writes and must read is a pattern: each byte follows from its offset, so
 * every byte is compared when it is delivered.
 */
import assert from 'node:assert/strict';
import type { Clock } from '../../src/sync/clock.js';
import type { Packet } from '../../src/wire/packet.js';
import { type Seq, seqAdd, seqAfter, seqBefore, seqDiff, seqWithin } from '../../src/wire/seq.js';
import type { Tuple } from '../../src/wire/tuple.js';

const MSS = 400;
const SEGMENTS_IN_FLIGHT = 8;
const WINDOW = 60_000;
const RTO_MS = 200;
const BACKOFF_MAX = 6;
const DELAYED_ACK_MS = 40;

export interface TcpEnd {
  tuple: Tuple;
  iss: Seq;
  irs: Seq;
  /** Which of the two patterns this end writes; it reads the other. */
  pattern: 0 | 1;
}

export class TcpModel {
  /** Bytes the program has written and read so far. */
  written = 0;
  read = 0;
  closed = false;
  peerClosed = false;
  /** What the program saw: any is a failed run. */
  error: string | undefined;

  #sndUna: Seq;
  #sndNxt: Seq;
  #sndMax: Seq;
  #rcvNxt: Seq;
  #ackSent: Seq;
  #backoff = 0;
  #sentAt = 0;
  #duplicates = 0;
  #timer: unknown;
  #ackTimer: unknown;
  readonly #early = new Map<number, Packet>();

  constructor(
    readonly end: TcpEnd,
    private readonly clock: Clock,
    private readonly output: (packet: Packet) => void,
  ) {
    this.#sndUna = this.#sndNxt = this.#sndMax = seqAdd(end.iss, 1);
    this.#rcvNxt = this.#ackSent = seqAdd(end.irs, 1);
  }

  /** Not after close: the FIN has a number of its own, and the pattern would go on behind it. */
  write(bytes: number): void {
    assert.ok(!this.closed, 'a write after close');
    this.written += bytes;
    this.#transmit();
  }

  close(): void {
    this.closed = true;
    this.#transmit();
  }

  /** Whether everything written has been acknowledged, the FIN with it. */
  isFlushed(): boolean {
    return this.#sndUna === this.#endOfStream();
  }

  progress(): { unacked: number; retransmits: number } {
    return { unacked: this.#isIdle() ? 0 : 1, retransmits: this.#backoff };
  }

  receive(p: Packet): void {
    if (this.error !== undefined) return;
    if (!this.#isAcceptable(p)) {
      if (!p.flags.includes('R')) this.#sendAck();
      return;
    }
    if (p.flags.includes('R')) {
      // RFC 5961, section 3.2: anything but an exact match is challenged.
      if (p.seq === this.#rcvNxt) this.error = 'connection reset';
      else this.#sendAck();
      return;
    }
    if (p.flags.includes('A')) this.#acknowledged(p);
    if (p.payload.length > 0 || p.flags.includes('F')) this.#take(p);
  }

  /** RFC 6069: an unreachable that quotes SND.UNA takes back one doubling. */
  unreachable(quoted: Seq): void {
    if (quoted !== this.#sndUna || this.#backoff === 0 || this.#isIdle()) return;
    this.#backoff -= 1;
    const leftMs = this.#sentAt + this.#rtoMs() - this.clock.now();
    if (leftMs > 0) this.#arm(leftMs);
    else this.#timeout();
  }

  /** RFC 9293, section 3.10.7.4, with Linux' left edge: the last ACK sent. */
  #isAcceptable(p: Packet): boolean {
    const end = seqAdd(p.seq, p.payload.length + (p.flags.includes('F') ? 1 : 0));
    return !seqBefore(end, this.#ackSent) && !seqAfter(p.seq, seqAdd(this.#rcvNxt, WINDOW));
  }

  #acknowledged(p: Packet): void {
    if (seqAfter(p.ack, this.#sndMax)) {
      this.#sendAck();
      return;
    }
    if (seqAfter(p.ack, this.#sndUna)) {
      this.#sndUna = p.ack;
      if (seqBefore(this.#sndNxt, p.ack)) this.#sndNxt = p.ack;
      this.#backoff = 0;
      this.#duplicates = 0;
      this.#disarm();
      if (!this.#isIdle()) this.#arm(this.#rtoMs());
      this.#transmit();
      return;
    }
    const isDuplicate = p.ack === this.#sndUna && p.payload.length === 0 && !this.#isIdle();
    if (isDuplicate && ++this.#duplicates === 3) this.#retransmit();
  }

  #take(p: Packet): void {
    this.#early.set(p.seq, p);
    let advanced = false;
    for (let more = true; more; ) {
      more = false;
      for (const [key, early] of this.#early) {
        if (seqAfter(early.seq, this.#rcvNxt)) continue;
        this.#early.delete(key);
        if (this.#deliver(early)) advanced = more = true;
      }
    }
    if (advanced && this.#early.size === 0) this.#ackLater();
    else this.#sendAck();
  }

  /** Delivers what is new in a segment that begins at or before RCV.NXT. */
  #deliver(p: Packet): boolean {
    const fresh = p.payload.subarray(Math.min(p.payload.length, seqDiff(this.#rcvNxt, p.seq)));
    const fin = p.flags.includes('F') && !this.peerClosed;
    const finAt = seqAdd(p.seq, p.payload.length);
    for (const byte of fresh) {
      const expected = patternByte(this.end.pattern === 0 ? 1 : 0, this.read);
      if (byte !== expected) this.error ??= `byte ${this.read} is ${byte}, not ${expected}`;
      this.read += 1;
    }
    this.#rcvNxt = seqAdd(this.#rcvNxt, fresh.length);
    if (fin && finAt === this.#rcvNxt) {
      this.peerClosed = true;
      this.#rcvNxt = seqAdd(this.#rcvNxt, 1);
      return true;
    }
    return fresh.length > 0;
  }

  #endOfStream(): Seq {
    return seqAdd(this.end.iss, 1 + this.written + (this.closed ? 1 : 0));
  }

  #isIdle(): boolean {
    return this.#sndUna === this.#sndMax;
  }

  #transmit(): void {
    while (
      seqBefore(this.#sndNxt, this.#endOfStream()) &&
      seqDiff(this.#sndNxt, this.#sndUna) < MSS * SEGMENTS_IN_FLIGHT
    ) {
      const wasIdle = this.#isIdle();
      this.#sndNxt = this.#sendSegment(this.#sndNxt);
      if (seqAfter(this.#sndNxt, this.#sndMax)) this.#sndMax = this.#sndNxt;
      if (wasIdle) this.#arm(this.#rtoMs());
    }
  }

  /** Sends one segment from `at`; comes back with its end. */
  #sendSegment(at: Seq): Seq {
    const offset = seqDiff(at, seqAdd(this.end.iss, 1));
    const length = Math.min(MSS, this.written - offset);
    const payload = new Uint8Array(Math.max(0, length));
    for (let i = 0; i < length; i++) payload[i] = patternByte(this.end.pattern, offset + i);
    const fin = this.closed && offset + payload.length >= this.written;
    const flags = `${fin ? 'F' : ''}${payload.length > 0 ? 'P' : ''}A`;
    this.#sentAt = this.clock.now();
    this.#send(flags, at, payload);
    return seqAdd(at, payload.length + (fin ? 1 : 0));
  }

  #sendAck(): void {
    this.#send('A', this.#sndMax, new Uint8Array(0));
  }

  #ackLater(): void {
    this.#ackTimer ??= this.clock.setTimer(DELAYED_ACK_MS, () => this.#sendAck());
  }

  #send(flags: string, at: Seq, payload: Uint8Array): void {
    if (this.#ackTimer !== undefined) this.clock.clearTimer(this.#ackTimer);
    this.#ackTimer = undefined;
    this.#ackSent = this.#rcvNxt;
    const { local, localPort, remote, remotePort } = this.end.tuple;
    this.output({
      source: local,
      sourcePort: localPort,
      destination: remote,
      destinationPort: remotePort,
      flags,
      seq: at,
      ack: this.#rcvNxt,
      window: WINDOW,
      options: [],
      payload,
    });
  }

  #rtoMs(): number {
    return RTO_MS * 2 ** this.#backoff;
  }

  #arm(ms: number): void {
    this.#disarm();
    this.#timer = this.clock.setTimer(ms, () => this.#timeout());
  }

  #disarm(): void {
    if (this.#timer !== undefined) this.clock.clearTimer(this.#timer);
    this.#timer = undefined;
  }

  #timeout(): void {
    this.#timer = undefined;
    if (this.#isIdle() || this.error !== undefined) return;
    this.#backoff = Math.min(BACKOFF_MAX, this.#backoff + 1);
    this.#retransmit();
    this.#arm(this.#rtoMs());
  }

  /** Go-back-N after the first: simple, and it makes many segments below a new base. */
  #retransmit(): void {
    if (!seqWithin(this.#sndUna, this.#sndUna, this.#sndMax)) return;
    this.#sndNxt = this.#sendSegment(this.#sndUna);
    if (seqAfter(this.#sndNxt, this.#sndMax)) this.#sndMax = this.#sndNxt;
  }
}

/** Prime factors and the high bits, so that no shift of the stream looks like the stream. */
const patternByte = (pattern: 0 | 1, offset: number): number =>
  (offset * 31 + (offset >> 8) * 17 + (offset % 251) + pattern * 101) & 0xff;
