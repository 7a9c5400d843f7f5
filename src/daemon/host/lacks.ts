/* What this kernel does not have and tiflow can do without, tried at the start. */

import { hasIpv6 } from '../../libc/raw.js';
import { canDestroySockets } from '../../link/sockets.js';
import type { Netlink } from '../../netlink/netlink.js';
import type { Lack } from '../view/view.js';

/** Throws SystemError for anything but an absence. */
export function lacksOf(netlink: Netlink): Lack[] {
  return [
    ...(hasIpv6() ? [] : (['ipv6'] as const)),
    ...(canDestroySockets(netlink) ? [] : (['socket-destroy'] as const)),
  ];
}
