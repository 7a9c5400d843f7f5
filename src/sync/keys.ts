/*
 * The keys of a TI flow and the MACs made with them (docs/PROTOCOL.md, keys and MACs).
 *
 *   K   = HMAC-SHA256(PSK or 32 zero bytes, "TI1" | TI_OPEN initiator | TI_OPEN responder)
 *   K_i = HMAC-SHA256(K, "TI1 initiator")     what the initiator sends
 *   K_r = HMAC-SHA256(K, "TI1 responder")     what the responder sends
 *
 * The two TI_OPEN verbatim, as TCP-ENO does (RFC 8547, section 4.8), and no address, port or
 * ISN: real networks rewrite all of those.  One key per direction, so that nothing that one
 * end has sent is ever valid coming back to it.
 *
 * Each MAC covers what its sender has seen of the handshake so far, and so its freshness:
 *
 *   TI_SYNC on SYN      its own bytes
 *   TI_SYNC on SYN/ACK  its own bytes | the SYN's option              (the mover's nonce)
 *   TI_CONFIRM          the SYN's option | the SYN/ACK's | its own    (the peer's nonce)
 *   TI_RST              its own bytes
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { encodeOption, type TcpOption, TI } from '../wire/option.js';

/** One key per direction: named after the role of the end that sends with it. */
export interface Keys {
  initiator: Uint8Array;
  responder: Uint8Array;
}

export type Open = Extract<TcpOption, { kind: 'ti-open' }>;
export type Sync = Extract<TcpOption, { kind: 'ti-sync' }>;
export type SyncAck = Extract<TcpOption, { kind: 'ti-sync-ack' }>;
export type Confirm = Extract<TcpOption, { kind: 'ti-confirm' }>;
export type Rst = Extract<TcpOption, { kind: 'ti-rst' }>;

const NO_PSK = new Uint8Array(32);

/**
 * The keys of the flow whose handshake carried these two options (20 bytes each, kind byte
 * first).  `psk`: the pre-shared key that both name, undefined if neither names one.
 */
export function deriveKeys(
  initiatorOpen: Uint8Array,
  responderOpen: Uint8Array,
  psk: Uint8Array = NO_PSK,
): Keys {
  const flowKey = hmac(psk, [Buffer.from('TI1'), initiatorOpen, responderOpen]);
  return {
    initiator: hmac(flowKey, [Buffer.from('TI1 initiator')]),
    responder: hmac(flowKey, [Buffer.from('TI1 responder')]),
  };
}

/**
 * The key-id of the PSK that a flow uses: what both ends have named.  0: none; undefined: they do not
 * name the same, because one has none or somebody on the way has changed it, and there are no keys.
 */
export const commonKeyId = (
  initiator: { keyId: number },
  responder: { keyId: number },
): number | undefined => (initiator.keyId === responder.keyId ? initiator.keyId : undefined);

/** `option` with its MAC. */
export const signSync = (key: Uint8Array, option: Omit<Sync, 'mac'>): Sync =>
  sign(key, { ...option, mac: new Uint8Array(8) }, TI.unsigned.sync);

export const signSyncAck = (key: Uint8Array, option: Omit<SyncAck, 'mac'>, sync: Sync): SyncAck =>
  sign(key, { ...option, mac: new Uint8Array(16) }, TI.unsigned.syncAck, [], [sync]);

export const signConfirm = (
  key: Uint8Array,
  option: Omit<Confirm, 'mac'>,
  handshake: [Sync, SyncAck],
): Confirm => sign(key, { ...option, mac: new Uint8Array(16) }, TI.unsigned.confirm, handshake);

export const signRst = (key: Uint8Array, option: Omit<Rst, 'mac'>): Rst =>
  sign(key, { ...option, mac: new Uint8Array(8) }, TI.unsigned.rst);

/** Whether the holder of `key` has made this option.  Takes the same time for every MAC. */
export const isSyncFrom = (key: Uint8Array, option: Sync): boolean =>
  timingSafeEqual(signSync(key, option).mac, option.mac);

export const isSyncAckFrom = (key: Uint8Array, option: SyncAck, sync: Sync): boolean =>
  timingSafeEqual(signSyncAck(key, option, sync).mac, option.mac);

export const isConfirmFrom = (
  key: Uint8Array,
  option: Confirm,
  handshake: [Sync, SyncAck],
): boolean => timingSafeEqual(signConfirm(key, option, handshake).mac, option.mac);

export const isRstFrom = (key: Uint8Array, option: Rst): boolean =>
  timingSafeEqual(signRst(key, option).mac, option.mac);

/** `option` with the leftmost bytes of HMAC(before | its first `unsigned` bytes | after). */
function sign<T extends Sync | SyncAck | Confirm | Rst>(
  key: Uint8Array,
  option: T,
  unsigned: number,
  before: TcpOption[] = [],
  after: TcpOption[] = [],
): T {
  const own = encodeOption(option).subarray(0, unsigned);
  const covered = [...before.map(encodeOption), own, ...after.map(encodeOption)];
  return { ...option, mac: hmac(key, covered).subarray(0, option.mac.length) };
}

function hmac(key: Uint8Array, parts: Uint8Array[]): Uint8Array {
  const digest = createHmac('sha256', key);
  for (const part of parts) digest.update(part);
  return Uint8Array.from(digest.digest());
}
