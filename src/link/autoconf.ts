/*
 * IPv6 on a link that has changed: asks for a router at once, and forgets what the routers of
 * the old link had given (RFC 4861, section 6.3.7; RFC 4862).
 *
 * The kernel does stateless autoconfiguration, but it does not ask again when a carrier comes
 * back, and it keeps addresses and routes of the old link until their lifetimes end: the
 * old address would go on being used, and nobody would know that it has gone.  So, when the
 * first advertisement has new prefixes only, all that is old is dropped, as network managers do.
 * If it has a prefix of before, the link seems to be the same, but it may have several routers:
 * what none of them has confirmed after a while is dropped, and usually that is nothing.
 *
 * Only where the kernel itself accepts router advertisements: systemd-networkd, NetworkManager
 * and dhcpcd switch that off on the interfaces that they own.
 *
 * Prefixes come from the kernel (RTM_NEWPREFIX), not from a socket of our own: what arrives
 * here has passed the kernel's checks (hop limit 255, a link-local router).
 */
import { readFileSync } from 'node:fs';
import { SystemError } from '../libc/errno.js';
import type { Poller } from '../libc/poller.js';
import {
  AF_INET6,
  AF_NETLINK,
  bindNetlink,
  closeFd,
  inetSockaddr,
  interfaceIndex,
  NETLINK_ROUTE,
  openSocket,
  receive,
  SOCK_RAW,
  sendTo,
  setOption,
} from '../libc/socket.js';
import { type Address, address } from '../wire/address.js';
import { dropLearned, type Learned, learnedFromRouters, prefixOf } from './learned.js';
import { decodeMessages } from './message.js';
import type { Netlink } from './netlink.js';
import { decodeLink, decodePrefix, GROUP, RTM } from './rtnetlink.js';
import { getLink } from './rtnetlink-request.js';

/* RFC 4861 asks three times, 4 s apart; a port that has just come up may lose the first, and a
 * connection is waiting: so more often at first.
 */
const SOLICITATIONS_AGAIN_MS = [250, 1000, 4000, 8000];

/* RFC 4861: a router may answer 0.5 s late, and advertises once in 3 s at most. */
const SETTLE_MS = 4000;

const ALL_ROUTERS = address('ff02::2');
const IPPROTO_ICMPV6 = 58;
const ROUTER_SOLICITATION = 133;
const SOURCE_LINK_LAYER_ADDRESS = 1;
const IPPROTO_IPV6 = 41;
const IPV6_MULTICAST_HOPS = 18;

/* The interface has no IPv6 (yet), or is gone: nothing to ask there. */
const NO_IPV6 = ['EADDRNOTAVAIL', 'ENETUNREACH', 'ENODEV', 'EAFNOSUPPORT', 'ENETDOWN', 'EACCES'];

interface Watch {
  interface: string;
  learned: Learned;
  /** Prefixes announced since. */
  confirmed: Set<string>;
  timers: NodeJS.Timeout[];
}

/** What routers have given to an interface, followed over changes of its link. */
export class Autoconfiguration {
  #netlink: Netlink;
  #poller: Poller;
  #onDropped: (interfaceName: string, addresses: Address[]) => void;
  #socket: number;
  #buffer = new Uint8Array(64 << 10);
  #watches = new Map<number, Watch>();

  /** `onDropped`: told of addresses that were dropped, as the link is another one.  */
  constructor(
    netlink: Netlink,
    poller: Poller,
    onDropped: (interfaceName: string, addresses: Address[]) => void = () => {},
  ) {
    this.#netlink = netlink;
    this.#poller = poller;
    this.#onDropped = onDropped;
    this.#socket = openSocket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    bindNetlink(this.#socket, GROUP.IPV6_PREFIX);
    poller.add(this.#socket, () => this.#drain());
  }

  /** The carrier went: remembers what the old link's routers have given. */
  carrierDown(interfaceName: string): void {
    const index = interfaceIndex(interfaceName);
    if (index === undefined) return;
    // What was announced before the carrier went is about the old link.
    this.#drain();
    this.#watch(interfaceName, index);
  }

  /** The carrier came: asks for routers until one answers.  Throws SystemError. */
  carrierUp(interfaceName: string): void {
    const index = interfaceIndex(interfaceName);
    if (index === undefined || !kernelAutoconfigures(interfaceName)) return;
    const watch = this.#watches.get(index) ?? this.#watch(interfaceName, index);
    stopTimers(watch);
    for (const delayMs of SOLICITATIONS_AGAIN_MS) {
      watch.timers.push(setTimeout(() => this.#askAgain(index), delayMs).unref());
    }
    this.#solicit(index);
  }

  close(): void {
    for (const index of [...this.#watches.keys()]) this.#forget(index);
    this.#poller.remove(this.#socket);
    closeFd(this.#socket);
  }

  #watch(interfaceName: string, index: number): Watch {
    this.#forget(index);
    const learned = learnedFromRouters(this.#netlink, index);
    const watch = { interface: interfaceName, learned, confirmed: new Set<string>(), timers: [] };
    this.#watches.set(index, watch);
    return watch;
  }

  #forget(index: number): void {
    const watch = this.#watches.get(index);
    if (watch !== undefined) stopTimers(watch);
    this.#watches.delete(index);
  }

  #askAgain(index: number): void {
    try {
      this.#solicit(index);
    } catch {
      // The first attempt has told of it.
    }
  }

  #solicit(index: number): void {
    const socket = openSocket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    try {
      // RFC 4861, section 4.1: whoever is off the link cannot make it 255.
      setOption(socket, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 255);
      sendTo(socket, routerSolicitation(this.#mac(index)), scoped(ALL_ROUTERS, index));
    } catch (error) {
      if (!(error instanceof SystemError) || !NO_IPV6.includes(error.code)) throw error;
    } finally {
      closeFd(socket);
    }
  }

  #mac(index: number): Uint8Array {
    const [answer] = this.#netlink.request(getLink(index), `look at interface ${index}`);
    const link = answer === undefined ? undefined : decodeLink(answer);
    return link?.ethernet === true ? link.mac : new Uint8Array();
  }

  /* The prefixes of one advertisement are queued in one go: they are judged together. */
  #drain(): void {
    const announced = new Map<number, Set<string>>();
    for (;;) {
      const length = this.#receive();
      if (length < 0) break;
      const messages = decodeMessages(this.#buffer.subarray(0, length));
      if ('error' in messages) continue;
      for (const message of messages) {
        const prefix = message.type === RTM.NEWPREFIX ? decodePrefix(message) : undefined;
        if (prefix === undefined) continue;
        const prefixes = announced.get(prefix.index) ?? new Set();
        announced.set(prefix.index, prefixes.add(prefixOf(prefix.prefix, prefix.prefixLength)));
      }
    }
    for (const [index, prefixes] of announced) this.#judge(index, prefixes);
  }

  #receive(): number {
    try {
      return receive(this.#socket, this.#buffer);
    } catch (error) {
      // Too many at once: routers repeat their advertisements.
      if (error instanceof SystemError && error.code === 'ENOBUFS') return this.#receive();
      throw error;
    }
  }

  #judge(index: number, announced: ReadonlySet<string>): void {
    const watch = this.#watches.get(index);
    if (watch === undefined) return;
    const first = watch.confirmed.size === 0;
    for (const prefix of announced) watch.confirmed.add(prefix);
    if (!first) return;
    const sameLink = [...announced].some((prefix) => watch.learned.prefixes.has(prefix));
    stopTimers(watch);
    if (sameLink) watch.timers.push(setTimeout(() => this.#settle(index), SETTLE_MS).unref());
    else this.#settle(index);
  }

  #settle(index: number): void {
    const watch = this.#watches.get(index);
    if (watch === undefined) return;
    this.#forget(index);
    if (!kernelAutoconfigures(watch.interface)) return;
    const dropped = dropLearned(this.#netlink, watch.interface, watch.learned, watch.confirmed);
    if (dropped.length > 0) this.#onDropped(watch.interface, dropped);
  }
}

function stopTimers(watch: Watch): void {
  for (const timer of watch.timers.splice(0)) clearTimeout(timer);
}

/** Whether the kernel itself, and no network manager, takes in router advertisements. */
export function kernelAutoconfigures(interfaceName: string): boolean {
  const accept = ipv6Setting(interfaceName, 'accept_ra');
  if (accept === 1) return ipv6Setting(interfaceName, 'forwarding') === 0;
  return accept === 2; // also on a router
}

function ipv6Setting(interfaceName: string, setting: string): number | undefined {
  try {
    return Number(readFileSync(`/proc/sys/net/ipv6/conf/${interfaceName}/${setting}`, 'utf8'));
  } catch {
    return undefined; // no IPv6, or no such interface
  }
}

/** RFC 4861, section 4.1; the kernel fills in the checksum. */
export function routerSolicitation(mac: Uint8Array): Uint8Array {
  if (mac.length !== 6) return Uint8Array.of(ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0);
  const option = [SOURCE_LINK_LAYER_ADDRESS, 1, ...mac];
  return Uint8Array.of(ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0, ...option);
}

function scoped(a: Address, index: number): Uint8Array {
  const sockaddr = inetSockaddr(a).slice();
  new DataView(sockaddr.buffer).setUint32(24, index, true);
  return sockaddr;
}
