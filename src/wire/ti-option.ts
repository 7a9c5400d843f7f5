/*
 * The four options of the protocol, between bytes and values (docs/PROTOCOL.md, section 3).
 *
 *      0       1       2       3       4               5
 *     +-------+-------+-------+-------+-------+-------+-- - -
 *     |  253  |length |     0x5449    |ver|sub| body
 *     +-------+-------+-------+-------+-------+-------+-- - -
 *
 * Syntax only: which keys, and what a value must satisfy, is src/sync's business.
 * Numbers in network byte order.
 */

/** The numbers of bpf/abi.h, `enum option` and `enum subtype`; a test compares them. */
export const TI = {
  kind: 253,
  exid: 0x5449,
  version: 1,
  subtype: { open: 0, sync: 1, confirm: 2, rst: 3 },
  length: { open: 20, sync: 31, confirm: 23, rst: 16 },
  /** Bytes before the MAC: what a MAC covers of the option that carries it. */
  unsigned: { sync: 23, syncAck: 15, confirm: 7, rst: 8 },
} as const;

/** Bytes of kind, length, ExID, version and subtype. */
const HEAD = 5;

export type TiOption =
  | {
      kind: 'ti-open';
      flags: number;
      keyId: number;
      reserved: number;
      tifidHalf: number;
      keyHalf: Uint8Array; // 8 bytes
    }
  | {
      kind: 'ti-sync';
      epoch: number;
      initiatorHalf: number;
      responderHalf: number;
      tiack: number;
      nonce: number;
      mac: Uint8Array; // 8 bytes
    }
  | { kind: 'ti-sync-ack'; epoch: number; tiack: number; nonce: number; mac: Uint8Array } // 16
  | { kind: 'ti-confirm'; epoch: number; mac: Uint8Array } // 16
  | { kind: 'ti-rst'; reason: number; epoch: number; mac: Uint8Array }; // 8

/** The whole option, kind byte first.  Throws RangeError on a MAC or key half of wrong length. */
export function encodeTiOption(o: TiOption): Uint8Array {
  switch (o.kind) {
    case 'ti-open':
      return encodeOpen(o);
    case 'ti-sync': {
      const { bytes, view } = start(TI.subtype.sync, TI.length.sync);
      view.setUint16(5, o.epoch);
      view.setUint32(7, o.initiatorHalf);
      view.setUint32(11, o.responderHalf);
      view.setUint32(15, o.tiack);
      view.setUint32(19, o.nonce);
      return finish(bytes, o.mac, TI.unsigned.sync);
    }
    case 'ti-sync-ack': {
      const { bytes, view } = start(TI.subtype.sync, TI.length.sync);
      view.setUint16(5, o.epoch);
      view.setUint32(7, o.tiack);
      view.setUint32(11, o.nonce);
      return finish(bytes, o.mac, TI.unsigned.syncAck);
    }
    case 'ti-confirm': {
      const { bytes, view } = start(TI.subtype.confirm, TI.length.confirm);
      view.setUint16(5, o.epoch);
      return finish(bytes, o.mac, TI.unsigned.confirm);
    }
    case 'ti-rst': {
      const { bytes, view } = start(TI.subtype.rst, TI.length.rst);
      view.setUint8(5, o.reason);
      view.setUint16(6, o.epoch);
      return finish(bytes, o.mac, TI.unsigned.rst);
    }
  }
}

/**
 * The option in `bytes` (kind byte first, exactly its length) of a packet with `flags`;
 * undefined if it is none of ours, or of another version, subtype or length, or on a packet
 * that cannot carry it: then the protocol says to ignore it.
 */
export function decodeTiOption(bytes: Uint8Array, flags: string): TiOption | undefined {
  if (bytes.length < HEAD || bytes[0] !== TI.kind) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint16(2) !== TI.exid || view.getUint8(4) >> 4 !== TI.version) return undefined;
  const syn = flags.includes('S');
  const rst = flags.includes('R');
  switch (view.getUint8(4) & 0x0f) {
    case TI.subtype.open:
      return syn && bytes.length === TI.length.open ? decodeOpen(bytes, view) : undefined;
    case TI.subtype.sync:
      if (!syn || bytes.length !== TI.length.sync) return undefined;
      return flags.includes('A') ? decodeSyncAck(bytes, view) : decodeSync(bytes, view);
    case TI.subtype.confirm:
      if (syn || rst || bytes.length !== TI.length.confirm) return undefined;
      return { kind: 'ti-confirm', epoch: view.getUint16(5), mac: bytes.slice(7) };
    case TI.subtype.rst:
      if (!rst || syn || bytes.length !== TI.length.rst) return undefined;
      return {
        kind: 'ti-rst',
        reason: view.getUint8(5),
        epoch: view.getUint16(6),
        mac: bytes.slice(8),
      };
    default:
      return undefined;
  }
}

function encodeOpen(o: TiOption & { kind: 'ti-open' }): Uint8Array {
  const { bytes, view } = start(TI.subtype.open, TI.length.open);
  view.setUint8(5, o.flags);
  view.setUint8(6, o.keyId);
  view.setUint8(7, o.reserved);
  view.setUint32(8, o.tifidHalf);
  return finish(bytes, o.keyHalf, 12);
}

function start(subtype: number, length: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, TI.kind);
  view.setUint8(1, length);
  view.setUint16(2, TI.exid);
  view.setUint8(4, (TI.version << 4) | subtype);
  return { bytes, view };
}

/** `tail` must fill the option exactly: a short MAC would go out padded with zeros. */
function finish(bytes: Uint8Array, tail: Uint8Array, at: number): Uint8Array {
  if (tail.length !== bytes.length - at) {
    throw new RangeError(`option ends with ${bytes.length - at} bytes, not ${tail.length}`);
  }
  bytes.set(tail, at);
  return bytes;
}

const decodeOpen = (bytes: Uint8Array, view: DataView): TiOption => ({
  kind: 'ti-open',
  flags: view.getUint8(5),
  keyId: view.getUint8(6),
  reserved: view.getUint8(7),
  tifidHalf: view.getUint32(8),
  keyHalf: bytes.slice(12),
});

const decodeSync = (bytes: Uint8Array, view: DataView): TiOption => ({
  kind: 'ti-sync',
  epoch: view.getUint16(5),
  initiatorHalf: view.getUint32(7),
  responderHalf: view.getUint32(11),
  tiack: view.getUint32(15),
  nonce: view.getUint32(19),
  mac: bytes.slice(TI.unsigned.sync),
});

const decodeSyncAck = (bytes: Uint8Array, view: DataView): TiOption => ({
  kind: 'ti-sync-ack',
  epoch: view.getUint16(5),
  tiack: view.getUint32(7),
  nonce: view.getUint32(11),
  mac: bytes.slice(TI.unsigned.syncAck),
});
