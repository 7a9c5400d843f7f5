/*
 * What the own kernel hears in the peer's stead while the peer cannot be heard itself.  Pure.
 *
 * A kernel that gets no answer to data, probes or keepalives gives the connection up after a time
 * of its own.  A peer with a closed window is alive, however long it stays closed (RFC 9293,
 * section 3.8.6.1), so that is what the stand-in says.  Measured: with tcp_retries2 = 3 it keeps a
 * socket for as long as one likes, and the kick works while the window is closed; nothing heard for
 * 240 s ends it all the same, but each probe is answered, and those are never 120 s apart.
 */
import type { Flow } from '../boundary/abi.gen.js';
import type { Packet } from '../wire/packet.js';
import { type Seq, seqAdd, seqMax } from '../wire/seq.js';
import { type Tuple, tupleReverse } from '../wire/tuple.js';
import { pureAck } from './segments.js';

/**
 * The SEQ of what is said in the peer's stead: below the last ACK that the kernel believes it has sent
 * it would be out of window, and dropped.  Not the highest ACK that we saw: what was sent while the
 * link was down never got here.  No ACK is above the end of the highest segment that came in, by
 * this wire or a former one, and that one was in window.
 */
export function seqInStead(flow: Flow): Seq {
  const last = seqMax(flow.rcvNxt, flow.rcvMax);
  return flow.active === 0 ? last : seqMax(last, flow.rcvBefore);
}

/** An ACK of nothing new that closes the window, in kernel view. */
export const closedWindow = (kernel: Tuple, flow: Flow): Packet =>
  pureAck(tupleReverse(kernel), {
    seq: seqInStead(flow),
    ack: flow.sndUna,
    window: 0,
  });

/** The same with the window that the peer has told last: an ACK that it has sent before, perhaps. */
export const acknowledgement = (kernel: Tuple, flow: Flow): Packet => ({
  ...closedWindow(kernel, flow),
  window: flow.windowIn,
});

/**
 * A keepalive as of the peer, in kernel view: the kernel answers it with an ACK to the peer, which
 * so learns that the path works and how wide the window is.
 */
export const keepalive = (kernel: Tuple, flow: Flow): Packet =>
  pureAck(tupleReverse(kernel), {
    seq: seqAdd(flow.rcvNxt, -1),
    ack: flow.sndUna,
    window: flow.windowIn,
  });
