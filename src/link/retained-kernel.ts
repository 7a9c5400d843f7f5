/*
 * Retained addresses (retained.ts) in this kernel: what is there, and the steps to what should be.
 */
import { SystemError } from '../libc/errno.js';
import type { Netlink } from '../netlink/netlink.js';
import type { Address } from '../wire/address.js';
import { type KernelObject, KernelObjects, type Step } from './kernel-objects.js';
import { forgetUnresolved } from './neighbours.js';
import {
  addressObject,
  blackHole,
  LOOPBACK,
  type Observed,
  planRetained,
  RETAINED_PEER,
  RETAINED_PROTOCOL,
  routeObject,
  ruleObject,
} from './retained.js';
import {
  type AddressRecord,
  decodeAddress,
  decodeLink,
  decodeRoute,
  decodeRule,
  PROTOCOL,
  ROUTE_TYPE,
  type RouteRecord,
  SCOPE,
  TABLE,
} from './rtnetlink.js';
import {
  changeRoute,
  getAddressesOf,
  getLink,
  getRoutes,
  getRules,
  matchRoute,
} from './rtnetlink-request.js';

/* Longer than any gateway takes that is there. */
const UNRESOLVED_MS = 50;

const VERSIONS = [4, 6] as const;

export interface RetainedOptions {
  table: number;
  /** The interfaces with a boundary. */
  interfaces: () => readonly string[];
  /** Whether some of them are gateways. */
  forwards: () => boolean;
}

export interface Failure {
  step: Step;
  error: unknown;
}

/** The retained addresses of this network namespace.  The kernel holds them, not this object. */
export class RetainedAddresses {
  readonly #netlink: Netlink;
  readonly #kernel: KernelObjects;
  readonly #o: RetainedOptions;

  constructor(netlink: Netlink, o: RetainedOptions) {
    this.#netlink = netlink;
    this.#kernel = new KernelObjects(netlink);
    this.#o = o;
  }

  /** What there is of ours, whoever has made it: also what a crash, or a former version, has left. */
  observe(): Observed {
    const { table } = this.#o;
    const routes = VERSIONS.flatMap((version) => this.#routes(version));
    const rules = VERSIONS.flatMap((version) =>
      this.#kernel.list(getRules(version), 'list the policy rules', decodeRule),
    ).filter((rule) => rule.table === table && rule.protocol === RETAINED_PROTOCOL);
    const kept = this.#onLoopback().filter(isKept);
    return {
      objects: [
        ...[...routes].sort((a, b) => a.prefixLength - b.prefixLength).map(routeObject),
        ...rules.map(ruleObject),
        ...kept.map(addressObject),
      ],
      shadows: [...new Set(kept.map((a) => a.address))].flatMap((a) => this.#shadow(a)),
    };
  }

  /** What has to be done so that just these addresses are kept.  Throws SystemError. */
  plan(addresses: readonly Address[]): Step[] {
    const { table, interfaces, forwards } = this.#o;
    const wanted = { addresses, table, interfaces: interfaces(), forwards: forwards() };
    return planRetained(wanted, this.observe());
  }

  /** Carries out each step, whatever becomes of the others; what could not be done. */
  apply(steps: readonly Step[]): Failure[] {
    const failures: Failure[] = [];
    for (const step of steps) {
      try {
        this.#apply(step);
      } catch (error) {
        failures.push({ step, error: this.#explain(error) });
      }
    }
    // Segments that wait for the gateway of the link that an address was on.
    if (steps.some(({ verb }) => verb === 'add')) forgetUnresolved(this.#netlink);
    return failures;
  }

  /** Keeps just these addresses.  Throws the first SystemError; the rest is done all the same. */
  keep(addresses: readonly Address[]): void {
    const [first] = this.apply(this.plan(addresses));
    if (first !== undefined) throw first.error;
  }

  /** The retained addresses as the kernel has them, also those of an earlier daemon. */
  list(): Address[] {
    return VERSIONS.flatMap((version) => this.#routes(version))
      .filter(isLocal)
      .flatMap(({ destination }) => destination ?? []);
  }

  /** What is not as it should be while `addresses` are kept, as `ip` writes it. */
  lacking(addresses: readonly Address[]): string[] {
    const missing = this.plan(addresses).filter(({ verb }) => verb === 'add');
    return missing.map(({ object }) => object.text);
  }

  /**
   * Whether the kernel delivers to an address for another reason than that we keep it.  On lo its
   * own route comes back when lo goes down and up.
   */
  isLocal(a: Address): boolean {
    const route = this.#match(a);
    if (route === undefined || !isLocal(route)) return false;
    if (!isOfAddressOnLoopback(route)) return true;
    const holders = this.#onLoopback().filter(({ address }) => address === a);
    return holders.some((holder) => !isKept(holder));
  }

  /**
   * To be called when routes have changed, before anything is sent by them.  A socket keeps the
   * route that it has used, and the kernel does not take the black hole from it when `main` gets
   * a route: IPv6 looks at changes of the same table only (ip6_dst_check, fn_sernum).  And a
   * segment may still wait for a gateway of before.
   */
  routesChanged(): void {
    for (const version of VERSIONS) {
      if (!this.#routes(version).some(isLocal)) continue;
      const again = changeRoute('add', blackHole(version, this.#o.table));
      this.#kernel.change('add', 'renew the black hole of retained addresses', again);
      forgetUnresolved(this.#netlink, UNRESOLVED_MS);
    }
  }

  /* The kernel makes a route in table `local` with an address, and it goes with the step. */
  #apply(step: Step): void {
    this.#kernel.apply(step);
    if (step.verb === 'remove' || step.object.kind !== 'address') return;
    const because = 'whoever has the address now is to be reached';
    for (const object of this.#shadow(step.object.address.address)) {
      this.#kernel.apply({ verb: 'remove', object, because });
    }
  }

  #routes(version: 4 | 6): RouteRecord[] {
    const { table } = this.#o;
    return this.#kernel
      .list(getRoutes(version, table), `list the routes of table ${table}`, decodeRoute)
      .filter((route) => route.table === table && route.protocol === RETAINED_PROTOCOL);
  }

  #onLoopback(): AddressRecord[] {
    return this.#kernel
      .list(getAddressesOf(4, LOOPBACK), 'list the addresses of lo', decodeAddress)
      .filter((a) => a.index === LOOPBACK);
  }

  /* Ours alone: where another address of lo is the same, the route is that one's. */
  #shadow(a: Address): KernelObject[] {
    const route = this.#match(a);
    if (route === undefined || !isOfAddressOnLoopback(route) || this.isLocal(a)) return [];
    const { version, destination, prefixLength, protocol, scope, type, index } = route;
    const table = TABLE.LOCAL;
    return [
      routeObject({ version, destination, prefixLength, table, protocol, scope, type, index }),
    ];
  }

  #match(a: Address): RouteRecord | undefined {
    try {
      const [answer] = this.#netlink.request(matchRoute(a), `look up the route to ${a}`);
      return answer && decodeRoute(answer);
    } catch (error) {
      if (error instanceof SystemError && UNREACHABLE.includes(error.code)) return undefined;
      throw error;
    }
  }

  #explain(error: unknown): unknown {
    if (!(error instanceof SystemError)) return error;
    const [answer] = this.#netlink.request(getLink(LOOPBACK), 'look at lo');
    if (answer !== undefined && decodeLink(answer)?.up === true) return error;
    const hint = 'lo is down: ip link set lo up';
    return new SystemError(error.message, error.errno, { hint, cause: error });
  }
}

const UNREACHABLE = ['ENETUNREACH', 'EHOSTUNREACH', 'EINVAL', 'EACCES', 'EAFNOSUPPORT'];

const isLocal = ({ type }: RouteRecord): boolean => type === ROUTE_TYPE.LOCAL;

/* What the kernel itself adds with an IPv4 address on lo.  Of which table it tells only sometimes: as
 * long as there are no rules, `local` is a part of `main`.
 */
const isOfAddressOnLoopback = (route: RouteRecord): boolean =>
  isLocal(route) &&
  route.version === 4 &&
  route.protocol === PROTOCOL.KERNEL &&
  route.index === LOOPBACK &&
  route.prefixLength === 32;

const isKept = ({ scope, peer }: AddressRecord): boolean =>
  scope === SCOPE.HOST && peer === RETAINED_PEER.address;
