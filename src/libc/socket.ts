/*
 * Sockets that Node does not have: netlink, raw IP and packet sockets.
 *
 * Thin: one function is one system call.  All sockets are non-blocking and close on exec.
 * socket(2), netlink(7), raw(7), packet(7); constants are those of Linux on x86-64 and arm64.
 */
import koffi from 'koffi';
import { type Address, addressBytes, family } from '../wire/address.js';
import { checked, ERRNO, lastErrno, SystemError } from './errno.js';

export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const AF_PACKET = 17;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOL_SOCKET = 1;
export const SO_SNDBUF = 7;
export const SO_RCVBUF = 8;
export const SO_RCVBUFFORCE = 33;
export const SO_MARK = 36;
export const SO_BINDTOIFINDEX = 62;
export const SOL_NETLINK = 270;
export const NETLINK_EXT_ACK = 11;
export const NETLINK_GET_STRICT_CHK = 12;
export const IPPROTO_RAW = 255;
export const NETLINK_ROUTE = 0;
export const NETLINK_SOCK_DIAG = 4;
export const NETLINK_KOBJECT_UEVENT = 15;

const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const IFNAMSIZ = 16;
const SIOCGIFHWADDR = 0x8927;
const IF_INDEX_SIZE = 16;

const libc = koffi.load('libc.so.6');
const cSocket = libc.func('int socket(int domain, int type, int protocol)');
const cClose = libc.func('int close(int fd)');
const cBind = libc.func('int bind(int fd, const void *address, uint32_t length)');
const cGetsockname = libc.func('int getsockname(int fd, void *address, void *length)');
const cSetsockopt = libc.func('int setsockopt(int, int, int, const void *value, uint32_t length)');
const cSendto = libc.func('long sendto(int, const void *, size_t, int, const void *, uint32_t)');
const cRecv = libc.func('long recv(int fd, void *buffer, size_t length, int flags)');
const cIoctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)');
const cIfNametoindex = libc.func('uint32_t if_nametoindex(const char *name)');
const cIfIndextoname = libc.func('char *if_indextoname(unsigned int index, void *name)');
const cIfNameindex = libc.func('void *if_nameindex()');
const cIfFreenameindex = libc.func('void if_freenameindex(void *list)');

/** A new socket.  Throws SystemError. */
export function openSocket(domain: number, type: number, protocol: number): number {
  const fd: number = cSocket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
  return checked(fd, `open socket (family ${domain}, protocol ${protocol})`);
}

/** Closes a descriptor; one that is not open is our bug and throws. */
export function closeFd(fd: number): void {
  checked(cClose(fd), `close descriptor ${fd}`);
}

/** Binds a socket to a sockaddr in bytes. */
export function bindSocket(fd: number, sockaddr: Uint8Array): void {
  checked(cBind(fd, sockaddr, sockaddr.length), `bind socket ${fd}`);
}

/** Binds a netlink socket: the kernel chooses its port; `groups` is a bit mask. */
export function bindNetlink(fd: number, groups: number): void {
  bindSocket(fd, netlinkSockaddr(groups));
}

/** The port that the kernel gave to a bound netlink socket. */
export function netlinkPort(fd: number): number {
  const sockaddr = Buffer.alloc(12);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(sockaddr.length);
  checked(cGetsockname(fd, sockaddr, length), `name of socket ${fd}`);
  return sockaddr.readUInt32LE(4);
}

/** Sets an option that is an int. */
export function setOption(fd: number, level: number, name: number, value: number): void {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value | 0);
  const result: number = cSetsockopt(fd, level, name, bytes, bytes.length);
  checked(result, `set option ${level}/${name} of socket ${fd} to ${value}`);
}

/** Sets an option that is a structure. */
export function setOptionBytes(fd: number, level: number, name: number, bytes: Uint8Array): void {
  const result: number = cSetsockopt(fd, level, name, bytes, bytes.length);
  checked(result, `set option ${level}/${name} of socket ${fd}`);
}

/** Everything sent from now on carries this firewall mark. */
export function setMark(fd: number, mark: number): void {
  setOption(fd, SOL_SOCKET, SO_MARK, mark);
}

/* Whoever may open such a socket may send by it: what says no is netfilter. */
const refusedBy = (errno: number) =>
  errno === ERRNO.EPERM ? { hint: 'a firewall of this machine drops it' } : {};

/**
 * Sends `bytes` to an IP address (raw sockets: port 0), or to a sockaddr given in bytes.
 * How many bytes went out; throws SystemError, also if the socket's buffer is full.
 */
export function sendTo(fd: number, bytes: Uint8Array, to: Address | Uint8Array): number {
  const sockaddr = typeof to === 'string' ? inetSockaddr(to) : to;
  const sent = Number(cSendto(fd, bytes, bytes.length, 0, sockaddr, sockaddr.length));
  if (sent >= 0) return sent;
  const target = typeof to === 'string' ? to : `socket ${fd}`;
  const errno = lastErrno();
  throw new SystemError(`send ${bytes.length} bytes to ${target}`, errno, refusedBy(errno));
}

/** Reads one datagram; its length, or -1 if there is none now.  Throws SystemError. */
export function receive(fd: number, buffer: Uint8Array): number {
  for (;;) {
    const length = Number(cRecv(fd, buffer, buffer.length, 0));
    if (length >= 0) return length;
    const errno = lastErrno();
    if (errno === ERRNO.EAGAIN) return -1;
    if (errno !== ERRNO.EINTR) throw new SystemError(`receive from socket ${fd}`, errno);
  }
}

/** struct sockaddr_in or sockaddr_in6. */
export function inetSockaddr(a: Address, port = 0): Uint8Array {
  const six = family(a) === 6;
  const sockaddr = Buffer.alloc(six ? 28 : 16);
  sockaddr.writeUInt16LE(six ? AF_INET6 : AF_INET, 0);
  sockaddr.writeUInt16BE(port, 2);
  sockaddr.set(addressBytes(a), six ? 8 : 4);
  return sockaddr;
}

/** struct sockaddr_nl; port 0: the kernel (sending), chosen by the kernel (binding). */
export function netlinkSockaddr(groups = 0, port = 0): Uint8Array {
  const sockaddr = Buffer.alloc(12);
  sockaddr.writeUInt16LE(AF_NETLINK, 0);
  sockaddr.writeUInt32LE(port, 4);
  sockaddr.writeUInt32LE(groups >>> 0, 8);
  return sockaddr;
}

/** struct sockaddr_ll. */
export function packetSockaddr(ifindex: number, etherType: number, mac?: Uint8Array): Uint8Array {
  const sockaddr = Buffer.alloc(20);
  sockaddr.writeUInt16LE(AF_PACKET, 0);
  sockaddr.writeUInt16BE(etherType, 2);
  sockaddr.writeInt32LE(ifindex, 4);
  if (mac !== undefined) {
    sockaddr.writeUInt8(mac.length, 11);
    sockaddr.set(mac, 12);
  }
  return sockaddr;
}

/** The index of an interface of this network namespace; undefined: no such interface. */
export function interfaceIndex(name: string): number | undefined {
  const index: number = cIfNametoindex(name);
  return index === 0 ? undefined : index;
}

/** The name of an interface of this network namespace; undefined: no such interface. */
export function interfaceName(index: number): string | undefined {
  const name = Buffer.alloc(IFNAMSIZ);
  if (cIfIndextoname(index, name) === null) return undefined;
  return name.toString('latin1', 0, name.indexOf(0));
}

/* Not os.networkInterfaces(), which leaves out what is down, and not /sys/class/net, which
 * shows the namespace that mounted it.
 */
/** All interfaces of this network namespace. */
export function interfaces(): { name: string; index: number }[] {
  const list: bigint | null = cIfNameindex();
  if (list === null) throw new SystemError('list interfaces', lastErrno());
  const found: { name: string; index: number }[] = [];
  for (let at = 0; ; at += IF_INDEX_SIZE) {
    const index: number = koffi.decode(list, at, 'uint32_t');
    if (index === 0) break;
    found.push({ name: koffi.decode(list, at + 8, 'str'), index });
  }
  cIfFreenameindex(list);
  return found;
}

/** ARPHRD_… of an interface: 1 is Ethernet.  Throws SystemError (ENODEV: no such interface). */
export function hardwareType(name: string): number {
  const request = Buffer.alloc(40);
  request.write(name.slice(0, IFNAMSIZ - 1));
  const fd = openSocket(AF_INET, SOCK_DGRAM, 0);
  const result: number = cIoctl(fd, SIOCGIFHWADDR, request);
  const errno = lastErrno();
  closeFd(fd);
  if (result < 0) throw new SystemError(`hardware type of ${name}`, errno);
  return request.readUInt16LE(IFNAMSIZ);
}
