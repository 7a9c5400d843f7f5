/*
 * IPv6 on a link that has changed: asks for a router at once, and forgets what the routers of
 * the old link had given (RFC 4861, section 6.3.7; RFC 4862).
 *
 * The kernel does stateless autoconfiguration, but it does not ask again when a carrier comes
 * back, and it keeps addresses and routes of the old link until their lifetimes end: the
 * old address would go on being used, and nobody would know that it has gone.  So, when the
 * first advertisement has new prefixes only, all that is old is dropped, as network managers do.
 * If it has a prefix of before, the link seems to be the same, but it may have several routers:
 * what none of them has confirmed after a while is dropped, and usually that is nothing.  A while
 * is short if the other routers, asked for one by one, do not even tell their hardware address.
 *
 *   first advertisement ──► no prefix of before ─────────────────────────► drop
 *          ├──► all prefixes of before ──────────────────────── 4 s ─────► drop the rest
 *          `──► some ──► ask the silent routers ──► one is there ── 4 s ─► drop the rest
 *                                  `──► none is there ── 0.6 s ──────────► drop the rest
 *
 * Some: also where a daemon comes too late for the first advertisement of the new link, and
 * takes what that gave for prefixes of before.
 *
 * Only where the kernel itself accepts router advertisements: systemd-networkd, NetworkManager
 * and dhcpcd switch that off on the interfaces that they own.
 *
 * Prefixes come from the kernel (RTM_NEWPREFIX), not from a socket of our own: what arrives
 * here has passed the kernel's checks (hop limit 255, a link-local router).
 */
import { SystemError } from '../libc/errno.js';
import { after, attempt } from '../libc/guard.js';
import type { Poller } from '../libc/poller.js';
import {
  AF_NETLINK,
  bindNetlink,
  closeFd,
  interfaceIndex,
  NETLINK_ROUTE,
  openSocket,
  receive,
  SOCK_RAW,
} from '../libc/socket.js';
import { decodeMessages } from '../netlink/message.js';
import type { Netlink } from '../netlink/netlink.js';
import type { Address } from '../wire/address.js';
import { ipv6Setting } from './ipv6-setting.js';
import {
  dropLearned,
  type Learned,
  learnedFromRouters,
  prefixOf,
  silentRouters,
} from './learned.js';
import { forgetUnresolved, isUnresolved } from './neighbours.js';
import { solicitRouters } from './router-solicitation.js';
import { decodePrefix, GROUP, RTM } from './rtnetlink.js';

/* RFC 4861 asks three times, 4 s apart; a port that has just come up may lose the first, and a
 * connection is waiting: so more often at first.
 */
const SOLICITATIONS_AGAIN_MS = [250, 1000, 4000, 8000];

/* RFC 4861: a router may answer 0.5 s late, and advertises once in 3 s at most. */
const SETTLE_MS = 4000;

/* A host must tell its hardware address at once (RFC 4861, section 7.2.4), but a multicast question
 * may get lost; the kernel itself would repeat it after a second.
 */
const ASK_SILENT_MS = [0, 200, 400];
const UNRESOLVED_MS = 600;

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
  #onJudged: (interfaceName: string, dropped: Address[]) => void;
  #socket: number;
  #buffer = new Uint8Array(64 << 10);
  #watches = new Map<number, Watch>();

  /**
   * `onJudged`: told when the first router advertisement after a change of the carrier has been
   * judged, with the addresses that were dropped as the link is another one: none, and at once,
   * if it has a prefix of before.  Once more if something is dropped later.
   */
  constructor(
    netlink: Netlink,
    poller: Poller,
    onJudged: (interfaceName: string, dropped: Address[]) => void = () => {},
  ) {
    this.#netlink = netlink;
    this.#poller = poller;
    this.#onJudged = onJudged;
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

  /** The carrier came: asks for routers until one answers. */
  carrierUp(interfaceName: string): void {
    const index = interfaceIndex(interfaceName);
    if (index === undefined || !kernelAutoconfigures(interfaceName)) return;
    const watch = this.#watches.get(index) ?? this.#watch(interfaceName, index);
    stopTimers(watch);
    for (const delayMs of SOLICITATIONS_AGAIN_MS) {
      watch.timers.push(after(delayMs, () => solicitRouters(this.#netlink, index)).unref());
    }
    attempt(() => solicitRouters(this.#netlink, index));
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
    stopTimers(watch);
    const before = [...watch.learned.prefixes];
    if (!before.some((prefix) => watch.confirmed.has(prefix))) {
      this.#onJudged(watch.interface, this.#settle(index));
      return;
    }
    const soon = before.some((prefix) => !watch.confirmed.has(prefix));
    this.#settleLater(index, watch, soon);
    this.#onJudged(watch.interface, []);
  }

  #settleLater(index: number, watch: Watch, soon: boolean): void {
    const later = (delayMs: number, act: () => void) =>
      watch.timers.push(after(delayMs, act).unref());
    const settle = () => {
      const dropped = this.#settle(index);
      if (dropped.length > 0) this.#onJudged(watch.interface, dropped);
    };
    later(SETTLE_MS, settle);
    if (!soon) return;
    for (const delayMs of ASK_SILENT_MS) later(delayMs, () => this.#askSilent(watch));
    later(UNRESOLVED_MS, () => {
      const silent = silentRouters(this.#netlink, watch.learned);
      if (silent.every((router) => isUnresolved(this.#netlink, router, index))) settle();
    });
  }

  /* One that is there tells its hardware address, and then advertises itself. */
  #askSilent({ learned }: Watch): void {
    for (const router of silentRouters(this.#netlink, learned)) {
      attempt(() => {
        forgetUnresolved(this.#netlink, 0, router);
        solicitRouters(this.#netlink, learned.index, router);
      });
    }
  }

  #settle(index: number): Address[] {
    const watch = this.#watches.get(index);
    if (watch === undefined) return [];
    this.#forget(index);
    if (!kernelAutoconfigures(watch.interface)) return [];
    return dropLearned(this.#netlink, watch.interface, watch.learned, watch.confirmed);
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
