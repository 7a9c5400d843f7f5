/*
 * The TCP sockets of this network namespace: which there are, and the end of one of them.
 */
import { SystemError } from '../libc/errno.js';
import { NETLINK_SOCK_DIAG } from '../libc/socket.js';
import type { NetlinkMessage } from '../netlink/message.js';
import type { Netlink } from '../netlink/netlink.js';
import { type Address, address, family } from '../wire/address.js';
import { type Tuple, tupleEqual, tupleText } from '../wire/tuple.js';
import {
  decodeProgress,
  decodeSocket,
  destroy,
  getProgress,
  getSockets,
  type Progress,
  type SocketRecord,
} from './inet-diag.js';

export type { Progress, SocketRecord } from './inet-diag.js';

/**
 * All TCP sockets, listening ones too (their remote address is 0.0.0.0 or ::).  An IPv6 socket
 * that speaks IPv4 is shown as IPv4.  `local`: only those with this address of their own, which
 * the kernel picks.  Throws SystemError.
 */
export function tcpSockets(netlink: Pick<Netlink, 'request'>, local?: Address): SocketRecord[] {
  const list = (version: 4 | 6) =>
    netlink
      .request(getSockets(version, local), `list the IPv${version} TCP sockets`, NETLINK_SOCK_DIAG)
      .flatMap((message) => decodeSocket(message) ?? []);
  return local !== undefined && family(local) === 6 ? list(6) : [...list(4), ...list(6)];
}

/**
 * Whether there is a socket of exactly this tuple, in whatever state.  The kernel answers with the
 * listening one where there is no other.  Throws SystemError.
 */
export function hasSocket(netlink: Pick<Netlink, 'request'>, tuple: Tuple): boolean {
  const record = lookUp(netlink, tuple);
  const found = record && decodeSocket(record)?.tuple;
  return found !== undefined && tupleEqual(found, tuple);
}

/** How far what a socket has sent has come; undefined: no such socket.  Throws SystemError. */
export function progressOf(netlink: Pick<Netlink, 'request'>, tuple: Tuple): Progress | undefined {
  const record = lookUp(netlink, tuple);
  const found = record && decodeSocket(record)?.tuple;
  if (record === undefined || found === undefined || !tupleEqual(found, tuple)) return undefined;
  return decodeProgress(record);
}

function lookUp(netlink: Pick<Netlink, 'request'>, tuple: Tuple): NetlinkMessage | undefined {
  try {
    const what = `look at the socket ${tupleText(tuple)}`;
    const [answer] = netlink.request(getProgress(tuple), what, NETLINK_SOCK_DIAG);
    return answer;
  } catch (error) {
    if (error instanceof SystemError && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Whether the kernel can end a socket: asked to end one that cannot exist, it says so. */
export function canDestroySockets(netlink: Pick<Netlink, 'request'>): boolean {
  const nowhere = { local: address('0.0.0.0'), localPort: 1, remote: address('0.0.0.0') };
  try {
    destroySocket(netlink, { ...nowhere, remotePort: 1 });
    return true;
  } catch (error) {
    if (error instanceof SystemError && error.code === 'ENOTSUP') return false;
    throw error;
  }
}

/**
 * Ends a socket at once: its program gets ECONNABORTED, the peer a reset if it can be reached.
 * False if there is no such socket.  Throws SystemError (EOPNOTSUPP: the kernel is built
 * without INET_DIAG_DESTROY).
 */
export function destroySocket(netlink: Pick<Netlink, 'request'>, tuple: Tuple): boolean {
  try {
    netlink.request(destroy(tuple), `end the socket ${tupleText(tuple)}`, NETLINK_SOCK_DIAG);
    return true;
  } catch (error) {
    if (error instanceof SystemError && error.code === 'ENOENT') return false;
    throw error;
  }
}
