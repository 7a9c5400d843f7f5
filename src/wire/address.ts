/*
 * IP addresses as canonical text: dotted IPv4, RFC 5952 IPv6.
 *
 * Canonical, so that two addresses are equal exactly if their texts are and a text serves as
 * a map key.  IPv4-mapped IPv6 (::ffff:a.b.c.d) is how the maps of the data plane keep IPv4:
 * here it is IPv4 always.  No zones: a link-local address is no place to move to.
 */

/** Canonical text of an IPv4 or IPv6 address. */
export type Address = string & { readonly __brand: 'Address' };

const MAPPED_PREFIX = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff);

/** The address that `text` denotes, made canonical.  Throws TypeError if it denotes none. */
export function address(text: string): Address {
  const bytes = text.includes(':') ? parse6(text) : parse4(text);
  if (bytes === undefined) throw new TypeError(`not an IP address: '${text}'`);
  return addressFromBytes(bytes);
}

/** The address in 4 or 16 bytes, network order.  Throws TypeError on any other length. */
export function addressFromBytes(bytes: Uint8Array): Address {
  if (bytes.length === 4) return text4(bytes, 0);
  if (bytes.length !== 16) {
    throw new TypeError(`an IP address has 4 or 16 bytes, not ${bytes.length}`);
  }
  return isMapped(bytes) ? text4(bytes, 12) : text6(bytes);
}

/** 4 bytes for IPv4, 16 for IPv6, network order; to be read only. */
export const addressBytes = (a: Address): Uint8Array => parsed(a).bytes;

/** 16 bytes always, IPv4 as ::ffff:a.b.c.d: `struct address` of the data plane; read only. */
export const addressMapped = (a: Address): Uint8Array => parsed(a).mapped;

/* A thousand flows that move have few addresses between them, and each is read a dozen times. */
const PARSED_MAX = 4096;
const parsedAddresses = new Map<Address, { bytes: Uint8Array; mapped: Uint8Array }>();

function parsed(a: Address): { bytes: Uint8Array; mapped: Uint8Array } {
  const known = parsedAddresses.get(a);
  if (known !== undefined) return known;
  const bytes = family(a) === 6 ? parse6(a) : parse4(a);
  if (bytes === undefined) throw new TypeError(`not an IP address: '${a}'`);
  const both = { bytes, mapped: mappedBytes(bytes) };
  if (parsedAddresses.size >= PARSED_MAX) parsedAddresses.clear();
  parsedAddresses.set(a, both);
  return both;
}

function mappedBytes(bytes: Uint8Array): Uint8Array {
  if (bytes.length === 16) return bytes;
  const mapped = new Uint8Array(16);
  mapped.set(MAPPED_PREFIX);
  mapped.set(bytes, MAPPED_PREFIX.length);
  return mapped;
}

/** fe80::/10 or 169.254.0.0/16. */
export const isLinkLocal = (a: Address): boolean =>
  family(a) === 6 ? /^fe[89ab]/.test(a) : a.startsWith('169.254.');

/** An IP version. */
export type Family = 4 | 6;

/** The IP version of an address. */
export const family = (a: Address): Family => (a.includes(':') ? 6 : 4);

/**
 * Whether it can be one host's on a network: not unspecified, loopback, multicast, reserved or
 * broadcast (RFC 6890).  What is the broadcast address of a network only its routes tell.
 */
export function isUnicast(a: Address): boolean {
  const bytes = addressBytes(a);
  const [first = 0] = bytes;
  if (family(a) === 4) return first !== 0 && first !== 127 && first < 224;
  return first !== 0xff && bytes.some((byte, at) => byte > (at === 15 ? 1 : 0));
}

const isMapped = (bytes: Uint8Array): boolean =>
  MAPPED_PREFIX.every((byte, index) => bytes[index] === byte);

const text4 = (b: Uint8Array, at: number): Address =>
  `${b[at]}.${b[at + 1]}.${b[at + 2]}.${b[at + 3]}` as Address;

/** RFC 5952, section 4: lower case, no leading zeros, `::` for the first longest run of zeros. */
function text6(b: Uint8Array): Address {
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((b[i] ?? 0) << 8) | (b[i + 1] ?? 0));
  const run = longestZeroRun(groups);
  const hex = (part: number[]) => part.map((group) => group.toString(16)).join(':');
  // Section 4.2.2: a single group of zeros is not shortened.
  if (run.length < 2) return hex(groups) as Address;
  const tail = groups.slice(run.start + run.length);
  return `${hex(groups.slice(0, run.start))}::${hex(tail)}` as Address;
}

function longestZeroRun(groups: number[]): { start: number; length: number } {
  let longest = { start: 0, length: 0 };
  let start = 0;
  groups.forEach((group, index) => {
    if (group !== 0) start = index + 1;
    else if (index + 1 - start > longest.length) longest = { start, length: index + 1 - start };
  });
  return longest;
}

/** Strictly four decimal numbers: '010' or '1.2.3' mean different things to different parsers. */
function parse4(text: string): Uint8Array | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  const bytes = new Uint8Array(4);
  for (const [index, part] of parts.entries()) {
    const value = digits(part, 10);
    if (value === undefined || value > 255 || String(value) !== part) return undefined;
    bytes[index] = value;
  }
  return bytes;
}

function parse6(text: string): Uint8Array | undefined {
  const gap = text.indexOf('::');
  if (gap < 0) return groups6(text, 16);
  if (text.indexOf('::', gap + 1) >= 0) return undefined;
  const head = groups6(text.slice(0, gap));
  const tail = groups6(text.slice(gap + 2));
  if (head === undefined || tail === undefined) return undefined;
  // RFC 4291, section 2.2: `::` stands for at least one group.
  if (head.length + tail.length > 14 || text.slice(0, gap).includes('.')) return undefined;
  const bytes = new Uint8Array(16);
  bytes.set(head);
  bytes.set(tail, 16 - tail.length);
  return bytes;
}

/** The bytes of colon-separated groups, the last of which may be a dotted IPv4 address. */
function groups6(text: string, expected?: number): Uint8Array | undefined {
  const bytes: number[] = [];
  const groups = text === '' ? [] : text.split(':');
  for (const [index, group] of groups.entries()) {
    const dotted = index === groups.length - 1 && group.includes('.');
    const value = dotted ? parse4(group) : digits(group, 16);
    if (value === undefined) return undefined;
    if (typeof value === 'number') bytes.push(value >> 8, value & 0xff);
    else bytes.push(...value);
  }
  if (bytes.length > 16 || (expected !== undefined && bytes.length !== expected)) return undefined;
  return Uint8Array.from(bytes);
}

/** One to four digits in `radix`. */
function digits(text: string, radix: 10 | 16): number | undefined {
  if (text.length < 1 || text.length > 4) return undefined;
  let value = 0;
  for (let i = 0; i < text.length; i++) {
    const digit = digitValue(text.charCodeAt(i));
    if (digit >= radix) return undefined;
    value = value * radix + digit;
  }
  return value;
}

function digitValue(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x61 + 10 : Number.POSITIVE_INFINITY;
}
