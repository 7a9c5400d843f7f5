/*
 * How the kernel tracks a connection, as a machine does that forwards, or has a firewall or NAT.
 *
 *   program ── socket's pair ── NAT of this machine ── pair on the wire ── network
 *   10.1.0.5:40000 > 10.96.0.10:80                     10.1.0.5:40000 > 10.2.0.9:8080
 *
 * What the one side calls a connection, the other may not know: a service address of a cluster
 * (DNAT in OUTPUT), a port that is redirected to another of this machine.
 */
import { SystemError } from '../libc/errno.js';
import type { Netlink } from '../netlink/netlink.js';
import { type Tuple, tupleEqual, tupleText } from '../wire/tuple.js';
import {
  decodeTracked,
  getTracked,
  NETLINK_NETFILTER,
  type Translation,
  type Way,
} from './conntrack.js';

/* No such connection; no connection tracking in this kernel; not for us to see. */
const NOT_TRACKED = ['ENOENT', 'EPROTONOSUPPORT', 'ENOTSUP', 'EINVAL', 'EPERM'];

type Asks = Pick<Netlink, 'request'>;

/** Whether packets of this tuple, as it is on the wire, belong to a tracked connection. */
export const isTracked = (netlink: Asks, t: Tuple): boolean =>
  lookUp(netlink, inward(t), t) !== undefined;

/** What the wire calls the connection of a socket; undefined: the same, as far as is known. */
export function wireOfSocket(netlink: Asks, socket: Tuple): Tuple | undefined {
  const other = otherWay(netlink, outward(socket), socket);
  return other && unlessEqual(socket, tupleOfInward(other));
}

/** What a socket of ours calls the connection of a wire; undefined: the same, as far as is known. */
export function socketOfWire(netlink: Asks, wire: Tuple): Tuple | undefined {
  const other = otherWay(netlink, inward(wire), wire);
  return other && unlessEqual(wire, tupleOfOutward(other));
}

/* The direction that answers this one, on the other side of the translation. */
function otherWay(netlink: Asks, way: Way, what: Tuple): Way | undefined {
  const found = lookUp(netlink, way, what);
  if (found === undefined || found === 'untold') return undefined;
  return wayEqual(found.original, way) ? found.reply : found.original;
}

function lookUp(netlink: Asks, way: Way, what: Tuple): Translation | 'untold' | undefined {
  try {
    const attempted = `look for ${tupleText(what)}`;
    const [answer] = netlink.request(getTracked(way), attempted, NETLINK_NETFILTER);
    return (answer && decodeTracked(answer)) ?? 'untold';
  } catch (error) {
    if (error instanceof SystemError && NOT_TRACKED.includes(error.code)) return undefined;
    throw error;
  }
}

const outward = (t: Tuple): Way => ({
  ...{ source: t.local, sourcePort: t.localPort },
  ...{ destination: t.remote, destinationPort: t.remotePort },
});

const inward = (t: Tuple): Way => ({
  ...{ source: t.remote, sourcePort: t.remotePort },
  ...{ destination: t.local, destinationPort: t.localPort },
});

const tupleOfOutward = (way: Way): Tuple => ({
  ...{ local: way.source, localPort: way.sourcePort },
  ...{ remote: way.destination, remotePort: way.destinationPort },
});

const tupleOfInward = (way: Way): Tuple => ({
  ...{ local: way.destination, localPort: way.destinationPort },
  ...{ remote: way.source, remotePort: way.sourcePort },
});

const wayEqual = (a: Way, b: Way): boolean => tupleEqual(tupleOfOutward(a), tupleOfOutward(b));

const unlessEqual = (a: Tuple, b: Tuple): Tuple | undefined => (tupleEqual(a, b) ? undefined : b);
