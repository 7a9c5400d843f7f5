/*
 * Generated from bpf/abi.h by generate-abi.ts: do not edit, run `make abi`.
 * Meanings, units and who writes what are told there.
 *
 * Every struct has a size, the offsets of its fields, a reader and a writer on a DataView, and
 * encode, its bytes as a map takes them.  Padding is not shown; a writer leaves it as it was.
 */
import { type Address, addressFromBytes, addressMapped } from '../wire/address.js';
import type { Seq } from '../wire/seq.js';
import type { Tuple } from '../wire/tuple.js';

export const ABI_VERSION = 4;

const bytesAt = (view: DataView, at: number, length: number): Uint8Array =>
  new Uint8Array(view.buffer, view.byteOffset + at, length);

const nonZero = <K extends string>(key: K, value: number): { [k in K]?: number } =>
  value === 0 ? {} : ({ [key]: value } as { [k in K]: number });

export const LIMIT = {
  FLOWS_MAX: 65536,
  HALF_OPEN_MAX: 16384,
  PLAIN_MAX: 65536,
  PLAIN_PEERS_MAX: 4096,
  EMBRYOS_MAX: 16384,
  HALVES_MAX: 16384,
  EVENT_BYTES: 1048576,
  EVENT_HEAD: 64,
  BUDGETS_MAX: 65536,
  PACKET_MAX: 640,
  TAPS_MAX: 4096,
  GUEST_ADDRESSES: 4,
  SYNS_WITH_OPTION: 2,
  PLAIN_PEER_LOSSES: 2,
  EXTENSION_HEADERS_MAX: 4,
} as const;

export const OPTION = {
  KIND: 253,
  EXID: 21577,
  VERSION: 1,
  OPEN_LENGTH: 20,
  SYNC_LENGTH: 31,
  CONFIRM_LENGTH: 23,
  RST_LENGTH: 16,
  TIFID_AT: 7,
  NOPS_FULL: 4,
} as const;

export const SUBTYPE = { OPEN: 0, SYNC: 1, CONFIRM: 2, RST: 3 } as const;

export const TUPLE_SIZE = 40;
export const TUPLE_AT = { local: 0, remote: 16, localPort: 32, remotePort: 34, tap: 36 } as const;
export function readTuple(view: DataView, at = 0): Tuple {
  return {
    local: addressFromBytes(bytesAt(view, at, 16)),
    remote: addressFromBytes(bytesAt(view, at + 16, 16)),
    localPort: view.getUint16(at + 32),
    remotePort: view.getUint16(at + 34),
    ...nonZero('tap', view.getUint32(at + 36, true)),
  };
}
export function writeTuple(view: DataView, value: Tuple, at = 0): void {
  bytesAt(view, at, 16).set(addressMapped(value.local));
  bytesAt(view, at + 16, 16).set(addressMapped(value.remote));
  view.setUint16(at + 32, value.localPort);
  view.setUint16(at + 34, value.remotePort);
  view.setUint32(at + 36, value.tap ?? 0, true);
}
export function encodeTuple(value: Tuple): Uint8Array {
  const bytes = new Uint8Array(40);
  writeTuple(new DataView(bytes.buffer), value);
  return bytes;
}

export interface TiOpen {
  kind: number;
  length: number;
  exid: number;
  versionSubtype: number;
  flags: number;
  keyId: number;
  reserved: number;
  tifidHalf: number;
  keyHalf: Uint8Array;
}
export const TI_OPEN_SIZE = 20;
export const TI_OPEN_AT = {
  kind: 0,
  length: 1,
  exid: 2,
  versionSubtype: 4,
  flags: 5,
  keyId: 6,
  reserved: 7,
  tifidHalf: 8,
  keyHalf: 12,
} as const;
export function readTiOpen(view: DataView, at = 0): TiOpen {
  return {
    kind: view.getUint8(at),
    length: view.getUint8(at + 1),
    exid: view.getUint16(at + 2),
    versionSubtype: view.getUint8(at + 4),
    flags: view.getUint8(at + 5),
    keyId: view.getUint8(at + 6),
    reserved: view.getUint8(at + 7),
    tifidHalf: view.getUint32(at + 8),
    keyHalf: bytesAt(view, at + 12, 8).slice(),
  };
}
export function writeTiOpen(view: DataView, value: TiOpen, at = 0): void {
  view.setUint8(at, value.kind);
  view.setUint8(at + 1, value.length);
  view.setUint16(at + 2, value.exid);
  view.setUint8(at + 4, value.versionSubtype);
  view.setUint8(at + 5, value.flags);
  view.setUint8(at + 6, value.keyId);
  view.setUint8(at + 7, value.reserved);
  view.setUint32(at + 8, value.tifidHalf);
  bytesAt(view, at + 12, 8).set(value.keyHalf);
}
export function encodeTiOpen(value: TiOpen): Uint8Array {
  const bytes = new Uint8Array(20);
  writeTiOpen(new DataView(bytes.buffer), value);
  return bytes;
}

export interface Half {
  tifidHalf: number;
  keyHalf: Uint8Array;
}
export const HALF_SIZE = 12;
export const HALF_AT = { tifidHalf: 0, keyHalf: 4 } as const;
export function readHalf(view: DataView, at = 0): Half {
  return {
    tifidHalf: view.getUint32(at),
    keyHalf: bytesAt(view, at + 4, 8).slice(),
  };
}
export function writeHalf(view: DataView, value: Half, at = 0): void {
  view.setUint32(at, value.tifidHalf);
  bytesAt(view, at + 4, 8).set(value.keyHalf);
}
export function encodeHalf(value: Half): Uint8Array {
  const bytes = new Uint8Array(12);
  writeHalf(new DataView(bytes.buffer), value);
  return bytes;
}

export const ROLE = { INITIATOR: 0, RESPONDER: 1 } as const;

export const NEGOTIATED = { SACK: 1, TIMESTAMPS: 2, WSCALE: 4 } as const;

export interface HalfOpen {
  local: TiOpen;
  remote: TiOpen;
  iss: Seq;
  role: number;
  syns: number;
  options: number;
  wscale: number;
  mss: number;
  reason: number;
  suspect: number;
}
export const HALF_OPEN_SIZE = 56;
export const HALF_OPEN_AT = {
  local: 0,
  remote: 20,
  iss: 40,
  role: 44,
  syns: 45,
  options: 46,
  wscale: 47,
  mss: 48,
  reason: 50,
  suspect: 52,
} as const;
export function readHalfOpen(view: DataView, at = 0): HalfOpen {
  return {
    local: readTiOpen(view, at),
    remote: readTiOpen(view, at + 20),
    iss: view.getUint32(at + 40, true) as Seq,
    role: view.getUint8(at + 44),
    syns: view.getUint8(at + 45),
    options: view.getUint8(at + 46),
    wscale: view.getUint8(at + 47),
    mss: view.getUint16(at + 48, true),
    reason: view.getUint16(at + 50, true),
    suspect: view.getUint8(at + 52),
  };
}
export function writeHalfOpen(view: DataView, value: HalfOpen, at = 0): void {
  writeTiOpen(view, value.local, at);
  writeTiOpen(view, value.remote, at + 20);
  view.setUint32(at + 40, value.iss, true);
  view.setUint8(at + 44, value.role);
  view.setUint8(at + 45, value.syns);
  view.setUint8(at + 46, value.options);
  view.setUint8(at + 47, value.wscale);
  view.setUint16(at + 48, value.mss, true);
  view.setUint16(at + 50, value.reason, true);
  view.setUint8(at + 52, value.suspect);
}
export function encodeHalfOpen(value: HalfOpen): Uint8Array {
  const bytes = new Uint8Array(56);
  writeHalfOpen(new DataView(bytes.buffer), value);
  return bytes;
}

export interface Mapping {
  wire: Tuple;
  sndDelta: Seq;
  rcvDelta: Seq;
  sndBase: Seq;
  rcvBase: Seq;
  redirect: number;
}
export const MAPPING_SIZE = 60;
export const MAPPING_AT = {
  wire: 0,
  sndDelta: 40,
  rcvDelta: 44,
  sndBase: 48,
  rcvBase: 52,
  redirect: 56,
} as const;
export function readMapping(view: DataView, at = 0): Mapping {
  return {
    wire: readTuple(view, at),
    sndDelta: view.getUint32(at + 40, true) as Seq,
    rcvDelta: view.getUint32(at + 44, true) as Seq,
    sndBase: view.getUint32(at + 48, true) as Seq,
    rcvBase: view.getUint32(at + 52, true) as Seq,
    redirect: view.getUint32(at + 56, true),
  };
}
export function writeMapping(view: DataView, value: Mapping, at = 0): void {
  writeTuple(view, value.wire, at);
  view.setUint32(at + 40, value.sndDelta, true);
  view.setUint32(at + 44, value.rcvDelta, true);
  view.setUint32(at + 48, value.sndBase, true);
  view.setUint32(at + 52, value.rcvBase, true);
  view.setUint32(at + 56, value.redirect, true);
}
export function encodeMapping(value: Mapping): Uint8Array {
  const bytes = new Uint8Array(60);
  writeMapping(new DataView(bytes.buffer), value);
  return bytes;
}

export const FLOW_FLAG = {
  HELD: 1,
  UNPROVEN: 2,
  FIN_SENT: 4,
  FIN_RECEIVED: 8,
  RESET: 16,
  FORWARDED: 32,
  STALLED: 64,
  CLOSED: 128,
  EMBRYONIC: 256,
  FIN_SEEN: 512,
  STUCK: 1024,
  BOTH_WAYS: 2048,
} as const;

export interface Flow {
  sndNxt: Seq;
  rcvNxt: Seq;
  seenOut: bigint;
  tookAt: bigint;
  behindSince: bigint;
  resumedAt: bigint;
  resentSince: bigint;
  windowOut: number;
  resent: number;
  behind: number;
  rcvBefore: Seq;
  initiator: TiOpen;
  responder: TiOpen;
  iss: Seq;
  irs: Seq;
  created: bigint;
  mssOut: number;
  mssIn: number;
  role: number;
  options: number;
  wscaleOut: number;
  wscaleIn: number;
  flags: number;
  active: number;
  moves: number;
  epoch: number;
  nextHop: Uint8Array;
  outside: number;
  movedAt: bigint;
  gap: bigint;
  gapSince: bigint;
  frozenUntil: bigint;
  mapping: [Mapping, Mapping];
  sndUna: Seq;
  rcvMax: Seq;
  seenIn: bigint;
  windowIn: number;
  windowInMax: number;
  rcvFin: Seq;
  untakenSince: bigint;
  oldPathAt: bigint;
  untaken: number;
  knock: Seq;
  knockedAt: bigint;
}
export const FLOW_SIZE = 352;
export const FLOW_AT = {
  sndNxt: 0,
  rcvNxt: 4,
  seenOut: 8,
  tookAt: 16,
  behindSince: 24,
  resumedAt: 32,
  resentSince: 40,
  windowOut: 48,
  resent: 50,
  behind: 51,
  rcvBefore: 52,
  initiator: 56,
  responder: 76,
  iss: 96,
  irs: 100,
  created: 104,
  mssOut: 112,
  mssIn: 114,
  role: 116,
  options: 117,
  wscaleOut: 118,
  wscaleIn: 119,
  flags: 120,
  active: 124,
  moves: 128,
  epoch: 132,
  nextHop: 134,
  outside: 140,
  movedAt: 144,
  gap: 152,
  gapSince: 160,
  frozenUntil: 168,
  mapping: 176,
  sndUna: 296,
  rcvMax: 300,
  seenIn: 304,
  windowIn: 312,
  windowInMax: 314,
  rcvFin: 316,
  untakenSince: 320,
  oldPathAt: 328,
  untaken: 336,
  knock: 340,
  knockedAt: 344,
} as const;
export function readFlow(view: DataView, at = 0): Flow {
  return {
    sndNxt: view.getUint32(at, true) as Seq,
    rcvNxt: view.getUint32(at + 4, true) as Seq,
    seenOut: view.getBigUint64(at + 8, true),
    tookAt: view.getBigUint64(at + 16, true),
    behindSince: view.getBigUint64(at + 24, true),
    resumedAt: view.getBigUint64(at + 32, true),
    resentSince: view.getBigUint64(at + 40, true),
    windowOut: view.getUint16(at + 48, true),
    resent: view.getUint8(at + 50),
    behind: view.getUint8(at + 51),
    rcvBefore: view.getUint32(at + 52, true) as Seq,
    initiator: readTiOpen(view, at + 56),
    responder: readTiOpen(view, at + 76),
    iss: view.getUint32(at + 96, true) as Seq,
    irs: view.getUint32(at + 100, true) as Seq,
    created: view.getBigUint64(at + 104, true),
    mssOut: view.getUint16(at + 112, true),
    mssIn: view.getUint16(at + 114, true),
    role: view.getUint8(at + 116),
    options: view.getUint8(at + 117),
    wscaleOut: view.getUint8(at + 118),
    wscaleIn: view.getUint8(at + 119),
    flags: view.getUint32(at + 120, true),
    active: view.getUint32(at + 124, true),
    moves: view.getUint32(at + 128, true),
    epoch: view.getUint16(at + 132, true),
    nextHop: bytesAt(view, at + 134, 6).slice(),
    outside: view.getUint32(at + 140, true),
    movedAt: view.getBigUint64(at + 144, true),
    gap: view.getBigUint64(at + 152, true),
    gapSince: view.getBigUint64(at + 160, true),
    frozenUntil: view.getBigUint64(at + 168, true),
    mapping: [readMapping(view, at + 176), readMapping(view, at + 176 + 60)],
    sndUna: view.getUint32(at + 296, true) as Seq,
    rcvMax: view.getUint32(at + 300, true) as Seq,
    seenIn: view.getBigUint64(at + 304, true),
    windowIn: view.getUint16(at + 312, true),
    windowInMax: view.getUint16(at + 314, true),
    rcvFin: view.getUint32(at + 316, true) as Seq,
    untakenSince: view.getBigUint64(at + 320, true),
    oldPathAt: view.getBigUint64(at + 328, true),
    untaken: view.getUint8(at + 336),
    knock: view.getUint32(at + 340, true) as Seq,
    knockedAt: view.getBigUint64(at + 344, true),
  };
}
export function writeFlow(view: DataView, value: Flow, at = 0): void {
  view.setUint32(at, value.sndNxt, true);
  view.setUint32(at + 4, value.rcvNxt, true);
  view.setBigUint64(at + 8, value.seenOut, true);
  view.setBigUint64(at + 16, value.tookAt, true);
  view.setBigUint64(at + 24, value.behindSince, true);
  view.setBigUint64(at + 32, value.resumedAt, true);
  view.setBigUint64(at + 40, value.resentSince, true);
  view.setUint16(at + 48, value.windowOut, true);
  view.setUint8(at + 50, value.resent);
  view.setUint8(at + 51, value.behind);
  view.setUint32(at + 52, value.rcvBefore, true);
  writeTiOpen(view, value.initiator, at + 56);
  writeTiOpen(view, value.responder, at + 76);
  view.setUint32(at + 96, value.iss, true);
  view.setUint32(at + 100, value.irs, true);
  view.setBigUint64(at + 104, value.created, true);
  view.setUint16(at + 112, value.mssOut, true);
  view.setUint16(at + 114, value.mssIn, true);
  view.setUint8(at + 116, value.role);
  view.setUint8(at + 117, value.options);
  view.setUint8(at + 118, value.wscaleOut);
  view.setUint8(at + 119, value.wscaleIn);
  view.setUint32(at + 120, value.flags, true);
  view.setUint32(at + 124, value.active, true);
  view.setUint32(at + 128, value.moves, true);
  view.setUint16(at + 132, value.epoch, true);
  bytesAt(view, at + 134, 6).set(value.nextHop);
  view.setUint32(at + 140, value.outside, true);
  view.setBigUint64(at + 144, value.movedAt, true);
  view.setBigUint64(at + 152, value.gap, true);
  view.setBigUint64(at + 160, value.gapSince, true);
  view.setBigUint64(at + 168, value.frozenUntil, true);
  writeMapping(view, value.mapping[0], at + 176);
  writeMapping(view, value.mapping[1], at + 176 + 60);
  view.setUint32(at + 296, value.sndUna, true);
  view.setUint32(at + 300, value.rcvMax, true);
  view.setBigUint64(at + 304, value.seenIn, true);
  view.setUint16(at + 312, value.windowIn, true);
  view.setUint16(at + 314, value.windowInMax, true);
  view.setUint32(at + 316, value.rcvFin, true);
  view.setBigUint64(at + 320, value.untakenSince, true);
  view.setBigUint64(at + 328, value.oldPathAt, true);
  view.setUint8(at + 336, value.untaken);
  view.setUint32(at + 340, value.knock, true);
  view.setBigUint64(at + 344, value.knockedAt, true);
}
export function encodeFlow(value: Flow): Uint8Array {
  const bytes = new Uint8Array(352);
  writeFlow(new DataView(bytes.buffer), value);
  return bytes;
}

export const PLACE_FLAG = { AWAY: 1, ANSWER: 2 } as const;

export interface Place {
  inside4: Address;
  outside4: Address;
  inside6: Address;
  outside6: Address;
  router6: Address;
  own6: [Address, Address, Address, Address];
  since: bigint;
  guestMac: Uint8Array;
  gateway4Mac: Uint8Array;
  gateway6Mac: Uint8Array;
  flags: number;
  own6Next: number;
}
export const PLACE_SIZE = 176;
export const PLACE_AT = {
  inside4: 0,
  outside4: 16,
  inside6: 32,
  outside6: 48,
  router6: 64,
  own6: 80,
  since: 144,
  guestMac: 152,
  gateway4Mac: 158,
  gateway6Mac: 164,
  flags: 170,
  own6Next: 171,
} as const;
export function readPlace(view: DataView, at = 0): Place {
  return {
    inside4: addressFromBytes(bytesAt(view, at, 16)),
    outside4: addressFromBytes(bytesAt(view, at + 16, 16)),
    inside6: addressFromBytes(bytesAt(view, at + 32, 16)),
    outside6: addressFromBytes(bytesAt(view, at + 48, 16)),
    router6: addressFromBytes(bytesAt(view, at + 64, 16)),
    own6: [
      addressFromBytes(bytesAt(view, at + 80, 16)),
      addressFromBytes(bytesAt(view, at + 80 + 16, 16)),
      addressFromBytes(bytesAt(view, at + 80 + 32, 16)),
      addressFromBytes(bytesAt(view, at + 80 + 48, 16)),
    ],
    since: view.getBigUint64(at + 144, true),
    guestMac: bytesAt(view, at + 152, 6).slice(),
    gateway4Mac: bytesAt(view, at + 158, 6).slice(),
    gateway6Mac: bytesAt(view, at + 164, 6).slice(),
    flags: view.getUint8(at + 170),
    own6Next: view.getUint8(at + 171),
  };
}
export function writePlace(view: DataView, value: Place, at = 0): void {
  bytesAt(view, at, 16).set(addressMapped(value.inside4));
  bytesAt(view, at + 16, 16).set(addressMapped(value.outside4));
  bytesAt(view, at + 32, 16).set(addressMapped(value.inside6));
  bytesAt(view, at + 48, 16).set(addressMapped(value.outside6));
  bytesAt(view, at + 64, 16).set(addressMapped(value.router6));
  bytesAt(view, at + 80, 16).set(addressMapped(value.own6[0]));
  bytesAt(view, at + 80 + 16, 16).set(addressMapped(value.own6[1]));
  bytesAt(view, at + 80 + 32, 16).set(addressMapped(value.own6[2]));
  bytesAt(view, at + 80 + 48, 16).set(addressMapped(value.own6[3]));
  view.setBigUint64(at + 144, value.since, true);
  bytesAt(view, at + 152, 6).set(value.guestMac);
  bytesAt(view, at + 158, 6).set(value.gateway4Mac);
  bytesAt(view, at + 164, 6).set(value.gateway6Mac);
  view.setUint8(at + 170, value.flags);
  view.setUint8(at + 171, value.own6Next);
}
export function encodePlace(value: Place): Uint8Array {
  const bytes = new Uint8Array(176);
  writePlace(new DataView(bytes.buffer), value);
  return bytes;
}

export const WIRE_STATE = { SYNCING: 1, PENDING: 2, ACTIVE: 3 } as const;

export interface Wire {
  kernel: Tuple;
  ack: Seq;
  state: number;
}
export const WIRE_SIZE = 48;
export const WIRE_AT = { kernel: 0, ack: 40, state: 44 } as const;
export function readWire(view: DataView, at = 0): Wire {
  return {
    kernel: readTuple(view, at),
    ack: view.getUint32(at + 40, true) as Seq,
    state: view.getUint8(at + 44),
  };
}
export function writeWire(view: DataView, value: Wire, at = 0): void {
  writeTuple(view, value.kernel, at);
  view.setUint32(at + 40, value.ack, true);
  view.setUint8(at + 44, value.state);
}
export function encodeWire(value: Wire): Uint8Array {
  const bytes = new Uint8Array(48);
  writeWire(new DataView(bytes.buffer), value);
  return bytes;
}

export const REASON = {
  REASON_NONE: 0,
  LEGACY_NO_ROOM: 1,
  LEGACY_MPTCP: 2,
  LEGACY_MD5: 3,
  LEGACY_TCP_AO: 4,
  LEGACY_FAST_OPEN: 5,
  LEGACY_SYN_DATA: 6,
  LEGACY_NO_HALVES: 7,
  LEGACY_INNER: 8,
  LEGACY_PEER_PLAIN: 9,
  LEGACY_SYN_LOST: 10,
  LEGACY_PEER_REMEMBERED: 11,
  LEGACY_TABLE_FULL: 12,
  LEGACY_MALFORMED: 13,
  LEGACY_NO_PSK: 14,
  LEGACY_UNTRACKED: 15,
  DROP_HELD: 16,
  DROP_PENDING: 17,
  DROP_OLD_PATH: 18,
  DROP_BELOW_BASE: 19,
  DROP_ABOVE_SENT: 20,
  DROP_FRAGMENT: 21,
  DROP_REWRITE: 22,
  DROP_MALFORMED: 23,
  DROP_RST_QUARANTINE: 24,
  DROP_EVENT_LOST: 25,
  DROP_SYNC: 26,
  DROP_TUPLE_IN_USE: 27,
  COUNT_FLOW_OPENED: 28,
  COUNT_FLOW_ENDED: 29,
  COUNT_SACK_BLOCK_DROPPED: 30,
  COUNT_ACK_CLAMPED: 31,
  COUNT_ICMP_TRANSLATED: 32,
  COUNT_OPTION_IGNORED: 33,
  DROP_FOREIGN: 34,
  DROP_STRANDED: 35,
  DROP_NO_NEXT_HOP: 36,
  COUNT_ANSWERED: 37,
  LEGACY_FORWARDED: 38,
  COUNT_END_TO_END: 39,
  DROP_ABOVE_WINDOW: 40,
  LEGACY_SIMULTANEOUS_OPEN: 41,
  LEGACY_EVICTED: 42,
  COUNT_OVER_BUDGET: 43,
  REASON_END: 44,
} as const;

export type ReasonClass = 'reason' | 'legacy' | 'drop' | 'count';

const REASONS = new Map<number, { group: ReasonClass; name: string }>([
  [0, { group: 'reason', name: 'none' }],
  [1, { group: 'legacy', name: 'no-room' }],
  [2, { group: 'legacy', name: 'mptcp' }],
  [3, { group: 'legacy', name: 'md5' }],
  [4, { group: 'legacy', name: 'tcp-ao' }],
  [5, { group: 'legacy', name: 'fast-open' }],
  [6, { group: 'legacy', name: 'syn-data' }],
  [7, { group: 'legacy', name: 'no-halves' }],
  [8, { group: 'legacy', name: 'inner' }],
  [9, { group: 'legacy', name: 'peer-plain' }],
  [10, { group: 'legacy', name: 'syn-lost' }],
  [11, { group: 'legacy', name: 'peer-remembered' }],
  [12, { group: 'legacy', name: 'table-full' }],
  [13, { group: 'legacy', name: 'malformed' }],
  [14, { group: 'legacy', name: 'no-psk' }],
  [15, { group: 'legacy', name: 'untracked' }],
  [16, { group: 'drop', name: 'held' }],
  [17, { group: 'drop', name: 'pending' }],
  [18, { group: 'drop', name: 'old-path' }],
  [19, { group: 'drop', name: 'below-base' }],
  [20, { group: 'drop', name: 'above-sent' }],
  [21, { group: 'drop', name: 'fragment' }],
  [22, { group: 'drop', name: 'rewrite' }],
  [23, { group: 'drop', name: 'malformed' }],
  [24, { group: 'drop', name: 'rst-quarantine' }],
  [25, { group: 'drop', name: 'event-lost' }],
  [26, { group: 'drop', name: 'sync' }],
  [27, { group: 'drop', name: 'tuple-in-use' }],
  [28, { group: 'count', name: 'flow-opened' }],
  [29, { group: 'count', name: 'flow-ended' }],
  [30, { group: 'count', name: 'sack-block-dropped' }],
  [31, { group: 'count', name: 'ack-clamped' }],
  [32, { group: 'count', name: 'icmp-translated' }],
  [33, { group: 'count', name: 'option-ignored' }],
  [34, { group: 'drop', name: 'foreign' }],
  [35, { group: 'drop', name: 'stranded' }],
  [36, { group: 'drop', name: 'no-next-hop' }],
  [37, { group: 'count', name: 'answered' }],
  [38, { group: 'legacy', name: 'forwarded' }],
  [39, { group: 'count', name: 'end-to-end' }],
  [40, { group: 'drop', name: 'above-window' }],
  [41, { group: 'legacy', name: 'simultaneous-open' }],
  [42, { group: 'legacy', name: 'evicted' }],
  [43, { group: 'count', name: 'over-budget' }],
]);

/** The label of a reason: 'peer-plain', 'held'; its number if this version does not know it. */
export const reasonName = (n: number): string => REASONS.get(n)?.name ?? String(n);

/** Why a connection is legacy, why a packet was dropped, or what was counted. */
export const reasonClass = (n: number): ReasonClass => REASONS.get(n)?.group ?? 'reason';

export interface Plain {
  since: bigint;
  reason: number;
}
export const PLAIN_SIZE = 16;
export const PLAIN_AT = { since: 0, reason: 8 } as const;
export function readPlain(view: DataView, at = 0): Plain {
  return {
    since: view.getBigUint64(at, true),
    reason: view.getUint16(at + 8, true),
  };
}
export function writePlain(view: DataView, value: Plain, at = 0): void {
  view.setBigUint64(at, value.since, true);
  view.setUint16(at + 8, value.reason, true);
}
export function encodePlain(value: Plain): Uint8Array {
  const bytes = new Uint8Array(16);
  writePlain(new DataView(bytes.buffer), value);
  return bytes;
}

export interface PlainPeer {
  until: bigint;
  losses: number;
}
export const PLAIN_PEER_SIZE = 16;
export const PLAIN_PEER_AT = { until: 0, losses: 8 } as const;
export function readPlainPeer(view: DataView, at = 0): PlainPeer {
  return {
    until: view.getBigUint64(at, true),
    losses: view.getUint32(at + 8, true),
  };
}
export function writePlainPeer(view: DataView, value: PlainPeer, at = 0): void {
  view.setBigUint64(at, value.until, true);
  view.setUint32(at + 8, value.losses, true);
}
export function encodePlainPeer(value: PlainPeer): Uint8Array {
  const bytes = new Uint8Array(16);
  writePlainPeer(new DataView(bytes.buffer), value);
  return bytes;
}

export interface BudgetKey {
  of: number;
  kind: number;
}
export const BUDGET_KEY_SIZE = 8;
export const BUDGET_KEY_AT = { of: 0, kind: 4 } as const;
export function readBudgetKey(view: DataView, at = 0): BudgetKey {
  return {
    of: view.getUint32(at, true),
    kind: view.getUint32(at + 4, true),
  };
}
export function writeBudgetKey(view: DataView, value: BudgetKey, at = 0): void {
  view.setUint32(at, value.of, true);
  view.setUint32(at + 4, value.kind, true);
}
export function encodeBudgetKey(value: BudgetKey): Uint8Array {
  const bytes = new Uint8Array(8);
  writeBudgetKey(new DataView(bytes.buffer), value);
  return bytes;
}

export const BUDGET_KIND = {
  STRAY: 0,
  FLOW: 1,
  WIRE: 2,
  GUEST: 3,
  DHCP: 4,
  LAN: 5,
  STRANDED: 6,
} as const;

export const EVENT_TYPE = {
  PACKET: 1,
  OPENED: 2,
  ENDED: 3,
  PROVEN: 4,
  RST: 5,
  GUEST: 6,
  STRANDED: 7,
  STALLED: 8,
  REVIVED: 9,
  STUCK: 10,
  KNOCK: 11,
  IN_USE: 12,
} as const;

export interface Event {
  type: number;
  ifindex: number;
  at: bigint;
  tuple: Tuple;
  length: number;
  etherType: number;
  fromGuest: number;
  packet: Uint8Array;
}
export const EVENT_SIZE = 704;
export const EVENT_AT = {
  type: 0,
  ifindex: 4,
  at: 8,
  tuple: 16,
  length: 56,
  etherType: 60,
  fromGuest: 62,
  packet: 64,
} as const;
export function readEvent(view: DataView, at = 0): Event {
  return {
    type: view.getUint32(at, true),
    ifindex: view.getUint32(at + 4, true),
    at: view.getBigUint64(at + 8, true),
    tuple: readTuple(view, at + 16),
    length: view.getUint32(at + 56, true),
    etherType: view.getUint16(at + 60, true),
    fromGuest: view.getUint8(at + 62),
    packet: bytesAt(view, at + 64, 640).slice(),
  };
}
export function writeEvent(view: DataView, value: Event, at = 0): void {
  view.setUint32(at, value.type, true);
  view.setUint32(at + 4, value.ifindex, true);
  view.setBigUint64(at + 8, value.at, true);
  writeTuple(view, value.tuple, at + 16);
  view.setUint32(at + 56, value.length, true);
  view.setUint16(at + 60, value.etherType, true);
  view.setUint8(at + 62, value.fromGuest);
  bytesAt(view, at + 64, 640).set(value.packet);
}
export function encodeEvent(value: Event): Uint8Array {
  const bytes = new Uint8Array(704);
  writeEvent(new DataView(bytes.buffer), value);
  return bytes;
}

export const VERB = {
  HOLD: 1,
  RELEASE: 2,
  MAP: 3,
  FORGET: 4,
  FREEZE: 5,
  CLOSE: 6,
  GO_ON: 7,
  LET_GO: 8,
} as const;

export interface Command {
  verb: number;
  result: number;
  kernel: Tuple;
  mapping: Mapping;
  epoch: number;
  unproven: number;
  held: number;
  until: bigint;
  flow: Flow;
}
export const COMMAND_SIZE = 480;
export const COMMAND_AT = {
  verb: 0,
  result: 4,
  kernel: 8,
  mapping: 48,
  epoch: 108,
  unproven: 110,
  held: 111,
  until: 120,
  flow: 128,
} as const;
export function readCommand(view: DataView, at = 0): Command {
  return {
    verb: view.getUint32(at, true),
    result: view.getInt32(at + 4, true),
    kernel: readTuple(view, at + 8),
    mapping: readMapping(view, at + 48),
    epoch: view.getUint16(at + 108, true),
    unproven: view.getUint8(at + 110),
    held: view.getUint8(at + 111),
    until: view.getBigUint64(at + 120, true),
    flow: readFlow(view, at + 128),
  };
}
export function writeCommand(view: DataView, value: Command, at = 0): void {
  view.setUint32(at, value.verb, true);
  view.setInt32(at + 4, value.result, true);
  writeTuple(view, value.kernel, at + 8);
  writeMapping(view, value.mapping, at + 48);
  view.setUint16(at + 108, value.epoch, true);
  view.setUint8(at + 110, value.unproven);
  view.setUint8(at + 111, value.held);
  view.setBigUint64(at + 120, value.until, true);
  writeFlow(view, value.flow, at + 128);
}
export function encodeCommand(value: Command): Uint8Array {
  const bytes = new Uint8Array(480);
  writeCommand(new DataView(bytes.buffer), value);
  return bytes;
}

export interface Settings {
  abiVersion: number;
  reserved: number;
  markGuest: number;
  markNetwork: number;
  markVerbatim: number;
  rstSilentMs: number;
  plainPeerTtlS: number;
  enabled: number;
  keyId: number;
  keyIds: Uint8Array;
}
export const SETTINGS_SIZE = 64;
export const SETTINGS_AT = {
  abiVersion: 0,
  reserved: 4,
  markGuest: 8,
  markNetwork: 12,
  markVerbatim: 16,
  rstSilentMs: 20,
  plainPeerTtlS: 24,
  enabled: 28,
  keyId: 29,
  keyIds: 32,
} as const;
export function readSettings(view: DataView, at = 0): Settings {
  return {
    abiVersion: view.getUint32(at, true),
    reserved: view.getUint32(at + 4, true),
    markGuest: view.getUint32(at + 8, true),
    markNetwork: view.getUint32(at + 12, true),
    markVerbatim: view.getUint32(at + 16, true),
    rstSilentMs: view.getUint32(at + 20, true),
    plainPeerTtlS: view.getUint32(at + 24, true),
    enabled: view.getUint8(at + 28),
    keyId: view.getUint8(at + 29),
    keyIds: bytesAt(view, at + 32, 32).slice(),
  };
}
export function writeSettings(view: DataView, value: Settings, at = 0): void {
  view.setUint32(at, value.abiVersion, true);
  view.setUint32(at + 4, value.reserved, true);
  view.setUint32(at + 8, value.markGuest, true);
  view.setUint32(at + 12, value.markNetwork, true);
  view.setUint32(at + 16, value.markVerbatim, true);
  view.setUint32(at + 20, value.rstSilentMs, true);
  view.setUint32(at + 24, value.plainPeerTtlS, true);
  view.setUint8(at + 28, value.enabled);
  view.setUint8(at + 29, value.keyId);
  bytesAt(view, at + 32, 32).set(value.keyIds);
}
export function encodeSettings(value: Settings): Uint8Array {
  const bytes = new Uint8Array(64);
  writeSettings(new DataView(bytes.buffer), value);
  return bytes;
}
