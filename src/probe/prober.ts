/*
 * Sends SYNs of its own and hears what is answered: to a host, and from routers on the way.
 *
 * Our kernel knows no socket for them and resets each SYN/ACK, which is just what is wanted: no
 * connection stays half open at the far end.  As the answer may have been lost on the way back,
 * each SYN is followed by a reset from here as well.  A boundary on this machine lets all of them
 * pass (segments.ts); its daemon is not needed.
 */

import { SystemError } from '../libc/errno.js';
import { openRawFrom, receiveFrom, reservePort } from '../libc/inet-socket.js';
import { Poller } from '../libc/poller.js';
import { RawSender } from '../libc/raw.js';
import { AF_INET, AF_INET6, closeFd, openSocket, SOCK_RAW } from '../libc/socket.js';
import { type Address, addressBytes, family } from '../wire/address.js';
import { type IcmpError, parseIcmpError } from '../wire/icmp-error.js';
import {
  IP_PROTOCOL_ICMP,
  IP_PROTOCOL_ICMP6,
  IP_PROTOCOL_TCP,
  ipHeaderBytes,
  parseIpHeader,
  writeIpHeader,
} from '../wire/ip.js';
import type { TcpOption } from '../wire/option.js';
import { decodePacket, encodePacket, type Packet } from '../wire/packet.js';
import { seq } from '../wire/seq.js';
import { type Answer, answerIn } from './answer.js';
import { type Random, resetOf, syn } from './segments.js';

/** Like those of TCP: one may be lost. */
const RETRANSMIT_MS = 1000;
const DATAGRAM_MAX = 65536;

export interface Way {
  source: Address;
  destination: Address;
  destinationPort: number;
}

/** An ICMP error about a SYN, and who sent it. */
export interface Report {
  from: Address;
  error: IcmpError;
  ms: number;
}

/** Either. */
type Outcome = { answer: Answer } | { report: Report };

interface Asked {
  syn: Packet;
  sentMs: number;
  settle: (outcome: Outcome) => void;
}

export class Prober {
  readonly #way: Way;
  readonly #random: Random;
  readonly #poller = new Poller();
  readonly #sender = new RawSender();
  readonly #fds: number[] = [];
  readonly #buffer = new Uint8Array(DATAGRAM_MAX);
  readonly #asked = new Map<number, Asked>();
  /** SYNs that may have begun something at the far end */
  readonly #open = new Set<Packet>();

  /** Needs CAP_NET_RAW, and CAP_NET_ADMIN for the mark.  Throws SystemError. */
  constructor(way: Way, random: Random) {
    this.#way = way;
    this.#random = random;
    const tcp = openRawFrom(way.destination, IP_PROTOCOL_TCP);
    const icmp =
      family(way.destination) === 4
        ? openSocket(AF_INET, SOCK_RAW, IP_PROTOCOL_ICMP)
        : openSocket(AF_INET6, SOCK_RAW, IP_PROTOCOL_ICMP6);
    this.#fds.push(tcp, icmp);
    this.#poller.add(tcp, () => this.#drain(tcp, (bytes) => this.#takeTcp(bytes)));
    this.#poller.add(icmp, () => this.#drain(icmp, (bytes, from) => this.#takeIcmp(bytes, from)));
  }

  /** What the far end, or a router on the way, answers to a SYN with these options. */
  async ask(options: TcpOption[], boundMs: number): Promise<Answer> {
    const asked = this.#prepare(options);
    const outcome = await this.#exchange(asked, boundMs, RETRANSMIT_MS);
    if (outcome === undefined) return { kind: 'none' };
    if ('answer' in outcome) return outcome.answer;
    const { from, error, ms } = outcome.report;
    return { kind: 'unreachable', from, why: error.why, ms };
  }

  /** SYNs that die after one hop, two ... up to `hopsMax`, all of one connection. */
  async *hops(
    options: TcpOption[],
    o: { hopsMax: number; boundMs: number },
  ): AsyncGenerator<Outcome | undefined> {
    const first = this.#prepare(options);
    for (let hop = 1; hop <= o.hopsMax; hop++) {
      // The number tells which hop an answer is about: it is all that every router quotes.
      yield this.#exchange({ ...first, seq: seq(first.seq + hop), hopLimit: hop }, o.boundMs);
    }
  }

  /** Ends at the far end what is still half open there; to be called in any case. */
  close(): void {
    for (const packet of this.#open) this.#reset(packet);
    this.#poller.close();
    for (const fd of this.#fds) closeFd(fd);
    this.#sender.close();
  }

  #prepare(options: TcpOption[]): Packet {
    const { fd, port } = reservePort(this.#way.source);
    this.#fds.push(fd);
    const iss = seq(new DataView(this.#random(4).buffer).getUint32(0));
    return syn({ ...this.#way, sourcePort: port }, iss, options);
  }

  async #exchange(
    packet: Packet,
    boundMs: number,
    againMs = Number.POSITIVE_INFINITY,
  ): Promise<Outcome | undefined> {
    const bytes = encodePacket(packet);
    const timers: NodeJS.Timeout[] = [];
    const outcome = await new Promise<Outcome | undefined>((resolve) => {
      const asked = { syn: packet, sentMs: performance.now(), settle: resolve };
      this.#asked.set(packet.sourcePort, asked);
      this.#open.add(packet);
      this.#sender.toWire(bytes);
      for (let at = againMs; at < boundMs; at += againMs) {
        timers.push(setTimeout(() => this.#sender.toWire(bytes), at));
      }
      timers.push(setTimeout(() => resolve(undefined), boundMs));
    });
    for (const timer of timers) clearTimeout(timer);
    this.#asked.delete(packet.sourcePort);
    this.#end(packet, outcome);
    return outcome;
  }

  /** A reset, or a router that let nothing through, has left nothing open. */
  #end(packet: Packet, outcome: Outcome | undefined): void {
    const nothing =
      outcome !== undefined && ('report' in outcome || outcome.answer.kind === 'reset');
    if (!nothing) this.#reset(packet);
    this.#open.delete(packet);
  }

  #reset(packet: Packet): void {
    this.#sender.toWire(encodePacket(resetOf(packet)));
  }

  #drain(fd: number, take: (bytes: Uint8Array, from: Address) => void): void {
    for (;;) {
      try {
        const received = receiveFrom(fd, this.#buffer);
        if (received === undefined) return;
        take(this.#buffer.subarray(0, received.length), received.from);
      } catch (error) {
        // An ICMP error, for the program of a socket: we have read the message itself.
        if (!(error instanceof SystemError)) throw error;
      }
    }
  }

  #takeTcp(bytes: Uint8Array): void {
    const { source, destination } = this.#way;
    const packet = decodePacket(
      family(source) === 4
        ? bytes
        : withHeader(bytes, { source: destination, destination: source }),
    );
    if ('error' in packet || packet.sourcePort !== this.#way.destinationPort) return;
    const asked = this.#asked.get(packet.destinationPort);
    if (asked === undefined) return;
    const answer = answerIn(asked.syn, packet, performance.now() - asked.sentMs);
    if (answer !== undefined) asked.settle({ answer });
  }

  #takeIcmp(bytes: Uint8Array, from: Address): void {
    const version = family(this.#way.source);
    const message = version === 4 ? payloadOf(bytes) : bytes;
    const error = message && parseIcmpError(version, message);
    if (error === undefined) return;
    const asked = this.#asked.get(error.quoted.sourcePort);
    if (asked === undefined || !this.#isOurs(asked.syn, error)) return;
    asked.settle({ report: { from, error, ms: performance.now() - asked.sentMs } });
  }

  #isOurs(sent: Packet, { quoted }: IcmpError): boolean {
    return (
      quoted.seq === sent.seq &&
      quoted.destinationPort === sent.destinationPort &&
      Buffer.compare(quoted.destination, addressBytes(sent.destination)) === 0
    );
  }
}

const payloadOf = (bytes: Uint8Array): Uint8Array | undefined => {
  const ip = parseIpHeader(bytes, false);
  return 'error' in ip ? undefined : bytes.subarray(ip.headerBytes, ip.endByte);
};

/** IPv6 raw sockets deliver no header: the kernel has used it to find the socket. */
function withHeader(
  segment: Uint8Array,
  { source, destination }: { source: Address; destination: Address },
): Uint8Array {
  const bytes = new Uint8Array(ipHeaderBytes(6) + segment.length);
  bytes.set(segment, ipHeaderBytes(6));
  const ends = { source: addressBytes(source), destination: addressBytes(destination) };
  writeIpHeader(bytes, { ...ends, protocol: IP_PROTOCOL_TCP, hopLimit: 64 });
  return bytes;
}
