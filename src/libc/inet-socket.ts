/*
 * Raw IP sockets that receive: what comes from one peer, and ICMP.  raw(7), ipv6(7).
 */
import koffi from 'koffi';
import { type Address, addressFromBytes, family } from '../wire/address.js';
import { checked, ERRNO, lastErrno, SystemError } from './errno.js';
import { AF_INET, AF_INET6, bindSocket, inetSockaddr, openSocket, SOCK_RAW } from './socket.js';

const SOCK_STREAM = 1;
const SOCKADDR_BYTES = 28;

const libc = koffi.load('libc.so.6');
const cConnect = libc.func('int connect(int fd, const void *address, uint32_t length)');
const cGetsockname = libc.func('int getsockname(int fd, void *address, void *length)');
const cRecvfrom = libc.func('long recvfrom(int, void *, size_t, int, void *, void *)');

const domainOf = (a: Address): number => (family(a) === 6 ? AF_INET6 : AF_INET);

/** Receives what comes from `peer` in that protocol.  Throws SystemError. */
export function openRawFrom(peer: Address, protocol: number): number {
  const fd = openSocket(domainOf(peer), SOCK_RAW, protocol);
  const sockaddr = inetSockaddr(peer);
  checked(cConnect(fd, sockaddr, sockaddr.length), `receive from ${peer}`);
  return fd;
}

/**
 * A TCP port of `local` that no program gets meanwhile.  Nothing listens on it: our kernel answers
 * what comes for it with a reset.
 */
export function reservePort(local: Address): { fd: number; port: number } {
  const fd = openSocket(domainOf(local), SOCK_STREAM, 0);
  bindSocket(fd, inetSockaddr(local));
  const name = Buffer.alloc(SOCKADDR_BYTES);
  checked(cGetsockname(fd, name, lengthOf(name)), `name of socket ${fd}`);
  return { fd, port: name.readUInt16BE(2) };
}

/**
 * Reads one datagram and who sent it; undefined: there is none now.  IPv4 sockets deliver the IP
 * header as well, IPv6 ones do not.  Throws SystemError, also for an ICMP error that has come.
 */
export function receiveFrom(
  fd: number,
  buffer: Uint8Array,
): { from: Address; length: number } | undefined {
  const name = Buffer.alloc(SOCKADDR_BYTES);
  const length = Number(cRecvfrom(fd, buffer, buffer.length, 0, name, lengthOf(name)));
  if (length >= 0) {
    const six = name.readUInt16LE(0) === AF_INET6;
    return { from: addressFromBytes(six ? name.subarray(8, 24) : name.subarray(4, 8)), length };
  }
  const errno = lastErrno();
  if (errno === ERRNO.EAGAIN || errno === ERRNO.EINTR) return undefined;
  throw new SystemError(`receive from socket ${fd}`, errno);
}

function lengthOf(buffer: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(buffer.length);
  return length;
}
