/*
 * Performs what verification.ts wants on an interface: frames of our own, from its hardware address,
 * beside the kernel and whatever DHCP client there is, whose state none of this changes.
 */
import { randomBytes } from 'node:crypto';
import { SystemError } from '../libc/errno.js';
import { after, attempt } from '../libc/guard.js';
import { monotonicMs } from '../libc/monotonic.js';
import { type FilterLine, openPacketSocket } from '../libc/packet-socket.js';
import type { Poller } from '../libc/poller.js';
import { closeFd, packetSockaddr, receive, sendTo } from '../libc/socket.js';
import type { Netlink } from '../netlink/netlink.js';
import { decodeArp, encodeArp } from '../wire/arp.js';
import { decodeDhcp, EVERYBODY, encodeDhcp, NOBODY } from '../wire/dhcp.js';
import { BROADCAST_MAC, decodeFrame, ETHERTYPE, encodeFrame, type Mac } from '../wire/ethernet.js';
import { decodeNeighbour } from '../wire/neighbour.js';
import { solicitRouters } from './router-solicitation.js';
import {
  type Claim,
  type LeaseIdentity,
  newVerification,
  step,
  type Verdict,
  type Verification,
  type VerificationEffect,
  type VerificationEvent,
} from './verification.js';

/* Code of classic BPF: load 2 bytes, 1 byte, 2 bytes behind X; X = length of the IPv4 header. */
const [LDH, LDB, LDH_X, LDX_IP] = [0x28, 0x30, 0x48, 0xb1];
const [JEQ, JSET, RET] = [0x15, 0x45, 0x06];

/**
 * ARP; UDP to port 68 in a packet that is no later fragment; ICMPv6 of type 134.  Jumps are relative:
 * all that is wanted goes to line 13, all else to line 14.
 */
const HEARD: readonly FilterLine[] = [
  [LDH, 0, 0, 12],
  [JEQ, 11, 0, ETHERTYPE.ARP],
  [JEQ, 0, 7, ETHERTYPE.IPV4],
  [LDB, 0, 0, 23],
  [JEQ, 0, 9, 17],
  [LDH, 0, 0, 20],
  [JSET, 7, 0, 0x1fff],
  [LDX_IP, 0, 0, 14],
  [LDH_X, 0, 0, 16],
  [JEQ, 3, 4, 68],
  [JEQ, 0, 3, ETHERTYPE.IPV6],
  [LDB, 0, 0, 54],
  [JEQ, 0, 1, 134],
  [RET, 0, 0, 0xffff],
  [RET, 0, 0, 0],
];

const FRAME_BYTES = 2048;

/* Closing a packet socket waits for a grace period of RCU, some 10 ms: not while flows move. */
const CLOSE_LATER_MS = 3_000;

/* The link is down or gone, its queue is full, or a firewall says no: then nobody answers. */
const NOT_SENT = ['ENETDOWN', 'ENXIO', 'ENODEV', 'ENOBUFS', 'EPERM', 'EAGAIN'];

export interface VerifierOptions {
  netlink: Netlink;
  poller: Poller;
  index: number;
  claim: Claim;
  onVerdict: (family: 4 | 6, verdict: Verdict) => void;
}

/** One verification; it begins at once. */
export class Verifier {
  #o: VerifierOptions;
  #state: Verification;
  #fd: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #buffer = new Uint8Array(FRAME_BYTES);

  /** Throws SystemError. */
  constructor(o: VerifierOptions) {
    this.#o = o;
    this.#state = newVerification(o.claim, monotonicMs(), randomBytes(4).readUInt32BE());
    this.#fd = openPacketSocket(o.index, HEARD);
    o.poller.add(this.#fd, () => this.#drain());
    this.#happen({ event: 'timer' });
  }

  /** The address is a lease: servers may be asked for it under this name. */
  lease(identity: LeaseIdentity): void {
    this.#happen({ event: 'lease', identity });
  }

  /** Ends it; nothing more is said. */
  close(): void {
    clearTimeout(this.#timer);
    const fd = this.#fd;
    if (fd === undefined) return;
    this.#fd = undefined;
    this.#o.poller.remove(fd);
    after(CLOSE_LATER_MS, () => closeFd(fd)).unref();
  }

  #happen(event: VerificationEvent): void {
    const { next, effects } = step(this.#state, event, monotonicMs());
    this.#state = next;
    for (const effect of effects) {
      // Whoever is told may have closed us.
      if (this.#fd !== undefined) this.#perform(effect, this.#fd);
    }
  }

  #perform(e: VerificationEffect, fd: number): void {
    switch (e.effect) {
      case 'arp':
        this.#send(fd, e.arp.targetMac, ETHERTYPE.ARP, encodeArp(e.arp));
        return;
      case 'dhcp': {
        const packet = { source: NOBODY, destination: EVERYBODY, message: e.message };
        this.#send(fd, BROADCAST_MAC, ETHERTYPE.IPV4, encodeDhcp(packet));
        return;
      }
      case 'solicit':
        attempt(() => solicitRouters(this.#o.netlink, this.#o.index));
        return;
      case 'arm':
        clearTimeout(this.#timer);
        this.#timer = after(e.ms, () => this.#happen({ event: 'timer' })).unref();
        return;
      case 'verdict':
        this.#o.onVerdict(e.family, e.verdict);
        return;
      case 'end':
        this.close();
        return;
    }
  }

  #send(fd: number, destination: Mac, etherType: number, payload: Uint8Array): void {
    const frame = encodeFrame({ destination, source: this.#o.claim.mac, etherType, payload });
    try {
      sendTo(fd, frame, packetSockaddr(this.#o.index, etherType));
    } catch (error) {
      if (!(error instanceof SystemError) || !NOT_SENT.includes(error.code)) throw error;
    }
  }

  #drain(): void {
    while (this.#fd !== undefined) {
      const length = this.#receive(this.#fd);
      if (length < 0) return;
      const event = heard(this.#buffer.slice(0, length));
      if (event !== undefined) this.#happen(event);
    }
  }

  /* The link going down is told as an error of the socket, once. */
  #receive(fd: number): number {
    try {
      return receive(fd, this.#buffer);
    } catch (error) {
      if (error instanceof SystemError && error.code === 'ENETDOWN') return -1;
      throw error;
    }
  }
}

function heard(bytes: Uint8Array): VerificationEvent | undefined {
  const frame = decodeFrame(bytes);
  if ('error' in frame) return undefined;
  switch (frame.etherType) {
    case ETHERTYPE.ARP: {
      const arp = decodeArp(frame.payload);
      return 'error' in arp ? undefined : { event: 'arp', arp };
    }
    case ETHERTYPE.IPV4: {
      const packet = decodeDhcp(frame.payload);
      return 'error' in packet ? undefined : { event: 'dhcp', message: packet.message };
    }
    default: {
      const packet = decodeNeighbour(frame.payload);
      if ('error' in packet || packet.message.kind !== 'router-advertisement') return undefined;
      return { event: 'advertisement', message: packet.message };
    }
  }
}
