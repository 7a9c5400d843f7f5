/*
 * TCP sockets that block, by system call: for tight loops, and to be handed to node:net.
 *
 * node:net opens a socket some turns of the event loop after it was asked to, when this process
 * has left the network namespace again; and a turn of the loop takes longer than a handshake.
 */
import koffi from 'koffi';
import { checked } from '../src/libc/errno.js';
import { AF_INET, inetSockaddr, SOL_SOCKET, setOption } from '../src/libc/socket.js';
import { address } from '../src/wire/address.js';

const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SO_REUSEADDR = 2;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const MSG_DONTWAIT = 0x40;

const libc = koffi.load('libc.so.6');
const cSocket = libc.func('int socket(int domain, int type, int protocol)');
const cConnect = libc.func('int connect(int fd, const void *address, uint32_t length)');
const cBind = libc.func('int bind(int fd, const void *address, uint32_t length)');
const cListen = libc.func('int listen(int fd, int backlog)');
const cAccept = libc.func('int accept4(int fd, void *address, void *length, int flags)');
const cSend = libc.func('long send(int fd, const void *buffer, size_t length, int flags)');
const cRecv = libc.func('long recv(int fd, void *buffer, size_t length, int flags)');

export interface Endpoint {
  address: string;
  port: number;
}

/** A listening socket.  `backlog`: connections that stand without accept(). */
export function listenOn(o: Endpoint, backlog: number): number {
  const fd = openTcp();
  setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  checked(cBind(fd, ...sockaddr(o)), `bind to ${o.address}:${o.port}`);
  checked(cListen(fd, backlog), `listen on ${o.address}:${o.port}`);
  return fd;
}

/** The next connection of a listening socket; waits for it. */
export const accept = (fd: number): number =>
  checked(cAccept(fd, null, null, SOCK_CLOEXEC), `accept on socket ${fd}`);

/** A socket that is not connected yet. */
export function openTcp(): number {
  return checked(cSocket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP), 'open a TCP socket');
}

/** What `connectTo` wants, made beforehand so that it costs nothing in a timed loop. */
export const sockaddr = (o: Endpoint): [Uint8Array, number] => {
  const bytes = inetSockaddr(address(o.address), o.port);
  return [bytes, bytes.length];
};

/** Connects; waits for the SYN/ACK.  Throws SystemError. */
export function connectTo(fd: number, [bytes, length]: [Uint8Array, number]): void {
  checked(cConnect(fd, bytes, length), `connect socket ${fd}`);
}

/** A connected socket without Nagle's delay. */
export function openConnection(o: Endpoint): number {
  const fd = openTcp();
  setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  connectTo(fd, sockaddr(o));
  return fd;
}

export function sendAll(fd: number, bytes: Uint8Array): void {
  checked(Number(cSend(fd, bytes, bytes.length, MSG_DONTWAIT)), `send on socket ${fd}`);
}

/** How many bytes were waiting; 0: none, or an error. */
export const receiveWaiting = (fd: number, buffer: Uint8Array): number =>
  Math.max(0, Number(cRecv(fd, buffer, buffer.length, MSG_DONTWAIT)));
