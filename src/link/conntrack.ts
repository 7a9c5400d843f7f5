/*
 * Translated TCP connections as the kernel's connection tracking knows them, over netlink
 * (nfnetlink_conntrack.h, nf_conntrack_netlink.c).  Pure.
 *
 *   original   host behind : port  ─►  peer : port
 *   reply      peer : port  ─►  address lent to it : port
 *
 * Masquerading forgets a connection when the address that it has lent goes from its interface
 * (nf_nat_masquerade.c), while `snat to ADDRESS` remembers: that is all the difference there is.
 * Measured: what is put back as source NAT, translates as before (test/kernel/masquerade.test.ts).
 */

import {
  type Attributes,
  attribute,
  decodeAttributes,
  encodeMessage,
  FLAG,
  type NetlinkMessage,
} from '../netlink/message.js';
import { type Address, addressBytes, addressFromBytes, family } from '../wire/address.js';

/** NETLINK_NETFILTER */
export const NETLINK_NETFILTER = 12;
/** The notifications of connections that are forgotten. */
export const DESTROYED_GROUP = 1 << 2; // NFNLGRP_CONNTRACK_DESTROY is 3

export interface Way {
  source: Address;
  sourcePort: number;
  destination: Address;
  destinationPort: number;
}

export interface Translation {
  original: Way;
  reply: Way;
}

const CTNETLINK = 1 << 8; // NFNL_SUBSYS_CTNETLINK
const MESSAGE = { NEW: CTNETLINK, GET: CTNETLINK | 1, DELETE: CTNETLINK | 2 };
const AF = { 4: 2, 6: 10 } as const;
const IPPROTO_TCP = 6;

/* CTA_… */
const TUPLE = { ORIGINAL: 1, REPLY: 2, IP: 1, PROTO: 2 };
const [STATUS, PROTOINFO, NAT_SOURCE, TIMEOUT] = [3, 4, 6, 7];
const IP_SOURCE = { 4: 1, 6: 3 } as const;
const IP_DESTINATION = { 4: 2, 6: 4 } as const;
const PORT = { NUMBER: 1, SOURCE: 2, DESTINATION: 3 };
const NAT_IP = { 4: { least: 1, most: 2 }, 6: { least: 4, most: 5 } } as const;
const NAT_PROTO = { ATTRIBUTE: 3, PORT_LEAST: 1, PORT_MOST: 2 };
const TCP = { ATTRIBUTE: 1, STATE: 1, FLAGS_ORIGINAL: 4, FLAGS_REPLY: 5 };
const TCP_ESTABLISHED = 3;
/* Nothing is known of the windows any more: IP_CT_TCP_FLAG_BE_LIBERAL, as value and as mask. */
const LIBERAL = Uint8Array.of(0x08, 0x08);
/* IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED */
const STATUS_BITS = 0x02 | 0x04 | 0x08;
/* As the kernel's own default for an established connection. */
const TIMEOUT_S = 432_000;

/** The translated TCP connection that has been forgotten; undefined: it was none. */
export function decodeDestroyed(m: NetlinkMessage): Translation | undefined {
  const forgotten = m.type === MESSAGE.DELETE ? decodeWays(m) : undefined;
  return forgotten?.original.source === forgotten?.reply.destination ? undefined : forgotten;
}

/** A tracked TCP connection in both directions, translated or not; undefined: it is none. */
export const decodeTracked = (m: NetlinkMessage): Translation | undefined =>
  m.type === MESSAGE.NEW ? decodeWays(m) : undefined;

function decodeWays(m: NetlinkMessage): Translation | undefined {
  const attributes = decodeAttributes(m.payload.subarray(4)); // struct nfgenmsg
  const original = decodeWay(attributes?.get(TUPLE.ORIGINAL));
  const reply = decodeWay(attributes?.get(TUPLE.REPLY));
  return original === undefined || reply === undefined ? undefined : { original, reply };
}

/** Has the connection translated again: its source is what answers go to.  EEXIST: it is tracked. */
export function restoreTranslation({ original, reply }: Translation): Uint8Array {
  const version = family(original.source);
  const lent = addressBytes(reply.destination);
  const port = bigEndian16(reply.destinationPort);
  return encodeMessage(MESSAGE.NEW, FLAG.REQUEST | FLAG.ACK | FLAG.CREATE | FLAG.EXCLUSIVE, [
    header(version),
    attribute(TUPLE.ORIGINAL, wayAttributes(original)),
    // As it would be without the translation, which the kernel then works into it.
    attribute(TUPLE.REPLY, wayAttributes(reversed(original))),
    attribute(STATUS, bigEndian32(STATUS_BITS)),
    attribute(TIMEOUT, bigEndian32(TIMEOUT_S)),
    attribute(PROTOINFO, [
      attribute(TCP.ATTRIBUTE, [
        attribute(TCP.STATE, Uint8Array.of(TCP_ESTABLISHED)),
        attribute(TCP.FLAGS_ORIGINAL, LIBERAL),
        attribute(TCP.FLAGS_REPLY, LIBERAL),
      ]),
    ]),
    attribute(NAT_SOURCE, [
      attribute(NAT_IP[version].least, lent),
      attribute(NAT_IP[version].most, lent),
      attribute(NAT_PROTO.ATTRIBUTE, [
        attribute(NAT_PROTO.PORT_LEAST, port),
        attribute(NAT_PROTO.PORT_MOST, port),
      ]),
    ]),
  ]);
}

/** How a connection is tracked, by what is seen of it in either direction.  ENOENT: it is not. */
export const getTracked = (way: Way): Uint8Array =>
  encodeMessage(MESSAGE.GET, FLAG.REQUEST | FLAG.ACK, [
    header(family(way.source)),
    attribute(TUPLE.ORIGINAL, wayAttributes(way)),
  ]);

/** Forgets how a connection is tracked. */
export const forgetTracked = (original: Way): Uint8Array =>
  encodeMessage(MESSAGE.DELETE, FLAG.REQUEST | FLAG.ACK, [
    header(family(original.source)),
    attribute(TUPLE.ORIGINAL, wayAttributes(original)),
  ]);

const header = (version: 4 | 6): Uint8Array => Uint8Array.of(AF[version], 0, 0, 0);

const reversed = (way: Way): Way => ({
  source: way.destination,
  sourcePort: way.destinationPort,
  destination: way.source,
  destinationPort: way.sourcePort,
});

function wayAttributes(way: Way): Uint8Array[] {
  const version = family(way.source);
  return [
    attribute(TUPLE.IP, [
      attribute(IP_SOURCE[version], addressBytes(way.source)),
      attribute(IP_DESTINATION[version], addressBytes(way.destination)),
    ]),
    attribute(TUPLE.PROTO, [
      attribute(PORT.NUMBER, Uint8Array.of(IPPROTO_TCP)),
      attribute(PORT.SOURCE, bigEndian16(way.sourcePort)),
      attribute(PORT.DESTINATION, bigEndian16(way.destinationPort)),
    ]),
  ];
}

function decodeWay(bytes: Uint8Array | undefined): Way | undefined {
  const parts = bytes && decodeAttributes(bytes);
  const ip = nested(parts, TUPLE.IP);
  const proto = nested(parts, TUPLE.PROTO);
  if (proto?.get(PORT.NUMBER)?.[0] !== IPPROTO_TCP) return undefined;
  const source = ip?.get(IP_SOURCE[4]) ?? ip?.get(IP_SOURCE[6]);
  const destination = ip?.get(IP_DESTINATION[4]) ?? ip?.get(IP_DESTINATION[6]);
  const [from, to] = [proto.get(PORT.SOURCE), proto.get(PORT.DESTINATION)];
  if (source === undefined || destination === undefined || !from || !to) return undefined;
  return {
    source: addressFromBytes(source),
    sourcePort: (from[0] ?? 0) * 256 + (from[1] ?? 0),
    destination: addressFromBytes(destination),
    destinationPort: (to[0] ?? 0) * 256 + (to[1] ?? 0),
  };
}

function nested(of: Attributes | undefined, type: number): Attributes | undefined {
  const bytes = of?.get(type);
  return bytes && decodeAttributes(bytes);
}

const bigEndian16 = (n: number): Uint8Array => Uint8Array.of(n >> 8, n & 0xff);
const bigEndian32 = (n: number): Uint8Array => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, n);
  return bytes;
};
