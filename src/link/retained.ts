/*
 * Addresses that are gone from the interfaces, kept for the sockets that live on them.
 *
 * A retained address must do three things at once: let its sockets send, let packets that the
 * boundary has rewritten for it in, and leave everything else to whoever owns it now.  So it is
 * local for marked packets only.  For ADDR, with mark M and table T (measured in
 * test/kernel: address-gone, kick, retained, stranger):
 *
 *   rule   99     to ADDR fwmark M lookup T    in: behind `local` (0), as ADDR is not in there
 *   rule   33000  from ADDR lookup T           out: behind `main`, so only if there is no route
 *   route  T      local ADDR dev lo
 *   route  T      default dev lo hoplimit 1    a black hole that looks like a sent packet; on
 *                                              a host that forwards, it would turn 64 times
 *   IPv4:  address ADDR/32 on lo, scope host, and its route taken out of table `local`: the
 *          kernel sends from no IPv4 address that no interface has.  IPv6 needs none.
 *
 * Why the black hole: without any route IPv4 keeps new data unsent in the zero-window probe
 * timer, which an ICMP kick cannot end, and IPv6 shows the program ENETUNREACH in SO_ERROR.
 *
 * Rejected: ADDR in table `local` (a stranger who gets ADDR next could not be talked to);
 * ip_nonlocal_bind (does not let an existing socket send); one rule for the mark alone (a marked
 * packet for another address would fall into the black hole).
 *
 * Everything is tagged with a protocol number, so that a new daemon, or `tiflow down` after a
 * crash halfway, finds it.
 */
import { SystemError } from '../libc/errno.js';
import type { Netlink } from '../netlink/netlink.js';
import { type Address, family } from '../wire/address.js';
import { KernelObjects } from './kernel-objects.js';
import { forgetUnresolved } from './neighbours.js';
import {
  decodeAddress,
  decodeLink,
  decodeRoute,
  decodeRule,
  ROUTE_TYPE,
  type RouteRecord,
  type RuleRecord,
  SCOPE,
  TABLE,
  type Version,
} from './rtnetlink.js';
import {
  changeAddress,
  changeRoute,
  changeRule,
  getAddresses,
  getLink,
  getRoutes,
  getRules,
} from './rtnetlink-request.js';

/* Linux has lo as 1 in every network namespace. */
const LOOPBACK = 1;

/** RTPROT_… of our own: 'T'.  Free in /etc/iproute2/rt_protos and in rtnetlink.h. */
export const RETAINED_PROTOCOL = 84;

/* Longer than any gateway takes that is there. */
const UNRESOLVED_MS = 50;

const PRIORITY_IN = 99;
const PRIORITY_OUT = 33000;
const VERSIONS: readonly Version[] = [4, 6];

/** The retained addresses of this network namespace.  The kernel holds them, not this object. */
export class RetainedAddresses {
  #netlink: Netlink;
  #kernel: KernelObjects;
  #mark: number;
  #table: number;

  /** `mark`: what the boundary sets on packets for a retained address.  `table`: ours alone. */
  constructor(netlink: Netlink, o: { mark: number; table: number }) {
    this.#netlink = netlink;
    this.#kernel = new KernelObjects(netlink);
    this.#mark = o.mark;
    this.#table = o.table;
  }

  /**
   * Keeps `a` for its sockets.  Doing it again repairs what has got lost, and an address that an
   * interface has again may stay retained meanwhile.  Throws SystemError; then nothing is left.
   */
  retain(a: Address): void {
    try {
      this.#kernel.change('add', `retain ${a}`, changeRoute('add', this.#blackHole(family(a))));
      this.#kernel.change('add', `retain ${a}`, changeRoute('add', this.#local(a)));
      for (const rule of this.#rules(a)) {
        this.#kernel.change('add', `retain ${a}`, changeRule('add', rule));
      }
      if (family(a) === 4) this.#putOnLoopback(a);
      // Segments that wait for the gateway of the link that the address was on.
      forgetUnresolved(this.#netlink);
    } catch (error) {
      this.#tryRelease(a);
      throw explain(error, this.#loopbackIsUp());
    }
  }

  /** Gives `a` up: its sockets are cut off unless an interface has it.  No-op if not retained. */
  release(a: Address): void {
    const attempted = `release ${a}`;
    if (family(a) === 4 && this.#onLoopback().includes(a)) {
      this.#kernel.change('remove', attempted, changeAddress('remove', onLoopback(a)));
    }
    for (const rule of this.#rules(a)) {
      this.#kernel.change('remove', attempted, changeRule('remove', rule));
    }
    // Last of all: it is what list() reads.
    this.#kernel.change('remove', attempted, changeRoute('remove', this.#local(a)));
    if (this.#retained(family(a)).length > 0) return;
    this.#kernel.change('remove', attempted, changeRoute('remove', this.#blackHole(family(a))));
  }

  /**
   * To be called when routes have changed, before anything is sent by them.  A socket keeps the
   * route that it has used, and the kernel does not take the black hole from it when `main` gets
   * a route: IPv6 looks at changes of the same table only (ip6_dst_check, fn_sernum).  And a
   * segment may still wait for a gateway of before.
   */
  routesChanged(): void {
    for (const version of VERSIONS) {
      if (this.#retained(version).length === 0) continue;
      const attempted = 'renew the black hole of retained addresses';
      this.#kernel.change('add', attempted, changeRoute('add', this.#blackHole(version)));
      forgetUnresolved(this.#netlink, UNRESOLVED_MS);
    }
  }

  /** The retained addresses as the kernel has them, also those of an earlier daemon. */
  list(): Address[] {
    return VERSIONS.flatMap((version) => this.#retained(version));
  }

  /**
   * What of a retained address is not there, as `ip` writes it: there are programs that remove rules
   * and routes which are not their own.
   */
  missing(a: Address): string[] {
    const version = family(a);
    const rules = this.#kernel.list(getRules(version), 'list the policy rules', decodeRule);
    const types = (isOf: (route: RouteRecord) => boolean) =>
      new Set(
        this.#ours(version)
          .filter(isOf)
          .map(({ type }) => type),
      );
    const there = {
      local: types(({ destination }) => destination === a).has(ROUTE_TYPE.LOCAL),
      default: types(({ prefixLength }) => prefixLength === 0).has(ROUTE_TYPE.UNICAST),
      address: version === 6 || this.#onLoopback().includes(a),
    };
    return [
      ...this.#rules(a)
        .filter((rule) => !rules.some((known) => isSameRule(rule, known)))
        .map(ruleText),
      ...(there.local ? [] : [`route local ${a} dev lo table ${this.#table}`]),
      ...(there.default ? [] : [`route default dev lo table ${this.#table}`]),
      ...(there.address ? [] : [`address ${a}/32 dev lo`]),
    ];
  }

  /** Gives everything up, also what a crash has left halfway. */
  releaseAll(): void {
    for (const a of this.list()) this.release(a);
    for (const rule of this.#leftoverRules()) {
      this.#kernel.change('remove', 'release all', changeRule('remove', rule));
      const a = rule.from ?? rule.to;
      if (a !== undefined) this.release(a);
    }
    for (const version of VERSIONS) {
      if (this.#ours(version).length === 0) continue;
      this.#kernel.change('remove', 'release all', changeRoute('remove', this.#blackHole(version)));
    }
  }

  #retained(version: Version): Address[] {
    return this.#ours(version)
      .filter((route) => route.type === ROUTE_TYPE.LOCAL)
      .flatMap((route) => route.destination ?? []);
  }

  #ours(version: Version): RouteRecord[] {
    const attempted = `list the routes of table ${this.#table}`;
    return this.#kernel
      .list(getRoutes(version, this.#table), attempted, decodeRoute)
      .filter((route) => route.table === this.#table && route.protocol === RETAINED_PROTOCOL);
  }

  #leftoverRules(): RuleRecord[] {
    return VERSIONS.flatMap((version) =>
      this.#kernel.list(getRules(version), 'list the policy rules', decodeRule),
    ).filter((rule) => rule.table === this.#table && rule.protocol === RETAINED_PROTOCOL);
  }

  #onLoopback(): Address[] {
    return this.#kernel
      .list(getAddresses(), 'list the addresses', decodeAddress)
      .filter((a) => a.index === LOOPBACK && a.scope === SCOPE.HOST && a.prefixLength === 32)
      .map((a) => a.address);
  }

  #putOnLoopback(a: Address): void {
    this.#kernel.change('add', `retain ${a}`, changeAddress('add', onLoopback(a)));
    const shadow = { ...this.#local(a), table: TABLE.LOCAL, protocol: 0 };
    this.#kernel.change('remove', `retain ${a}`, changeRoute('remove', shadow));
  }

  #tryRelease(a: Address): void {
    try {
      this.release(a);
    } catch {
      // What stopped retain() is the error worth telling.
    }
  }

  #loopbackIsUp(): boolean {
    const [answer] = this.#netlink.request(getLink(LOOPBACK), 'look at lo');
    return answer !== undefined && decodeLink(answer)?.up === true;
  }

  #local(a: Address) {
    const version = family(a);
    const prefixLength = version === 4 ? 32 : 128;
    const target = { version, destination: a, prefixLength, index: LOOPBACK };
    return { ...target, ...this.#tag(), scope: SCOPE.HOST, type: ROUTE_TYPE.LOCAL };
  }

  #blackHole(version: Version) {
    const target = { version, prefixLength: 0, index: LOOPBACK };
    const kind = { scope: SCOPE.LINK, type: ROUTE_TYPE.UNICAST, hopLimit: 1 };
    return { ...target, ...this.#tag(), ...kind };
  }

  #rules(a: Address) {
    const common = { version: family(a), ...this.#tag() };
    return [
      { ...common, priority: PRIORITY_IN, to: a, from: undefined, mark: this.#mark },
      { ...common, priority: PRIORITY_OUT, to: undefined, from: a, mark: 0 },
    ];
  }

  #tag() {
    return { table: this.#table, protocol: RETAINED_PROTOCOL };
  }
}

type OwnRule = Pick<RuleRecord, 'priority' | 'from' | 'to' | 'mark' | 'table' | 'protocol'>;

const isSameRule = (a: OwnRule, b: OwnRule): boolean =>
  (['priority', 'from', 'to', 'mark', 'table', 'protocol'] as const).every((k) => a[k] === b[k]);

function ruleText({ priority, from, to, mark, table }: OwnRule): string {
  const matches = from === undefined ? `to ${to} fwmark 0x${mark.toString(16)}` : `from ${from}`;
  return `rule ${priority}: ${matches} lookup ${table}`;
}

const onLoopback = (a: Address) => ({
  address: a,
  prefixLength: 32,
  index: LOOPBACK,
  // Host scope: never chosen as the source of something else.
  scope: SCOPE.HOST,
});

function explain(error: unknown, loopbackUp: boolean): unknown {
  if (loopbackUp || !(error instanceof SystemError)) return error;
  const hint = 'lo is down: ip link set lo up';
  return new SystemError(error.message, error.errno, { hint, cause: error });
}
