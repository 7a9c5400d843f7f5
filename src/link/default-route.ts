/*
 * Which links have a default route in table main: by whatever metric, through a gateway or not.
 */
import type { Netlink } from '../netlink/netlink.js';
import { KernelObjects } from './kernel-objects.js';
import { decodeRoute, ROUTE_TYPE, TABLE } from './rtnetlink.js';
import { getRoutes } from './rtnetlink-request.js';

/** Their indexes.  Reads the whole table.  Throws SystemError. */
export function defaultLinks(netlink: Netlink): ReadonlySet<number> {
  const kernel = new KernelObjects(netlink);
  const routes = ([4, 6] as const).flatMap((version) =>
    kernel.list(getRoutes(version, TABLE.MAIN), 'list the default routes', decodeRoute),
  );
  return new Set(
    routes
      .filter((route) => route.prefixLength === 0 && route.type === ROUTE_TYPE.UNICAST)
      .flatMap((route) => [...(route.index === undefined ? [] : [route.index]), ...route.hops]),
  );
}
