/*
 * What happens to links, addresses, routes and rules, as it happens (rtnetlink notifications).
 *
 * It keeps the state of all links and addresses and tells differences only: a lease that is
 * renewed, a repeated message or one for a retained address is no change.  If the kernel had to
 * drop notifications (ENOBUFS), everything is read again and compared, so none is missed.
 *
 * Not for deciding what a change means: that is the daemon's.
 */
import { SystemError } from '../libc/errno.js';
import { attempt } from '../libc/guard.js';
import type { Poller } from '../libc/poller.js';
import { closeFd, NETLINK_ROUTE, receive } from '../libc/socket.js';
import { decodeMessages } from '../netlink/message.js';
import { Netlink, openNotifications } from '../netlink/netlink.js';
import type { Address } from '../wire/address.js';
import { type LinkChange, LinkState } from './link-state.js';
import { GROUP } from './rtnetlink.js';
import { getAddresses, getLinks } from './rtnetlink-request.js';

export type { LinkChange } from './link-state.js';

const GROUPS =
  GROUP.LINK |
  GROUP.TRAFFIC_CONTROL |
  (GROUP.IPV4_ADDRESS | GROUP.IPV4_ROUTE | GROUP.IPV4_RULE) |
  (GROUP.IPV6_ADDRESS | GROUP.IPV6_ROUTE | GROUP.IPV6_RULE);

const DATAGRAM_BYTES = 64 << 10;

/** Calls back for each change of a link, address or route, in the kernel's order. */
export class LinkMonitor {
  #poller: Poller;
  #onChange: (change: LinkChange) => void;
  #socket: number;
  #requests = new Netlink();
  #state = new LinkState();
  #buffer = new Uint8Array(DATAGRAM_BYTES);

  /** The state at the start is not told as changes.  Throws SystemError. */
  constructor(poller: Poller, onChange: (change: LinkChange) => void) {
    this.#poller = poller;
    this.#onChange = onChange;
    // Subscribe first, then look: what happens in between is seen twice, not missed.
    this.#socket = openNotifications(NETLINK_ROUTE, GROUPS);
    this.#lookAgain();
    poller.add(this.#socket, () => this.#drain());
  }

  /**
   * All addresses but those of host scope (loopback, retained).  `tentative`: duplicate address
   * detection runs or has failed.  `dynamic`: it has a lifetime (SLAAC, DHCP).
   */
  addresses(): {
    address: Address;
    prefixLength: number;
    interface: string;
    deprecated: boolean;
    tentative: boolean;
    dynamic: boolean;
  }[] {
    return this.#state.addresses();
  }

  /**
   * All links.  `up`: switched on; `carrier`: on and connected, and how often that came or went;
   * `mtu` in bytes; `vmTap`: a tap that is a port of a bridge; `master`: of what it is
   * a port.
   */
  links(): {
    name: string;
    index: number;
    up: boolean;
    carrier: boolean;
    carrierChanges: number;
    mtu: number;
    ethernet: boolean;
    mac: Uint8Array;
    vmTap: boolean;
    master: number | undefined;
  }[] {
    return this.#state.links();
  }

  /** Takes in, and calls back for, what the kernel has told by now. */
  catchUp(): void {
    this.#drain();
  }

  close(): void {
    this.#poller.remove(this.#socket);
    closeFd(this.#socket);
    this.#requests.close();
  }

  #drain(): void {
    const changes: LinkChange[] = [];
    for (;;) {
      const more = this.#readInto(changes);
      if (!more) break;
    }
    append(changes, this.#state.takeChanges());
    for (const change of changes) attempt(() => this.#onChange(change));
  }

  #readInto(changes: LinkChange[]): boolean {
    try {
      const length = receive(this.#socket, this.#buffer);
      if (length < 0) return false;
      const messages = decodeMessages(this.#buffer.subarray(0, length));
      if ('error' in messages) append(changes, this.#lookAgain());
      else for (const message of messages) append(changes, this.#state.apply(message));
    } catch (error) {
      if (!(error instanceof SystemError) || error.code !== 'ENOBUFS') throw error;
      append(changes, this.#lookAgain());
      this.#state.anyChanged();
    }
    return true;
  }

  #lookAgain(): LinkChange[] {
    return this.#state.replace(
      this.#requests.request(getLinks(), 'list the links'),
      this.#requests.request(getAddresses(), 'list the addresses'),
    );
  }
}

/* Not push(...): its arguments are on the stack, and a machine may have any number of links. */
function append<T>(list: T[], more: readonly T[]): void {
  for (const each of more) list.push(each);
}
