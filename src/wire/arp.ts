/*
 * ARP for IPv4 on Ethernet (RFC 826), and the questions and statements that RFC 5227 makes of it.
 *
 *     0 hardware 1 | 2 protocol 0x0800 | 4 length 6 | 5 length 4 | 6 operation
 *     8 sender MAC | 14 sender address | 18 target MAC | 24 target address
 */
import { type Address, address, addressBytes, addressFromBytes } from './address.js';
import { type Mac, macBytes, macFromBytes, NO_MAC } from './ethernet.js';

export interface Arp {
  operation: 'request' | 'reply';
  senderMac: Mac;
  sender: Address;
  targetMac: Mac;
  target: Address;
}

const ARP_BYTES = 28;
const FIXED = Uint8Array.of(0, 1, 0x08, 0x00, 6, 4);
const OPERATIONS = ['request', 'reply'] as const;
const RARP_REQUEST = 3;
const NOBODY = address('0.0.0.0');

/** From the ARP header on. */
export const encodeArp = (a: Arp): Uint8Array => encode(a, OPERATIONS.indexOf(a.operation) + 1);

function encode(a: Omit<Arp, 'operation'>, operation: number): Uint8Array {
  const packet = new Uint8Array(ARP_BYTES);
  packet.set(FIXED);
  packet[7] = operation;
  packet.set(macBytes(a.senderMac), 8);
  packet.set(addressBytes(a.sender), 14);
  packet.set(macBytes(a.targetMac), 18);
  packet.set(addressBytes(a.target), 24);
  return packet;
}

/** The packet in `bytes`, from the ARP header on, padding behind it allowed.  Never throws. */
export function decodeArp(bytes: Uint8Array): Arp | { error: string } {
  if (bytes.length < ARP_BYTES) return { error: `ARP packet of ${bytes.length} bytes` };
  if (FIXED.some((byte, at) => bytes[at] !== byte)) return { error: 'not ARP of IPv4 on Ethernet' };
  const number = ((bytes[6] ?? 0) << 8) | (bytes[7] ?? 0);
  const operation = OPERATIONS[number - 1];
  if (operation === undefined) return { error: `ARP operation ${number}` };
  return {
    operation,
    senderMac: macFromBytes(bytes.subarray(8, 14)),
    sender: addressFromBytes(bytes.subarray(14, 18)),
    targetMac: macFromBytes(bytes.subarray(18, 24)),
    target: addressFromBytes(bytes.subarray(24, 28)),
  };
}

/** Who has `target`? */
export const arpRequest = (senderMac: Mac, sender: Address, target: Address): Uint8Array =>
  encodeArp({ operation: 'request', senderMac, sender, targetMac: NO_MAC, target });

/** RFC 5227, section 2.1.1: does anybody have `target`?  Changes nobody's table. */
export const arpProbe = (senderMac: Mac, target: Address): Uint8Array =>
  arpRequest(senderMac, NOBODY, target);

/**
 * `a` is at `m`.  A request, not an answer: RFC 5227, section 3 explains that some hosts take in
 * requests only, and all that take in answers take in requests.
 */
export const arpAnnouncement = (m: Mac, a: Address): Uint8Array => arpRequest(m, a, a);

/**
 * RFC 903 request by which a hypervisor tells switches where a MAC is now, as QEMU does: it needs
 * no address, and nobody answers.  From the header on; its EtherType is RARP.
 */
export const rarpAnnouncement = (m: Mac): Uint8Array =>
  encode({ senderMac: m, sender: NOBODY, targetMac: m, target: NOBODY }, RARP_REQUEST);
