/*
 * TCP flags between the byte of the header and letters.
 *
 * The order of the letters is the one in which people say them (SYN first: 'SA', 'FA', 'PA'),
 * not the order of the bits.
 */

/** All letters, in the order in which they are written. */
export const FLAG_LETTERS = 'SFRPAUEC';

const BIT: Record<string, number> = { F: 1, S: 2, R: 4, P: 8, A: 16, U: 32, E: 64, C: 128 };

const TEXTS: string[] = Array.from({ length: 256 }, (_, bits) =>
  [...FLAG_LETTERS].filter((letter) => (bits & (BIT[letter] ?? 0)) !== 0).join(''),
);

/** The letters of the flags byte `bits`. */
export const flagsFromBits = (bits: number): string => TEXTS[bits & 0xff] ?? '';

/** The flags byte of `flags`.  Throws TypeError on a letter that is no flag. */
export function flagsToBits(flags: string): number {
  let bits = 0;
  for (const letter of flags) {
    const bit = BIT[letter];
    if (bit === undefined) throw new TypeError(`no TCP flag '${letter}' in '${flags}'`);
    bits |= bit;
  }
  return bits;
}
