/*
 * Ethernet frames (IEEE 802.3, RFC 894) and hardware addresses as canonical text.
 *
 * Text for the reason for which IP addresses are text (address.ts): equal exactly if the texts
 * are, and at home in JSON.  No VLAN tags: what a guest's tap carries has none that are ours.
 */
import { type Address, addressBytes, addressFromBytes, family } from './address.js';

/** Canonical text of a hardware address: '02:00:00:00:00:0a'. */
export type Mac = string & { readonly __brand: 'Mac' };

export const ETHERTYPE = { IPV4: 0x0800, ARP: 0x0806, RARP: 0x8035, IPV6: 0x86dd } as const;
export const ETHERNET_HEADER = 14;
export const MAC_BYTES = 6;

/** The hardware address that `text` denotes, made canonical.  Throws TypeError if none. */
export function mac(text: string): Mac {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) {
    throw new TypeError(`not a hardware address: '${text}'`);
  }
  return text.toLowerCase() as Mac;
}

/** Throws TypeError unless there are 6 bytes. */
export function macFromBytes(bytes: Uint8Array): Mac {
  if (bytes.length !== MAC_BYTES) {
    throw new TypeError(`a hardware address has ${MAC_BYTES} bytes, not ${bytes.length}`);
  }
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':') as Mac;
}

export const macBytes = (m: Mac): Uint8Array =>
  Uint8Array.from(m.split(':'), (byte) => Number.parseInt(byte, 16));

export const BROADCAST_MAC = mac('ff:ff:ff:ff:ff:ff');
export const NO_MAC = mac('00:00:00:00:00:00');

/** Where a multicast packet goes on Ethernet (RFC 1112, section 6.4; RFC 2464, section 7). */
export function multicastMac(group: Address): Mac {
  const bytes = addressBytes(group);
  if (family(group) === 6) return macFromBytes(Uint8Array.of(0x33, 0x33, ...bytes.subarray(12)));
  const [, b = 0, c = 0, d = 0] = bytes;
  return macFromBytes(Uint8Array.of(0x01, 0x00, 0x5e, b & 0x7f, c, d));
}

/** The modified EUI-64 interface identifier, 8 bytes (RFC 4291, appendix A). */
export function interfaceIdentifier(m: Mac): Uint8Array {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = macBytes(m);
  return Uint8Array.of(a ^ 0x02, b, c, 0xff, 0xfe, d, e, f);
}

/** fe80:: with that identifier (RFC 2464, section 5). */
export const linkLocalAddress = (m: Mac): Address =>
  addressFromBytes(Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, ...interfaceIdentifier(m)));

export interface Frame {
  destination: Mac;
  source: Mac;
  etherType: number;
  payload: Uint8Array;
}

/** Not padded to the 60 bytes of a cable: the device does that. */
export function encodeFrame(f: Frame): Uint8Array {
  const bytes = new Uint8Array(ETHERNET_HEADER + f.payload.length);
  bytes.set(macBytes(f.destination));
  bytes.set(macBytes(f.source), MAC_BYTES);
  new DataView(bytes.buffer).setUint16(2 * MAC_BYTES, f.etherType);
  bytes.set(f.payload, ETHERNET_HEADER);
  return bytes;
}

/** The frame in `bytes`; the payload is a view, padding included.  Never throws. */
export function decodeFrame(bytes: Uint8Array): Frame | { error: string } {
  if (bytes.length < ETHERNET_HEADER) return { error: `Ethernet frame of ${bytes.length} bytes` };
  return {
    destination: macFromBytes(bytes.subarray(0, MAC_BYTES)),
    source: macFromBytes(bytes.subarray(MAC_BYTES, 2 * MAC_BYTES)),
    etherType: ((bytes[12] ?? 0) << 8) | (bytes[13] ?? 0),
    payload: bytes.subarray(ETHERNET_HEADER),
  };
}
