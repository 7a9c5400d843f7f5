/*
 * Tells the neighbours that an address is here now: ARP announcement (RFC 5227, section 3) and
 * unsolicited neighbour advertisement (RFC 4861, section 7.2.6; RFC 9131 wants it of new
 * addresses).
 *
 * While the address was away, peers have gone on sending to it: the gateway has asked for it in
 * vain, keeps an incomplete entry, and asks again only once in a second.  Or it still has the
 * hardware address of a former owner.  The announcement mends both at once, and what waited in
 * the gateway's queue arrives.  It makes no entry where there is none: then the gateway asks
 * when it has something to send.
 *
 * Not to defend an address, nor to find out whether it is free: the kernel and the DHCP client
 * have done that before.  Once, not three times: it speeds things up, nothing depends on it.
 */
import { SystemError } from '../libc/errno.js';
import {
  AF_PACKET,
  closeFd,
  interfaceIndex,
  openSocket,
  packetSockaddr,
  SOCK_DGRAM,
  sendTo,
} from '../libc/socket.js';
import type { Netlink } from '../netlink/netlink.js';
import { type Address, family } from '../wire/address.js';
import { arpAnnouncement } from '../wire/arp.js';
import {
  BROADCAST_MAC,
  ETHERTYPE,
  MAC_BYTES,
  macBytes,
  macFromBytes,
  multicastMac,
} from '../wire/ethernet.js';
import { ALL_NODES, unsolicitedAdvertisement } from '../wire/neighbour.js';
import { ipv6Setting } from './ipv6-setting.js';
import { decodeLink, type LinkRecord } from './rtnetlink.js';
import { getLink } from './rtnetlink-request.js';

const EVERYBODY = macBytes(BROADCAST_MAC);
const ALL_NODES_MAC = macBytes(multicastMac(ALL_NODES));

/* Gone or switched off since: there is nobody to tell. */
const VANISHED = ['ENODEV', 'ENXIO', 'ENETDOWN'];

/** Announces addresses of this network namespace. */
export class Announcer {
  #netlink: Netlink;
  #socket: number | undefined;

  constructor(netlink: Netlink) {
    this.#netlink = netlink;
  }

  /**
   * Announces `a`, which has passed duplicate address detection on this interface.  No-op where
   * the link is not Ethernet, and if the interface is gone or down.  Throws SystemError.
   */
  announce(interfaceName: string, a: Address): void {
    const index = interfaceIndex(interfaceName);
    if (index === undefined) return;
    try {
      const link = this.#lookAt(index, `announce ${a} on ${interfaceName}`);
      if (link?.ethernet !== true || link.mac.length !== MAC_BYTES) return;
      const mac = macFromBytes(link.mac);
      if (family(a) === 4) {
        this.#send(arpAnnouncement(mac, a), packetSockaddr(index, ETHERTYPE.ARP, EVERYBODY));
      } else {
        const advertisement = unsolicitedAdvertisement(mac, a, {
          router: ipv6Setting(interfaceName, 'forwarding') === 1,
          override: !mayBeOptimistic(interfaceName),
        });
        this.#send(advertisement, packetSockaddr(index, ETHERTYPE.IPV6, ALL_NODES_MAC));
      }
    } catch (error) {
      if (!(error instanceof SystemError) || !VANISHED.includes(error.code)) throw error;
    }
  }

  close(): void {
    if (this.#socket !== undefined) closeFd(this.#socket);
    this.#socket = undefined;
  }

  #lookAt(index: number, attempted: string): LinkRecord | undefined {
    const [answer] = this.#netlink.request(getLink(index), attempted);
    return answer && decodeLink(answer);
  }

  /* Protocol 0: it receives nothing.  Kept open: closing a packet socket waits for a grace period of
   * RCU, some 10 ms in which no SYN could leave.
   */
  #send(packet: Uint8Array, to: Uint8Array): void {
    this.#socket ??= openSocket(AF_PACKET, SOCK_DGRAM, 0);
    sendTo(this.#socket, packet, to);
  }
}

/* RFC 4429, section 3.3: an address whose detection still runs must not override. */
const mayBeOptimistic = (interfaceName: string): boolean =>
  [interfaceName, 'all'].some((name) => ipv6Setting(name, 'optimistic_dad') === 1);
