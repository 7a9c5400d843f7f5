/* Asks the routers of a link to advertise themselves now (RFC 4861, sections 4.1 and 6.3.7). */
import { SystemError } from '../libc/errno.js';
import {
  AF_INET6,
  closeFd,
  inetSockaddr,
  openSocket,
  SOCK_RAW,
  sendTo,
  setOption,
} from '../libc/socket.js';
import type { Netlink } from '../netlink/netlink.js';
import { type Address, address } from '../wire/address.js';
import { decodeLink } from './rtnetlink.js';
import { getLink } from './rtnetlink-request.js';

const ALL_ROUTERS = address('ff02::2');
const IPPROTO_ICMPV6 = 58;
const ROUTER_SOLICITATION = 133;
const SOURCE_LINK_LAYER_ADDRESS = 1;
const IPPROTO_IPV6 = 41;
const IPV6_UNICAST_HOPS = 16;
const IPV6_MULTICAST_HOPS = 18;

/* The interface has no IPv6 (yet), or is gone: nothing to ask there. */
const NO_IPV6 = ['EADDRNOTAVAIL', 'ENETUNREACH', 'ENODEV', 'EAFNOSUPPORT', 'ENETDOWN', 'EACCES'];

/**
 * Asks on the interface with this index, all routers or one.  No-op where there is no IPv6.
 * Throws SystemError.
 */
export function solicitRouters(netlink: Netlink, index: number, router = ALL_ROUTERS): void {
  let socket: number | undefined;
  try {
    socket = openSocket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    // RFC 4861, section 4.1: whoever is off the link cannot make it 255.
    setOption(socket, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 255);
    setOption(socket, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 255);
    sendTo(socket, routerSolicitation(hardwareAddress(netlink, index)), scoped(router, index));
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    if (NO_IPV6.includes(error.code)) return;
    const hint = error.code === 'EPERM' ? { hint: 'a firewall of this machine drops it' } : {};
    throw new SystemError(`ask the routers of interface ${index}`, error.errno, hint);
  } finally {
    if (socket !== undefined) closeFd(socket);
  }
}

/** RFC 4861, section 4.1; the kernel fills in the checksum. */
export function routerSolicitation(mac: Uint8Array): Uint8Array {
  if (mac.length !== 6) return Uint8Array.of(ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0);
  const option = [SOURCE_LINK_LAYER_ADDRESS, 1, ...mac];
  return Uint8Array.of(ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0, ...option);
}

/* Empty if the link is not Ethernet. */
function hardwareAddress(netlink: Netlink, index: number): Uint8Array {
  const [answer] = netlink.request(getLink(index), `look at interface ${index}`);
  const link = answer === undefined ? undefined : decodeLink(answer);
  return link?.ethernet === true ? link.mac : new Uint8Array();
}

function scoped(a: Address, index: number): Uint8Array {
  const sockaddr = inetSockaddr(a).slice();
  new DataView(sockaddr.buffer).setUint32(24, index, true);
  return sockaddr;
}
