/*
 * TCP sockets in inet_diag messages (sock_diag(7), linux/inet_diag.h).  Pure.
 */

import { encodeMessage, FLAG, type NetlinkMessage } from '../netlink/message.js';
import { addressBytes, addressFromBytes, family } from '../wire/address.js';
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
}

/** All TCP sockets of an address family. */
export function getSockets(version: Version): Uint8Array {
  const request = new Uint8Array(REQUEST_BYTES);
  request.set([ADDRESS_FAMILY[version], IPPROTO_TCP]);
  new DataView(request.buffer).setUint32(4, 0xffffffff, true); // every state
  return encodeMessage(SOCK_DIAG_BY_FAMILY, FLAG.REQUEST | FLAG.DUMP, [request]);
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
  const view = new DataView(m.payload.buffer, m.payload.byteOffset, m.payload.length);
  for (let at = RECORD_BYTES; at + 4 <= view.byteLength; ) {
    const [length, type] = [view.getUint16(at, true), view.getUint16(at + 2, true)];
    if (type === INET_DIAG_INFO && length >= 4 + TCPI_UNACKED_AT + 4) {
      const info = at + 4;
      return {
        unacked: view.getUint32(info + TCPI_UNACKED_AT, true),
        retransmits: view.getUint8(info + TCPI_RETRANSMITS_AT),
      };
    }
    at += Math.max(4, (length + 3) & ~3);
  }
  return undefined;
}

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
  return {
    tuple: {
      local: at(8),
      remote: at(24),
      localPort: view.getUint16(4),
      remotePort: view.getUint16(6),
    },
    state,
  };
}
