/*
 * The Internet checksum (RFC 1071) and the pseudo-headers of TCP over IPv4 (RFC 9293, section
 * 3.1) and of everything over IPv6 (RFC 8200, section 8.1).
 *
 * Whole packets only.  The data plane updates checksums incrementally; this module is what
 * its results are compared with, so it shares no idea with it.
 */
import { type Address, addressBytes } from './address.js';

/**
 * The sum, not yet folded or complemented, of `bytes` as big-endian 16-bit words, an odd last
 * byte padded with zero, on top of `initial`.
 */
export function checksumAdd(bytes: Uint8Array, initial = 0): number {
  let sum = initial;
  const even = bytes.length & ~1;
  for (let i = 0; i < even; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  if (even !== bytes.length) sum += (bytes[even] ?? 0) << 8;
  return sum;
}

/** The 16-bit checksum field for a sum: folded and complemented. */
export function checksumFold(sum: number): number {
  let folded = sum;
  // Not shifts: the sum of a 64 KiB super-packet stays below 2^53, but not below 2^31.
  while (folded > 0xffff) folded = (folded % 0x10000) + Math.floor(folded / 0x10000);
  return ~folded & 0xffff;
}

/** The Internet checksum of `bytes`; 0 if they contain their own right checksum. */
export const internetChecksum = (bytes: Uint8Array, initial = 0): number =>
  checksumFold(checksumAdd(bytes, initial));

/** The sum of the pseudo-header for `length` bytes of `protocol` between two addresses. */
export function pseudoHeaderSum(
  source: Address,
  destination: Address,
  protocol: number,
  length: number,
): number {
  const addresses = checksumAdd(addressBytes(destination), checksumAdd(addressBytes(source)));
  return addresses + protocol + (length & 0xffff) + (length >>> 16);
}
