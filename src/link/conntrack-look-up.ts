/*
 * Whether the kernel tracks a connection, as a machine does that forwards or has a firewall.
 */
import { SystemError } from '../libc/errno.js';
import type { Netlink } from '../netlink/netlink.js';
import { type Tuple, tupleText } from '../wire/tuple.js';
import { getTracked, NETLINK_NETFILTER } from './conntrack.js';

/* No such connection; no connection tracking in this kernel; not for us to see. */
const NOT_TRACKED = ['ENOENT', 'EPROTONOSUPPORT', 'ENOTSUP', 'EINVAL', 'EPERM'];

/** Whether packets of this tuple, as it is on the wire, belong to a tracked connection. */
export function isTracked(netlink: Netlink, t: Tuple): boolean {
  const way = {
    ...{ source: t.remote, sourcePort: t.remotePort },
    ...{ destination: t.local, destinationPort: t.localPort },
  };
  try {
    netlink.request(getTracked(way), `look for ${tupleText(t)}`, NETLINK_NETFILTER);
    return true;
  } catch (error) {
    if (error instanceof SystemError && NOT_TRACKED.includes(error.code)) return false;
    throw error;
  }
}
