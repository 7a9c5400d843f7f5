/*
 * Netlink messages and their attributes as bytes (RFC 3549, section 2.2; netlink(7)).
 *
 *   +--------+------+-------+----------+------+---------+- - -+-----------+- - -+
 *   | length | type | flags | sequence | port | fixed header  | attribute | ... |
 *   |   4    |  2   |   2   |    4     |  4   | of the family | len typ … | ... |
 *   +--------+------+-------+----------+------+---------+- - -+-----------+- - -+
 *
 * Framing only: what a family puts inside is in rtnetlink.ts and inet-diag.ts.  Pure.  Netlink is
 * in the byte order of the host, which is little-endian wherever tiflow runs.
 */

/** NLM_F_…: what a request asks for. */
export const FLAG = {
  REQUEST: 0x1,
  ACK: 0x4,
  DUMP_INTERRUPTED: 0x10,
  DUMP: 0x300,
  REPLACE: 0x100,
  EXCLUSIVE: 0x200,
  CREATE: 0x400,
  CAPPED: 0x100,
  ACK_TLVS: 0x200,
} as const;

/** NLMSG_…: messages of netlink itself. */
export const CONTROL = { NOOP: 1, ERROR: 2, DONE: 3, OVERRUN: 4 } as const;

const HEADER_BYTES = 16;
const ATTRIBUTE_HEADER_BYTES = 4;
/* NLA_F_NESTED and NLA_F_NET_BYTEORDER are flags in the type's highest bits. */
const ATTRIBUTE_TYPE_MASK = 0x3fff;

export interface NetlinkMessage {
  type: number;
  flags: number;
  sequence: number;
  port: number;
  /** Everything after the netlink header. */
  payload: Uint8Array;
}

/** Attributes by type; of a repeated one, the last. */
export type Attributes = ReadonlyMap<number, Uint8Array>;

/** A message: fixed header and attributes in order, each padded to 4 bytes. */
export function encodeMessage(type: number, flags: number, parts: Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + aligned(part.length), HEADER_BYTES);
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, flags, true);
  let at = HEADER_BYTES;
  for (const part of parts) {
    bytes.set(part, at);
    at += aligned(part.length);
  }
  return bytes;
}

/** The same message under a sequence number: what answers it carries the same. */
export function numbered(message: Uint8Array, sequence: number): Uint8Array {
  const copy = message.slice();
  new DataView(copy.buffer).setUint32(8, sequence, true);
  return copy;
}

/** The messages of one datagram, or what is wrong with it.  Payloads are views, not copies. */
export function decodeMessages(bytes: Uint8Array): NetlinkMessage[] | { error: string } {
  const messages: NetlinkMessage[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length; ) {
    if (at + HEADER_BYTES > bytes.length) return { error: `cut header at byte ${at}` };
    const length = view.getUint32(at, true);
    if (length < HEADER_BYTES || at + length > bytes.length) {
      return { error: `message at byte ${at} says it has ${length} bytes` };
    }
    messages.push({
      type: view.getUint16(at + 4, true),
      flags: view.getUint16(at + 6, true),
      sequence: view.getUint32(at + 8, true),
      port: view.getUint32(at + 12, true),
      payload: bytes.subarray(at + HEADER_BYTES, at + length),
    });
    at += aligned(length);
  }
  return messages;
}

/** What NLMSG_ERROR says: errno (0: acknowledged) and the kernel's own words, if it has any. */
export function decodeError(m: NetlinkMessage): { errno: number; text?: string } {
  if (m.payload.length < 4) return { errno: 0 };
  const view = new DataView(m.payload.buffer, m.payload.byteOffset, m.payload.byteLength);
  const errno = -view.getInt32(0, true);
  if ((m.flags & FLAG.ACK_TLVS) === 0 || m.payload.length < 4 + HEADER_BYTES) return { errno };
  const echoed = (m.flags & FLAG.CAPPED) !== 0 ? HEADER_BYTES : aligned(view.getUint32(4, true));
  const text = decodeAttributes(m.payload.subarray(4 + echoed))?.get(1);
  return text === undefined ? { errno } : { errno, text: attributeText(text) };
}

/** One attribute.  A number is 4 bytes in host order, a list is nested attributes. */
export function attribute(
  type: number,
  value: Uint8Array | number | string | Uint8Array[],
): Uint8Array {
  const bytes = attributeValue(value);
  const whole = new Uint8Array(ATTRIBUTE_HEADER_BYTES + bytes.length);
  const view = new DataView(whole.buffer);
  view.setUint16(0, whole.length, true);
  view.setUint16(2, type, true);
  whole.set(bytes, ATTRIBUTE_HEADER_BYTES);
  return whole;
}

function attributeValue(value: Uint8Array | number | string | Uint8Array[]): Uint8Array {
  if (value instanceof Uint8Array) return value;
  if (typeof value === 'number') return new Uint8Array(Uint32Array.of(value).buffer);
  if (typeof value === 'string') return new TextEncoder().encode(`${value}\0`);
  return encodeMessage(0, 0, value).subarray(HEADER_BYTES);
}

/** The attributes that `bytes` consists of; undefined if one of them lies about its length. */
export function decodeAttributes(bytes: Uint8Array): Attributes | undefined {
  const found = new Map<number, Uint8Array>();
  for (let at = 0; at + ATTRIBUTE_HEADER_BYTES <= bytes.length; ) {
    const length = (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8);
    const type = (bytes[at + 2] ?? 0) | ((bytes[at + 3] ?? 0) << 8);
    if (length < ATTRIBUTE_HEADER_BYTES || at + length > bytes.length) return undefined;
    found.set(type & ATTRIBUTE_TYPE_MASK, bytes.subarray(at + ATTRIBUTE_HEADER_BYTES, at + length));
    at += aligned(length);
  }
  return found;
}

/** A 32-bit attribute in host order; undefined if it is absent or too short. */
export function attributeNumber(bytes: Uint8Array | undefined): number | undefined {
  if (bytes === undefined || bytes.length < 4) return undefined;
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0, true);
}

/** A text attribute up to its NUL. */
export function attributeText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

const aligned = (length: number): number => (length + 3) & ~3;
