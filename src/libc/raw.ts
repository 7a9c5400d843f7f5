/*
 * Sends whole IP packets, header included: to the network, or into the own kernel as if the
 * network had delivered them.
 *
 * Into the own kernel: the packet's destination is a local address, so it is routed through
 * lo and does not meet the boundary.  It carries the mark that makes a retained address local.
 * raw(7); RFC 3542, section 3 for IPv6 (IPPROTO_RAW there means header included as well).
 */
import { addressFromBytes } from '../wire/address.js';
import { ERRNO, SystemError } from './errno.js';
import {
  AF_INET,
  AF_INET6,
  closeFd,
  IPPROTO_RAW,
  openSocket,
  SO_SNDBUF,
  SOCK_RAW,
  SOL_SOCKET,
  sendTo,
  setMark,
  setOption,
} from './socket.js';

/* A move of a thousand flows sends several packets for each in one turn of the event loop. */
const SEND_BUFFER_BYTES = 4 << 20;

/* Undefined: this kernel has no IPv6. */
type Sockets = { 4: number; 6: number | undefined };

/** Raw sockets of both families.  Needs CAP_NET_RAW, and CAP_NET_ADMIN for the mark. */
export class RawSender {
  #wire: Sockets = openBoth();
  #kernel: Sockets = openBoth();

  /** `mark`: set on what goes to the own kernel. */
  constructor(mark: number) {
    setMark(this.#kernel[4], mark);
    if (this.#kernel[6] !== undefined) setMark(this.#kernel[6], mark);
  }

  /** Sends a packet to the network, by the route to its destination.  Throws SystemError. */
  toWire(packet: Uint8Array): void {
    send(this.#wire, packet);
  }

  /** Delivers a packet to the own kernel; its destination is a local address. */
  toKernel(packet: Uint8Array): void {
    send(this.#kernel, packet);
  }

  close(): void {
    for (const { 4: ipv4, 6: ipv6 } of [this.#wire, this.#kernel]) {
      closeFd(ipv4);
      if (ipv6 !== undefined) closeFd(ipv6);
    }
  }
}

function openBoth(): Sockets {
  return { 4: openRaw(AF_INET), 6: hasIpv6() ? openRaw(AF_INET6) : undefined };
}

function openRaw(domain: number): number {
  const socket = openSocket(domain, SOCK_RAW, IPPROTO_RAW);
  setOption(socket, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER_BYTES);
  return socket;
}

/** Whether the kernel speaks IPv6 at all: not with ipv6.disable=1 or CONFIG_IPV6=n. */
export function hasIpv6(): boolean {
  try {
    closeFd(openSocket(AF_INET6, SOCK_RAW, IPPROTO_RAW));
    return true;
  } catch (error) {
    if (error instanceof SystemError && error.code === 'EAFNOSUPPORT') return false;
    throw error;
  }
}

function send(sockets: Sockets, packet: Uint8Array): void {
  const version = (packet[0] ?? 0) >> 4;
  if (version === 4) sendTo(sockets[4], packet, addressFromBytes(packet.subarray(16, 20)));
  else if (sockets[6] === undefined) throw new SystemError('send by IPv6', ERRNO.EAFNOSUPPORT);
  else sendTo(sockets[6], packet, addressFromBytes(packet.subarray(24, 40)));
}
