/*
 * Tells which translated connections the kernel forgets, as it does.  Those that it has told while
 * the socket was full are lost: nothing remembers them any more.
 */
import { SystemError } from '../libc/errno.js';
import { attempt } from '../libc/guard.js';
import type { Poller } from '../libc/poller.js';
import { closeFd, receive } from '../libc/socket.js';
import { decodeMessages } from '../netlink/message.js';
import { openNotifications } from '../netlink/netlink.js';
import {
  DESTROYED_GROUP,
  decodeDestroyed,
  NETLINK_NETFILTER,
  type Translation,
} from './conntrack.js';

const DATAGRAM_BYTES = 64 << 10;

export class ConntrackMonitor {
  readonly #poller: Poller;
  readonly #socket: number;
  readonly #buffer = new Uint8Array(DATAGRAM_BYTES);

  /** Throws SystemError: a kernel without connection tracking has no such notifications. */
  constructor(poller: Poller, onForgotten: (translation: Translation) => void) {
    this.#poller = poller;
    this.#socket = openNotifications(NETLINK_NETFILTER, DESTROYED_GROUP);
    poller.add(this.#socket, () => this.#drain(onForgotten));
  }

  close(): void {
    this.#poller.remove(this.#socket);
    closeFd(this.#socket);
  }

  #drain(onForgotten: (translation: Translation) => void): void {
    for (;;) {
      const length = this.#read();
      if (length === 'none') return;
      if (length === 'overrun') continue;
      const messages = decodeMessages(this.#buffer.subarray(0, length));
      if ('error' in messages) continue;
      for (const message of messages) {
        const translation = decodeDestroyed(message);
        if (translation !== undefined) attempt(() => onForgotten(translation));
      }
    }
  }

  #read(): number | 'none' | 'overrun' {
    try {
      const length = receive(this.#socket, this.#buffer);
      return length < 0 ? 'none' : length;
    } catch (error) {
      if (error instanceof SystemError && error.code === 'ENOBUFS') return 'overrun';
      throw error;
    }
  }
}
