/*
 * The gateways that a link has now, with their hardware addresses: by these a link is known again
 * (RFC 4436).  The kernel forgets them as soon as the carrier goes, so they have to be noted before.
 */
import { SystemError } from '../libc/errno.js';
import { interfaceIndex } from '../libc/socket.js';
import type { Netlink } from '../netlink/netlink.js';
import { type Address, address } from '../wire/address.js';
import { MAC_BYTES, macFromBytes } from '../wire/ethernet.js';
import { routeTo } from './route.js';
import { decodeNeighbour } from './rtnetlink.js';
import { getNeighbour } from './rtnetlink-request.js';
import type { Gateway } from './verification.js';

/* RFC 7535: anycast, and nobody's own network, so what leads there is the default route. */
const ELSEWHERE = address('192.31.196.1');

/** The gateway for what is sent from one of its IPv4 addresses; undefined: none, or not known. */
export function gatewayOf(
  netlink: Netlink,
  interfaceName: string,
  from: Address,
): Gateway | undefined {
  const index = interfaceIndex(interfaceName);
  const gateway = routeTo(netlink, ELSEWHERE, { from, by: interfaceName })?.gateway;
  if (index === undefined || gateway === undefined) return undefined;
  try {
    const [answer] = netlink.request(getNeighbour(gateway, index), `look for ${gateway}`);
    const mac = (answer && decodeNeighbour(answer))?.mac;
    if (mac?.length !== MAC_BYTES) return undefined;
    return { address: gateway, mac: macFromBytes(mac) };
  } catch (error) {
    if (error instanceof SystemError && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
