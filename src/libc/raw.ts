/*
 * Sends whole IP packets, header included: to the network, or into the own kernel as if the
 * network had delivered them.
 *
 * Into the own kernel: the packet's destination is a local address, so it is routed through
 * lo and does not meet the boundary.  A retained address is local for what is bound to lo, however
 * a firewall marks it on its way (link/retained.ts).
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
  SO_BINDTOIFINDEX,
  SO_SNDBUF,
  SOCK_RAW,
  SOL_SOCKET,
  sendTo,
  setOption,
} from './socket.js';

/* A move of a thousand flows sends several packets for each in one turn of the event loop. */
const SEND_BUFFER_BYTES = 4 << 20;

/* Linux has lo as 1 in every network namespace. */
const LOOPBACK = 1;

/* Undefined: this kernel has no IPv6. */
type Sockets = { 4: number; 6: number | undefined };

/** Raw sockets of both families.  Needs CAP_NET_RAW. */
export class RawSender {
  #anywhere: Sockets = openBoth();
  #loopback: Sockets = openBoth();

  constructor() {
    const { 4: ipv4, 6: ipv6 } = this.#loopback;
    setOption(ipv4, SOL_SOCKET, SO_BINDTOIFINDEX, LOOPBACK);
    if (ipv6 !== undefined) setOption(ipv6, SOL_SOCKET, SO_BINDTOIFINDEX, LOOPBACK);
  }

  /** Sends a packet to the network, by the route to its destination.  Throws SystemError. */
  toWire(packet: Uint8Array): void {
    send(this.#anywhere, packet);
  }

  /**
   * Delivers a packet to the own kernel; its destination is a local address, or that of a host
   * behind, by our own NAT.
   */
  toKernel(packet: Uint8Array): void {
    send(this.#anywhere, packet);
  }

  /** Delivers a packet to the own kernel; its destination is a retained address. */
  toRetained(packet: Uint8Array): void {
    send(this.#loopback, packet);
  }

  close(): void {
    for (const { 4: ipv4, 6: ipv6 } of [this.#anywhere, this.#loopback]) {
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
