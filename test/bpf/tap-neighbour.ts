/*
 * ARP (RFC 826) and neighbour discovery (RFC 4861) frames, for the tests of taps.
 */
import { type Address, address, addressBytes } from '../../src/wire/address.js';
import type { Direction } from './data-plane.js';
import { type Ends, etherFrame, GATEWAY_MAC, GUEST_MAC, ICMP, ipMessage } from './tap.js';

const BROADCAST = new Uint8Array(6).fill(0xff);
export const NOBODY = address('0.0.0.0');

export interface Arp {
  operation: number;
  sender: Address;
  target: Address;
  senderMac?: Uint8Array;
  targetMac?: Uint8Array;
  /** Of the frame; else a request is for all. */
  to?: Uint8Array;
  from?: Uint8Array;
  hardware?: number;
}

/** An ARP frame of the guest, or of the gateway at its place. */
export function arpFrame(a: Arp, direction: Direction): Uint8Array {
  const senderMac = a.senderMac ?? (direction === 'out' ? GUEST_MAC : GATEWAY_MAC[4]);
  const to = a.to ?? (a.operation === 1 ? BROADCAST : (a.targetMac ?? BROADCAST));
  const body = Uint8Array.of(
    ...[0, a.hardware ?? 1, 8, 0, 6, 4, 0, a.operation],
    ...senderMac,
    ...addressBytes(a.sender),
    ...(a.targetMac ?? new Uint8Array(6)),
    ...addressBytes(a.target),
  );
  return etherFrame(to, a.from ?? senderMac, 0x0806, body);
}

export const ND = { rs: 133, ra: 134, ns: 135, na: 136, redirect: 137 } as const;
export const NA_FLAG = { router: 0x80, solicited: 0x40, override: 0x20 } as const;

export interface Nd {
  type: number;
  ends: Ends;
  /** Of a router solicitation or advertisement there is none. */
  target?: Address;
  flags?: number;
  /** With a link-layer address option. */
  option?: Uint8Array;
  to: Uint8Array;
  from: Uint8Array;
  hopLimit?: number;
  more?: Uint8Array;
}

/** A neighbour discovery frame; the option is the source's in a solicitation, else the target's. */
export function ndFrame(n: Nd): Uint8Array {
  const kind = n.type === ND.ns || n.type === ND.rs ? 1 : 2;
  const message = Uint8Array.of(
    ...[n.type, 0, 0, 0, n.flags ?? 0, 0, 0, 0],
    ...(n.target === undefined ? [] : addressBytes(n.target)),
    ...(n.option === undefined ? [] : [kind, 1, ...n.option]),
    ...(n.more ?? []),
  );
  const ip = ipMessage(n.ends, ICMP[6], message, n.hopLimit ?? 255);
  return etherFrame(n.to, n.from, 0x86dd, ip);
}

/** RFC 4291, section 2.7.1, and the Ethernet group of it (RFC 2464, section 7). */
export function solicitedNode(a: Address): { address: Address; mac: Uint8Array } {
  const last = addressBytes(a).slice(13);
  const text = `ff02::1:ff${hex(last[0])}:${hex(last[1])}${hex(last[2])}`;
  return { address: address(text), mac: Uint8Array.of(0x33, 0x33, 0xff, ...last) };
}

const hex = (byte = 0): string => byte.toString(16).padStart(2, '0');
