/*
 * Addresses, routes and rules of ours in the kernel: lists them, and changes them so that doing it
 * again does no harm.
 */
import { SystemError } from '../libc/errno.js';
import type { NetlinkMessage } from '../netlink/message.js';
import type { Netlink } from '../netlink/netlink.js';

export class KernelObjects {
  #netlink: Netlink;

  constructor(netlink: Netlink) {
    this.#netlink = netlink;
  }

  /** What a dump names, as `decode` reads it.  Throws SystemError. */
  list<T>(
    message: Uint8Array,
    attempted: string,
    decode: (m: NetlinkMessage) => T | undefined,
  ): T[] {
    try {
      return this.#netlink.request(message, attempted).flatMap((m) => decode(m) ?? []);
    } catch (error) {
      // A table that has never had a route, or a family that the kernel does not speak.
      if (hasCode(error, ['ENOENT', 'EAFNOSUPPORT', 'ENOTSUP'])) return [];
      throw error;
    }
  }

  /** What is there already, or not there any more, is fine.  Throws SystemError. */
  change(verb: 'add' | 'remove', attempted: string, message: Uint8Array): void {
    try {
      this.#netlink.request(message, attempted);
    } catch (error) {
      const done = verb === 'add' ? ['EEXIST'] : ['ENOENT', 'ESRCH', 'EADDRNOTAVAIL'];
      if (!hasCode(error, done)) throw error;
    }
  }
}

const hasCode = (error: unknown, codes: string[]): boolean =>
  error instanceof SystemError && codes.includes(error.code);
