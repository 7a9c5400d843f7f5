/*
 * Sends what TCP has for an address on this host's own link by another next hop, so that a flow
 * whose peer has left the link gets past neighbour resolution, and to the boundary behind it.
 *
 * The kernel goes on sending such a flow to the old address.  Nobody there answers ARP or NDP, so
 * the packets never come to the boundary, which would translate them; or a stranger answers, who
 * must be talked to directly.  So the flows are told apart by their ports.  For ADDR, with table T
 * (proven in test/kernel/detour.test.ts):
 *
 *   rule  100  to ADDR ipproto tcp sport X dport Y lookup T   for each flow
 *   rule  101  to ADDR ipproto tcp sport 1-65534 goto 103     IPv4: the stranger's connections
 *   rule  102  to ADDR ipproto tcp lookup T                   IPv4: look-ups without ports
 *   rule  103  to ADDR nop                                    IPv4
 *   route T    ADDR via NEXT-HOP dev IF onlink
 *
 * A change of the rules makes sockets look up their routes again, in both families.  Why the
 * look-ups without ports: IPv4 files the path MTU of a socket under the route that it would have
 * without its ports (build_sk_flow_key), so that the flow's own route would never learn it.
 *
 * Every rule costs each new look-up of this host a little.  Beyond `flowsMax` flows, rule 102 alone
 * takes all TCP to ADDR: a stranger there is reached through the next hop then, as long as that
 * forwards to its own link.
 *
 * Rejected: a neighbour entry or a route in table main (takes the stranger's packets as well);
 * a firewall mark on the socket (only its program can set one).
 *
 * Everything is tagged with the protocol number of retained.ts, so that a new daemon, or
 * `tiflow down` after a crash halfway, finds it.
 */
import { ERRNO, SystemError } from '../libc/errno.js';
import { interfaceIndex } from '../libc/socket.js';
import type { Netlink } from '../netlink/netlink.js';
import { type Address, family } from '../wire/address.js';
import { KernelObjects } from './kernel-objects.js';
import { forgetUnresolved } from './neighbours.js';
import { RETAINED_PROTOCOL } from './retained.js';
import {
  decodeRoute,
  decodeRule,
  ROUTE_TYPE,
  type RouteRecord,
  type RuleRecord,
  SCOPE,
  type Version,
} from './rtnetlink.js';
import {
  changeRoute,
  changeRule,
  getRoutes,
  getRules,
  type RouteChange,
} from './rtnetlink-request.js';

/** The next hop, on an interface of ours. */
export interface NextHop {
  interface: string;
  gateway: Address;
}

/** A connection to the address of the detour, by its ports. */
export interface FlowPorts {
  localPort: number;
  remotePort: number;
}

export interface Detour {
  via: NextHop;
  flows: readonly FlowPorts[];
}

const PRIORITY = { FLOW: 100, OTHERS: 101, PORTLESS: 102, END: 103 } as const;
const PRIORITIES: readonly number[] = Object.values(PRIORITY);
const VERSIONS: readonly Version[] = [4, 6];
const IPPROTO_TCP = 6;

/* Measured: a rule costs a look-up 15 to 30 ns, so these add 1 to 2 µs. */
const FLOWS_MAX = 64;

/** The detours of this network namespace.  The kernel holds them; this object remembers them. */
export class DetourTable {
  #netlink: Netlink;
  #kernel: KernelObjects;
  #table: number;
  #flowsMax: number;
  #rules = new Map<Address, Map<string, RuleRecord>>();
  #routes = new Map<Address, Pick<RouteRecord, 'index' | 'gateway'>>();

  /** `table`: ours alone.  `flowsMax`: no more flows than these are told apart. */
  constructor(netlink: Netlink, o: { table: number; flowsMax?: number }) {
    this.#netlink = netlink;
    this.#kernel = new KernelObjects(netlink);
    this.#table = o.table;
    this.#flowsMax = o.flowsMax ?? FLOWS_MAX;
    this.refresh();
  }

  /** Reads what the kernel has: it removes the routes of a link that goes down by itself. */
  refresh(): void {
    this.#rules.clear();
    this.#routes.clear();
    for (const rule of this.#readRules()) {
      if (rule.to !== undefined) this.#rulesTo(rule.to).set(keyOf(rule), rule);
    }
    for (const route of this.#readRoutes()) {
      if (route.destination !== undefined) this.#routes.set(route.destination, route);
    }
  }

  /** The addresses that have a detour, also those of an earlier daemon. */
  destinations(): Address[] {
    return [...new Set([...this.#rules.keys(), ...this.#routes.keys()])];
  }

  /**
   * Makes this the detour of `destination`; undefined: none.  No-op if it is already.  Whether
   * any flow is sent another way now.  Throws SystemError; then some of it may be done.
   */
  set(destination: Address, detour: Detour | undefined): boolean {
    const attempted = `detour to ${destination}`;
    const known = this.#rules.get(destination) ?? new Map<string, RuleRecord>();
    const wanted = new Map(
      detour === undefined
        ? []
        : this.#rulesFor(destination, detour.flows).map((r) => [keyOf(r), r]),
    );
    const moved = detour !== undefined && this.#lead(destination, detour.via, attempted);
    const added = [...wanted].filter(([key]) => !known.has(key));
    const gone = [...known].filter(([key]) => !wanted.has(key));
    for (const [, rule] of added) this.#kernel.change('add', attempted, changeRule('add', rule));
    for (const [, rule] of gone)
      this.#kernel.change('remove', attempted, changeRule('remove', rule));
    if (wanted.size > 0) this.#rules.set(destination, wanted);
    else this.#rules.delete(destination);
    if (detour === undefined) this.#leadNoMore(destination, attempted);
    const isNew = moved || added.length > 0;
    // A segment that waits for a neighbour is not sent by another way.
    if (isNew) forgetUnresolved(this.#netlink, 0, destination);
    return isNew;
  }

  /** Removes everything. */
  removeAll(): void {
    this.refresh();
    for (const destination of this.destinations()) this.set(destination, undefined);
  }

  #rulesFor(to: Address, flows: readonly FlowPorts[]): RuleRecord[] {
    const version = family(to);
    const common = { version, to, from: undefined, mark: 0, protocol: RETAINED_PROTOCOL };
    const lookUp = { ...common, table: this.#table, ipProtocol: IPPROTO_TCP };
    const portless = { ...lookUp, priority: PRIORITY.PORTLESS };
    if (this.#toldApart(to) + flows.length > this.#flowsMax) return [portless];
    const each = flows.map(({ localPort, remotePort }) => ({
      ...lookUp,
      priority: PRIORITY.FLOW,
      sourcePorts: [localPort, localPort] as const,
      destinationPorts: [remotePort, remotePort] as const,
    }));
    if (version === 6) return each;
    const others = {
      ...{ ...common, table: 0, ipProtocol: IPPROTO_TCP, priority: PRIORITY.OTHERS },
      sourcePorts: [1, 65534] as const,
      action: { goto: PRIORITY.END },
    };
    const end = { ...common, table: 0, priority: PRIORITY.END, action: 'nop' } as const;
    return [end, others, portless, ...each];
  }

  /** How many flows have rules of their own, to other addresses than this. */
  #toldApart(except: Address): number {
    let count = 0;
    for (const [destination, rules] of this.#rules) {
      if (destination === except) continue;
      for (const { priority } of rules.values()) if (priority === PRIORITY.FLOW) count += 1;
    }
    return count;
  }

  /** Makes the route; whether it was another one, or none, before. */
  #lead(destination: Address, via: NextHop, attempted: string): boolean {
    const index = interfaceIndex(via.interface);
    if (index === undefined) {
      throw new SystemError(`${attempted} by ${via.interface}`, ERRNO.ENODEV);
    }
    const known = this.#routes.get(destination);
    if (known?.index === index && known.gateway === via.gateway) return false;
    // IPv6 would put a second next hop beside the first.
    if (known !== undefined) this.#leadNoMore(destination, attempted);
    const route = this.#route(destination, { index, gateway: via.gateway });
    this.#kernel.change('add', attempted, changeRoute('add', { ...route, onLink: true }));
    this.#routes.set(destination, { index, gateway: via.gateway });
    return true;
  }

  #leadNoMore(destination: Address, attempted: string): void {
    const known = this.#routes.get(destination);
    if (known === undefined) return;
    this.#kernel.change('remove', attempted, changeRoute('remove', this.#route(destination, {})));
    this.#routes.delete(destination);
  }

  #route(destination: Address, to: { index?: number; gateway?: Address }) {
    const version = family(destination);
    return {
      ...{ version, destination, prefixLength: version === 4 ? 32 : 128, ...to },
      ...{ table: this.#table, protocol: RETAINED_PROTOCOL },
      ...{ scope: SCOPE.GLOBAL, type: ROUTE_TYPE.UNICAST },
    } satisfies RouteChange;
  }

  #rulesTo(destination: Address): Map<string, RuleRecord> {
    const known = this.#rules.get(destination) ?? new Map<string, RuleRecord>();
    this.#rules.set(destination, known);
    return known;
  }

  #readRules(): RuleRecord[] {
    return VERSIONS.flatMap((version) =>
      this.#kernel.list(getRules(version), 'list the policy rules', decodeRule),
    ).filter(
      (rule) =>
        rule.protocol === RETAINED_PROTOCOL &&
        PRIORITIES.includes(rule.priority) &&
        (rule.table === this.#table || rule.action !== undefined),
    );
  }

  #readRoutes(): RouteRecord[] {
    return VERSIONS.flatMap((version) => {
      const attempted = `list the routes of table ${this.#table}`;
      return this.#kernel.list(getRoutes(version, this.#table), attempted, decodeRoute);
    }).filter((route) => route.table === this.#table && route.protocol === RETAINED_PROTOCOL);
  }
}

const keyOf = (rule: RuleRecord): string =>
  [rule.priority, rule.sourcePorts?.[0], rule.destinationPorts?.[0]].join(' ');
