/**
 * A TAP interface of any network namespace, as a descriptor that carries Ethernet frames.
 * setns(2) and tun.rst of the kernel's documentation.
 */
import koffi from 'koffi';
import { checked, ERRNO, lastErrno, SystemError } from '../libc/errno.js';

const O_RDONLY = 0;
const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const CLONE_NEWNET = 0x40000000;
const TUNSETIFF = 0x400454ca;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFREQ_SIZE = 40;

const libc = koffi.load('libc.so.6');
const cOpen = libc.func('int open(const char *path, int flags)');
const cClose = libc.func('int close(int fd)');
const cSetns = libc.func('int setns(int fd, int kind)');
const cIoctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)');
const cRead = libc.func('long read(int fd, void *buffer, size_t length)');
const cWrite = libc.func('long write(int fd, const void *buffer, size_t length)');

/**
 * Attaches to the TAP, which must exist; its carrier is up from then on. This thread stays in
 * that namespace: the descriptor works from anywhere. Throws SystemError.
 */
export function openTap(namespacePath: string, name: string): number {
  const namespace: number = cOpen(namespacePath, O_RDONLY | O_CLOEXEC);
  checked(namespace, `open ${namespacePath}`);
  checked(cSetns(namespace, CLONE_NEWNET), `enter ${namespacePath}`);
  cClose(namespace);
  const fd: number = cOpen('/dev/net/tun', O_RDWR | O_NONBLOCK | O_CLOEXEC);
  checked(fd, 'open /dev/net/tun');
  const request = Buffer.alloc(IFREQ_SIZE);
  request.write(name);
  request.writeUInt16LE(IFF_TAP | IFF_NO_PI, 16);
  checked(cIoctl(fd, TUNSETIFF, request), `attach to TAP ${name}`);
  return fd;
}

/** Reads one frame; its length, or -1 if there is none now. Throws SystemError. */
export function readFrame(fd: number, buffer: Uint8Array): number {
  const length = Number(cRead(fd, buffer, buffer.length));
  if (length >= 0) return length;
  const errno = lastErrno();
  if (errno === ERRNO.EAGAIN) return -1;
  throw new SystemError(`read from TAP ${fd}`, errno);
}

/** Writes one frame. One that the interface does not take (it is down) is lost, as on a cable. */
export const writeFrame = (fd: number, frame: Uint8Array): void => {
  cWrite(fd, frame, frame.length);
};
