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
import { type Address, address, addressBytes, family } from '../wire/address.js';
import { checksumAdd, checksumFold, pseudoHeaderSum } from '../wire/checksum.js';
import { IP_PROTOCOL_ICMP6, ipHeaderBytes, writeIpHeader } from '../wire/ip.js';
import { ipv6Setting } from './ipv6-setting.js';
import type { Netlink } from './netlink.js';
import { decodeLink, type LinkRecord } from './rtnetlink.js';
import { getLink } from './rtnetlink-request.js';

const ETHERTYPE = { IPV4: 0x0800, ARP: 0x0806, IPV6: 0x86dd } as const;
const BROADCAST = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff);

const HARDWARE_ETHERNET = 1;
const ARP_REQUEST = 1;

const ALL_NODES = address('ff02::1');
/** RFC 2464, section 7. */
const ALL_NODES_MAC = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);
const NEIGHBOUR_ADVERTISEMENT = 136;
const TARGET_LINK_LAYER_ADDRESS = 2;
const FLAG = { ROUTER: 0x80, OVERRIDE: 0x20 } as const;
/** RFC 4861, section 4.4: receivers discard it if it is less, for it may come from afar. */
const HOP_LIMIT = 255;

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
      if (link?.ethernet !== true || link.mac.length !== BROADCAST.length) return;
      if (family(a) === 4) {
        this.#send(arpAnnouncement(link.mac, a), packetSockaddr(index, ETHERTYPE.ARP, BROADCAST));
      } else {
        const advertisement = neighbourAdvertisement(link.mac, a, {
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

/**
 * From the ARP header on (RFC 826).  A request, not an answer: RFC 5227, section 3 explains that
 * some hosts take in requests only, and all that take in answers take in requests.
 */
export function arpAnnouncement(mac: Uint8Array, a: Address): Uint8Array {
  const packet = new Uint8Array(28);
  const view = new DataView(packet.buffer);
  view.setUint16(0, HARDWARE_ETHERNET);
  view.setUint16(2, ETHERTYPE.IPV4);
  view.setUint8(4, mac.length);
  view.setUint8(5, addressBytes(a).length);
  view.setUint16(6, ARP_REQUEST);
  packet.set(mac, 8);
  packet.set(addressBytes(a), 14);
  packet.set(addressBytes(a), 24);
  return packet;
}

/**
 * From the IPv6 header on (RFC 4861, section 4.4), to all nodes of the link.  `router`: this
 * node forwards; without it neighbours strike a router off their list.  `override`: also where
 * another hardware address is known.
 */
export function neighbourAdvertisement(
  mac: Uint8Array,
  a: Address,
  o: { router: boolean; override: boolean },
): Uint8Array {
  const header = ipHeaderBytes(6);
  const packet = new Uint8Array(header + 32);
  writeIpHeader(packet, {
    source: addressBytes(a),
    destination: addressBytes(ALL_NODES),
    protocol: IP_PROTOCOL_ICMP6,
    hopLimit: HOP_LIMIT,
  });
  const message = packet.subarray(header);
  message[0] = NEIGHBOUR_ADVERTISEMENT;
  message[4] = (o.router ? FLAG.ROUTER : 0) | (o.override ? FLAG.OVERRIDE : 0);
  message.set(addressBytes(a), 8);
  message.set([TARGET_LINK_LAYER_ADDRESS, 1, ...mac], 24);
  const pseudo = pseudoHeaderSum(a, ALL_NODES, IP_PROTOCOL_ICMP6, message.length);
  const checksum = checksumFold(checksumAdd(message, pseudo));
  new DataView(packet.buffer).setUint16(header + 2, checksum);
  return packet;
}

/* RFC 4429, section 3.3: an address whose detection still runs must not override. */
const mayBeOptimistic = (interfaceName: string): boolean =>
  [interfaceName, 'all'].some((name) => ipv6Setting(name, 'optimistic_dad') === 1);
