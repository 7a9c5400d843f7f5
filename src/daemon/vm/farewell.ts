/* How the two ends of a legacy connection are told that it has stayed behind when its VM moved:
 * each by a reset in the other's name.  Pure.
 *
 * A reset must carry exactly the next sequence number that its receiver expects (RFC 5961, section 3.2),
 * and nobody has counted along.  But the guest knows, and says it when it is provoked: it answers a
 * SYN on an established connection with a challenge ACK (section 4.2).
 */

import type { Address } from '../../wire/address.js';
import { decodePacket, encodePacket, type Packet } from '../../wire/packet.js';
import { type Seq, seq, seqAdd } from '../../wire/seq.js';
import type { Tuple } from '../../wire/tuple.js';

const NOTHING = new Uint8Array(0);

/** A SYN to the guest, as from its peer, to which it will answer with where it is. */
export const provocation = (t: Tuple): Uint8Array =>
  encodePacket({
    source: t.remote,
    sourcePort: t.remotePort,
    destination: t.local,
    destinationPort: t.localPort,
    flags: 'S',
    seq: seq(0),
    ack: seq(0),
    window: 0,
    options: [],
    payload: NOTHING,
  });

export interface Farewell {
  toGuest: Uint8Array;
  toPeer: Uint8Array[];
}

/**
 * The resets for a segment of the guest, which may be cut short; `former`: the guest's address as
 * the peer knows it, without which the peer cannot be told.  undefined: it is no segment, or one
 * that needs no answer (a reset, or no ACK).
 */
export function farewell(segment: Uint8Array, former: Address | undefined): Farewell | undefined {
  const packet = decodePacket(segment, { truncated: true });
  if ('error' in packet || packet.flags.includes('R') || !packet.flags.includes('A')) {
    return undefined;
  }
  const end = seqAdd(packet.seq, packet.payload.length + missingBytes(segment));
  // The peer may have what the guest sends again, or not; of a FIN all or all but that.
  const fin = packet.flags.includes('F') ? [seqAdd(end, 1)] : [];
  const nexts = [...new Set([packet.seq, end, ...fin])];
  return {
    toGuest: encodePacket(reset(turned(packet), packet.ack)),
    toPeer:
      former === undefined
        ? []
        : nexts.map((next) => encodePacket(reset({ ...packet, source: former }, next))),
  };
}

/* By how much it was cut short: the data plane hands up little more than the headers. */
function missingBytes(packet: Uint8Array): number {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  const whole = view.getUint8(0) >> 4 === 4 ? view.getUint16(2) : 40 + view.getUint16(4);
  return Math.max(0, whole - packet.length);
}

const turned = (p: Packet): Packet => ({
  ...p,
  source: p.destination,
  sourcePort: p.destinationPort,
  destination: p.source,
  destinationPort: p.sourcePort,
});

const reset = (between: Packet, next: Seq): Packet => ({
  ...between,
  flags: 'R',
  seq: next,
  ack: seq(0),
  window: 0,
  options: [],
  payload: NOTHING,
});
