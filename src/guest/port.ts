/* Between the daemon's data plane and what is done in a guest's stead. */
import type { Mac } from '../wire/ethernet.js';

/**
 * The VM's cable, seen from the hypervisor.  Never throws: what cannot be sent is lost, as on any
 * cable, and whoever waits for an answer asks again.
 */
export interface GuestPort {
  /** Ethernet frame, as if the guest had sent it. */
  toNetwork(frame: Uint8Array): void;
  /** Ethernet frame, as if the network had sent it. */
  toGuest(frame: Uint8Array): void;
}

/**
 * What the data plane hands up.  `packet`: from the ARP header on for ARP, from the IP header on
 * for IPv4 and IPv6.
 */
export interface GuestPacket {
  etherType: number;
  from: 'guest' | 'network';
  packet: Uint8Array;
}

/** 32 random bits. */
export type Random32 = () => number;

/** Sends an IP or ARP packet as the guest: to a hardware address on the network's side. */
export type SendAsGuest = (etherType: number, packet: Uint8Array, to: Mac) => void;
