/*
 * Asks the kernel over netlink and reads the whole answer (netlink(7), sock_diag(7)).
 *
 * Synchronous, and yet it never waits: the kernel works a request off inside of sendto, and
 * makes each part of a dump inside of recv.  Not for notifications: monitor.ts has its own
 * socket, as an overrun must not cost an answer.
 */
import { ERRNO, SystemError } from '../libc/errno.js';
import {
  AF_NETLINK,
  bindNetlink,
  closeFd,
  NETLINK_EXT_ACK,
  NETLINK_GET_STRICT_CHK,
  NETLINK_ROUTE,
  netlinkSockaddr,
  openSocket,
  receive,
  SO_RCVBUFFORCE,
  SOCK_RAW,
  SOL_NETLINK,
  SOL_SOCKET,
  sendTo,
  setOption,
} from '../libc/socket.js';
import {
  CONTROL,
  decodeError,
  decodeMessages,
  FLAG,
  type NetlinkMessage,
  numbered,
} from './message.js';

/* The kernel makes parts of a dump as large as the reads that it sees, 32 KiB at most. */
const RECEIVE_BYTES = 64 << 10;

/* A dump that something changed meanwhile is marked and read again.  On a host whose tables
 * never rest, the last one has to do: a monitor sees the rest as notifications.
 */
const DUMPS_MAX = 4;

const KERNEL = netlinkSockaddr();

/* Room for some thousand notifications: a full routing table may be loaded at any time. */
const NOTIFICATION_BYTES = 1 << 20;

/** A socket to which the kernel writes what these groups are told.  Throws SystemError. */
export function openNotifications(protocol: number, groups: number): number {
  const socket = openSocket(AF_NETLINK, SOCK_RAW, protocol);
  try {
    // Beyond net.core.rmem_max, which only CAP_NET_ADMIN may.  Without it there are more overruns.
    setOption(socket, SOL_SOCKET, SO_RCVBUFFORCE, NOTIFICATION_BYTES);
  } catch (error) {
    if (!(error instanceof SystemError) || error.code !== 'EPERM') throw error;
  }
  bindNetlink(socket, groups);
  return socket;
}

/** One end of netlink: routes, and whatever other protocol is asked for. */
export class Netlink {
  #sockets = new Map<number, number>();
  #sequence = 0;
  #buffer = new Uint8Array(RECEIVE_BYTES);

  /**
   * Sends a request and returns what answers it, without acknowledgements.
   *
   * It must be a dump or ask for an acknowledgement: only so the answer has an end.
   * `attempted` says for errors what this is for and on which object: 'add address X to lo'.
   * `protocol`: NETLINK_ROUTE unless given.  Throws SystemError with the kernel's own reason.
   */
  request(message: Uint8Array, attempted: string, protocol = NETLINK_ROUTE): NetlinkMessage[] {
    const socket = this.#socket(protocol);
    for (let round = 1; ; round++) {
      const sequence = ++this.#sequence;
      sendTo(socket, numbered(message, sequence), KERNEL);
      const answer = this.#answer(socket, sequence, attempted);
      const interrupted = answer.some((m) => (m.flags & FLAG.DUMP_INTERRUPTED) !== 0);
      if (!interrupted || round === DUMPS_MAX) return answer;
    }
  }

  close(): void {
    for (const socket of this.#sockets.values()) closeFd(socket);
    this.#sockets.clear();
  }

  #answer(socket: number, sequence: number, attempted: string): NetlinkMessage[] {
    const answer: NetlinkMessage[] = [];
    for (;;) {
      for (const message of this.#receive(socket, attempted)) {
        if (message.sequence !== sequence) continue;
        if (message.type === CONTROL.DONE || message.type === CONTROL.ERROR) {
          refuse(message, attempted);
          return answer;
        }
        answer.push({ ...message, payload: message.payload.slice() });
      }
    }
  }

  #receive(socket: number, attempted: string): NetlinkMessage[] {
    const length = receive(socket, this.#buffer);
    if (length < 0) throw new SystemError(attempted, ERRNO.ETIMEDOUT ?? 110, UNANSWERED);
    const messages = decodeMessages(this.#buffer.subarray(0, length));
    if ('error' in messages) {
      throw new SystemError(attempted, ERRNO.EBADMSG ?? 74, { hint: messages.error });
    }
    return messages;
  }

  #socket(protocol: number): number {
    const open = this.#sockets.get(protocol);
    if (open !== undefined) return open;
    const socket = openSocket(AF_NETLINK, SOCK_RAW, protocol);
    this.#sockets.set(protocol, socket);
    bindNetlink(socket, 0);
    setOption(socket, SOL_NETLINK, NETLINK_EXT_ACK, 1);
    if (protocol === NETLINK_ROUTE) setOption(socket, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
    return socket;
  }
}

const UNANSWERED = { hint: 'the kernel gave no answer' };

/* NLMSG_DONE ends a dump and carries its errno in the same place as NLMSG_ERROR. */
function refuse(message: NetlinkMessage, attempted: string): void {
  const { errno, text } = decodeError(message);
  if (errno === 0) return;
  throw new SystemError(attempted, errno, text === undefined ? {} : { hint: text });
}
