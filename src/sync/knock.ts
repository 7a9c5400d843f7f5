/*
 * Somebody knocks where the peer of a moved flow was when it began: the peer, which has crashed and
 * lost all memory of the flow, or a stranger who has its address now.  Pure: what is asked of both.
 *
 * Plain TCP answers such a SYN with a challenge ACK, and a reset with its number ends the old
 * connection (RFC 5961, section 4).  So whoever knocks is asked the same: only a host that is there,
 * and knows nothing of a connection, answers.  That alone would let a stranger end the flow, so its
 * owner is asked as well, where it lives now, by a keepalive.
 */
import type { Flow, Mapping } from '../boundary/abi.gen.js';
import type { Packet } from '../wire/packet.js';
import { seq, seqAdd, seqBefore } from '../wire/seq.js';
import type { Tuple } from '../wire/tuple.js';
import { pureAck } from './segments.js';

/** To who knocks: an ACK of what was never sent. */
export const challenge = (kernel: Tuple, flow: Flow): Packet =>
  pureAck(kernel, { seq: seq(0), ack: seq(flow.knock), window: 0 });

/** To the peer, on its wire: one below what it has acknowledged, so that it answers. */
export function question(flow: Flow, mapping: Mapping): Packet {
  const ack = seqBefore(flow.rcvMax, flow.rcvNxt) ? flow.rcvMax : flow.rcvNxt;
  return pureAck(mapping.wire, {
    seq: seqAdd(flow.sndUna, mapping.sndDelta - 1),
    ack: seqAdd(ack, mapping.rcvDelta),
    window: flow.windowOut,
  });
}
