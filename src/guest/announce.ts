/*
 * What neighbours and guest are told unasked after a move: frames to be sent once.
 *
 * Neighbours: the VM's addresses are here (RFC 5227, section 3; RFC 4861, section 7.2.6), and RARP for the
 * switches, as QEMU sends it, should the VM have no address that anybody knows.
 * The guest, when it comes home: who its gateway really is, for while it was away others have
 * answered in the gateway's name.
 */
import { type Address, family } from '../wire/address.js';
import { arpAnnouncement, rarpAnnouncement } from '../wire/arp.js';
import { BROADCAST_MAC, ETHERTYPE, encodeFrame, type Mac, multicastMac } from '../wire/ethernet.js';
import { ALL_NODES, unsolicitedAdvertisement } from '../wire/neighbour.js';

/** Frames that say that these addresses are at the guest's MAC. */
export const presenceFrames = (mac: Mac, addresses: readonly Address[]): Uint8Array[] => [
  ...addresses.map((a) => announcementFrame(mac, a, { router: false })),
  encodeFrame({
    source: mac,
    destination: BROADCAST_MAC,
    etherType: ETHERTYPE.RARP,
    payload: rarpAnnouncement(mac),
  }),
];

/** A frame that says that the gateway with this address is at `mac`. */
export const gatewayFrame = (mac: Mac, gateway: Address): Uint8Array =>
  announcementFrame(mac, gateway, { router: true });

function announcementFrame(source: Mac, a: Address, o: { router: boolean }): Uint8Array {
  if (family(a) === 4) {
    const payload = arpAnnouncement(source, a);
    return encodeFrame({ source, destination: BROADCAST_MAC, etherType: ETHERTYPE.ARP, payload });
  }
  const payload = unsolicitedAdvertisement(source, a, { ...o, override: true });
  const destination = multicastMac(ALL_NODES);
  return encodeFrame({ source, destination, etherType: ETHERTYPE.IPV6, payload });
}
