/*
 * TCP sockets in inet_diag messages (sock_diag(7), linux/inet_diag.h).  Pure.
 */

import {
  attribute,
  decodeAttributes,
  encodeMessage,
  FLAG,
  type NetlinkMessage,
} from '../netlink/message.js';
import { type Address, addressBytes, addressFromBytes, family } from '../wire/address.js';
import type { Tuple } from '../wire/tuple.js';
import { ADDRESS_FAMILY, type Version } from './rtnetlink.js';

const SOCK_DIAG_BY_FAMILY = 20;
const SOCK_DESTROY = 21;
const IPPROTO_TCP = 6;
const REQUEST_BYTES = 56;
const SOCKET_ID_AT = 8;
const RECORD_BYTES = 72;
const EXTENSIONS_AT = 2;
const INET_DIAG_INFO = 2; // struct tcp_info
const INET_DIAG_SOCKOPT = 22; // struct inet_diag_sockopt: bits
const SOCKOPT = { FREEBIND: 1 << 2, TRANSPARENT: 1 << 5 } as const;
const REQ_BYTECODE = 1; // INET_DIAG_REQ_BYTECODE
const SOURCE_CONDITION = 7; // INET_DIAG_BC_S_COND
const TCPI_RETRANSMITS_AT = 2;
const TCPI_UNACKED_AT = 24;

/** The states of a TCP socket by the kernel's numbers, named as in RFC 9293. */
export const TCP_STATES = [
  undefined,
  'established',
  'syn-sent',
  'syn-received',
  'fin-wait-1',
  'fin-wait-2',
  'time-wait',
  'closed',
  'close-wait',
  'last-ack',
  'listen',
  'closing',
  // TCP_NEW_SYN_RECV: how Linux shows a connection request.
  'syn-received',
] as const;

export type TcpState = Exclude<(typeof TCP_STATES)[number], undefined>;

export interface SocketRecord {
  tuple: Tuple;
  state: TcpState;
  /** IP_TRANSPARENT: it sends from whatever address. */
  transparent: boolean;
  /** IP_FREEBIND: it was bound to whatever address. */
  freebind: boolean;
}

/** All TCP sockets of an address family; `local`: only those with this address of their own. */
export function getSockets(version: Version, local?: Address): Uint8Array {
  const request = new Uint8Array(REQUEST_BYTES);
  request.set([ADDRESS_FAMILY[version], IPPROTO_TCP]);
  new DataView(request.buffer).setUint32(4, 0xffffffff, true); // every state
  const parts: Uint8Array[] = [request];
  if (local !== undefined) parts.push(attribute(REQ_BYTECODE, sourceIs(local)));
  return encodeMessage(SOCK_DIAG_BY_FAMILY, FLAG.REQUEST | FLAG.DUMP, parts);
}

/* One instruction: struct inet_diag_bc_op, struct inet_diag_hostcond, the address.  Its `yes` leads
 * behind it, which takes the socket; its `no` 4 bytes beyond the end, which leaves it out.
 */
function sourceIs(local: Address): Uint8Array {
  const bytes = addressBytes(local);
  const code = new Uint8Array(12 + bytes.length);
  const view = new DataView(code.buffer);
  code.set([SOURCE_CONDITION, code.length]);
  view.setUint16(2, code.length + 4, true);
  code.set([ADDRESS_FAMILY[family(local)], bytes.length * 8], 4);
  view.setInt32(8, -1, true); // any port
  code.set(bytes, 12);
  return code;
}

/** Ends one TCP socket: a reset to the peer, ECONNABORTED to the program. */
export const destroy = (t: Tuple): Uint8Array =>
  encodeMessage(SOCK_DESTROY, FLAG.REQUEST | FLAG.ACK, [requestOf(t)]);

/** One TCP socket, with what the kernel knows of its progress. */
export function getProgress(t: Tuple): Uint8Array {
  const request = requestOf(t);
  request[EXTENSIONS_AT] = 1 << (INET_DIAG_INFO - 1);
  return encodeMessage(SOCK_DIAG_BY_FAMILY, FLAG.REQUEST | FLAG.ACK, [request]);
}

export interface Progress {
  /** How many segments are in flight. */
  unacked: number;
  /** How many timeouts in a row their sender has met. */
  retransmits: number;
}

/** Of an answer to getProgress; undefined: it is none. */
export function decodeProgress(m: NetlinkMessage): Progress | undefined {
  if (m.type !== SOCK_DIAG_BY_FAMILY) return undefined;
  const info = attributeOf(m, INET_DIAG_INFO);
  if (info === undefined || info.length < TCPI_UNACKED_AT + 4) return undefined;
  const view = new DataView(info.buffer, info.byteOffset, info.length);
  return {
    unacked: view.getUint32(TCPI_UNACKED_AT, true),
    retransmits: view.getUint8(TCPI_RETRANSMITS_AT),
  };
}

const attributeOf = (m: NetlinkMessage, type: number): Uint8Array | undefined =>
  decodeAttributes(m.payload.subarray(RECORD_BYTES))?.get(type);

function requestOf(t: Tuple): Uint8Array {
  const request = new Uint8Array(REQUEST_BYTES);
  request.set([ADDRESS_FAMILY[family(t.local)], IPPROTO_TCP]);
  const view = new DataView(request.buffer);
  view.setUint32(4, 0xffffffff, true);
  view.setUint16(SOCKET_ID_AT, t.localPort);
  view.setUint16(SOCKET_ID_AT + 2, t.remotePort);
  request.set(addressBytes(t.local), SOCKET_ID_AT + 4);
  request.set(addressBytes(t.remote), SOCKET_ID_AT + 20);
  view.setBigUint64(SOCKET_ID_AT + 40, 0xffffffffffffffffn); // any cookie
  return request;
}

/** A socket of a dump; undefined if the message is none, or cut. */
export function decodeSocket(m: NetlinkMessage): SocketRecord | undefined {
  if (m.type !== SOCK_DIAG_BY_FAMILY || m.payload.length < RECORD_BYTES) return undefined;
  const view = new DataView(m.payload.buffer, m.payload.byteOffset, RECORD_BYTES);
  const length = view.getUint8(0) === ADDRESS_FAMILY[4] ? 4 : 16;
  const state = TCP_STATES[view.getUint8(1)];
  if (state === undefined) return undefined;
  const at = (offset: number) => addressFromBytes(m.payload.subarray(offset, offset + length));
  const options = attributeOf(m, INET_DIAG_SOCKOPT)?.[0] ?? 0;
  return {
    tuple: {
      local: at(8),
      remote: at(24),
      localPort: view.getUint16(4),
      remotePort: view.getUint16(6),
    },
    state,
    transparent: (options & SOCKOPT.TRANSPARENT) !== 0,
    freebind: (options & SOCKOPT.FREEBIND) !== 0,
  };
}
