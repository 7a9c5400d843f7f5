/* What this machine says of the wires that are claimed: whose an address is, and whether a tuple is
 * somebody's who has nothing to do with tiflow.  The kernel is asked each time.
 */

import type { Boundary } from '../../boundary/boundary.js';
import { isTracked } from '../../link/conntrack-look-up.js';
import { type RouteType, routeType } from '../../link/route.js';
import { hasSocket } from '../../link/sockets.js';
import type { Netlink } from '../../netlink/netlink.js';
import type { Occupancy } from '../../sync/agent.js';
import type { Address } from '../../wire/address.js';
import type { Tuple } from '../../wire/tuple.js';

/* What can be sent to, but is not one host, or is this one. */
const NOT_ANOTHERS: readonly RouteType[] = ['local', 'broadcast', 'anycast', 'multicast'];

export class KernelOccupancy implements Occupancy {
  readonly #netlink: Netlink;
  readonly #boundary: Pick<Boundary, 'isPlain'>;

  constructor(netlink: Netlink, boundary: Pick<Boundary, 'isPlain'>) {
    this.#netlink = netlink;
    this.#boundary = boundary;
  }

  isOurs(a: Address): boolean {
    return routeType(this.#netlink, a) === 'local';
  }

  /** Without a route, too: what has come may have come by a way that leads here only. */
  isAnothers(a: Address): boolean {
    const type = routeType(this.#netlink, a);
    return type === undefined || !NOT_ANOTHERS.includes(type);
  }

  /** Of a VM's and a forwarded connection only the boundary and conntrack know, if they do. */
  isUsed(wire: Tuple): boolean {
    if (wire.tap !== undefined) return this.#boundary.isPlain(wire);
    return hasSocket(this.#netlink, wire) || isTracked(this.#netlink, wire);
  }
}
