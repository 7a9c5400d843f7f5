/*
 * TCP sequence numbers: arithmetic modulo 2^32 (RFC 9293, section 3.4).
 *
 * A branded type, so that a sequence number is never compared with `<` by accident: half of
 * all connections would notice only when they wrap.
 */

/** A TCP sequence number: an integer in [0, 2^32). */
export type Seq = number & { readonly __brand: 'Seq' };

/** `n` modulo 2^32; `n` may be negative. */
export const seq = (n: number): Seq => (n >>> 0) as Seq;

/** `a + n` modulo 2^32; `n` may be negative. */
export const seqAdd = (a: Seq, n: number): Seq => seq(a + n);

/** `a - b` as a signed number of bytes in [-2^31, 2^31): how far `a` lies ahead of `b`. */
export const seqDiff = (a: Seq, b: Seq): number => (a - b) | 0;

/** Whether `a` lies strictly before `b`. */
export const seqBefore = (a: Seq, b: Seq): boolean => seqDiff(a, b) < 0;

/** Whether `a` lies strictly after `b`. */
export const seqAfter = (a: Seq, b: Seq): boolean => seqDiff(a, b) > 0;

/** Whether low <= a <= high, going upwards from `low`; the range may cross 2^32. */
export const seqWithin = (a: Seq, low: Seq, high: Seq): boolean => seq(a - low) <= seq(high - low);

/** The later of the two. */
export const seqMax = (a: Seq, b: Seq): Seq => (seqAfter(a, b) ? a : b);
