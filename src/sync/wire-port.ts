/*
 * The source port of a new wire: random (RFC 6056: an off-path attacker has to guess it), outside
 * the range that the kernel itself draws from, and of no connection that the boundary knows.  The
 * size of the range bounds how many connections to one service of a peer can be moved.
 */
import type { Tuple } from '../wire/tuple.js';

/** Both ends included. */
export interface PortRange {
  first: number;
  last: number;
}

/** With half of the range in use, all but one in 2^32 searches end well. */
const DRAWS_MAX = 32;

/** A free wire to the same remote end as `wire`, from `wire.local`; undefined: none was found. */
export function drawWire(
  wire: Omit<Tuple, 'localPort'>,
  o: { ports: PortRange; random: (n: number) => Uint8Array; isTaken: (t: Tuple) => boolean },
): Tuple | undefined {
  const count = o.ports.last - o.ports.first + 1;
  for (let draw = 0; draw < DRAWS_MAX; draw++) {
    const localPort = o.ports.first + (word(o.random(4)) % count);
    const drawn = { ...wire, localPort };
    if (!o.isTaken(drawn)) return drawn;
  }
  return undefined;
}

/** Four random bytes as a number. */
export const word = (bytes: Uint8Array): number =>
  new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
