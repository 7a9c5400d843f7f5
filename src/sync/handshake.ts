/*
 * What both ends of a synchronization share: TIAck, epochs, bases and deltas, and the effects
 * by which the two machines (mover.ts, responder.ts) ask their driver (agent.ts) to act.
 *
 * One direction of the stream, offsets counted from the start of the flow:
 *
 *     sent and known to have arrived | sent, unknown          | not sent yet
 *   0 ------------------------------ SND.UNA ---------------- SND.NXT ----->
 *                                      ^---- TIAck of the peer ----^
 *
 * The new wire begins at TIAck: wire SEQ = new ISN + 1 + (offset - TIAck).  So it has no hole
 * and its first ACK is ISN + 1; a firewall on the new path sees an ordinary connection.
 *
 * Both TIAcks are fixed when they are sent, and the old path may go on delivering until the
 * CONFIRM commits.  Nothing breaks, because the base is only where the new wire's numbering
 * begins, never what a kernel believes:
 *  - late data from the old path: the receiver's kernel is ahead of the base, gets the same bytes
 *    again over the new wire, and drops them as the duplicates they are.  Its ACKs lie above
 *    what the new wire has carried: the data plane lowers them to that (they are cumulative);
 *  - late ACKs from the old path: none lies above the mover's TIAck, which was its highest ACK
 *    when it stopped sending (hold comes before the SYN).  An ACK of the *peer* may: then the
 *    SYN/ACK's TIAck is behind SND.UNA, and the mover asks again (mover.ts);
 *  - a segment below the base cannot be numbered on the new wire and need not be: its receiver
 *    has said that it has it.  The data plane drops it.
 */
import type { Flow, Mapping } from '../boundary/abi.gen.js';
import type { Packet } from '../wire/packet.js';
import { type Seq, seq, seqAdd, seqBefore, seqWithin } from '../wire/seq.js';
import type { Tuple } from '../wire/tuple.js';
import type { SyncReport } from './event.js';

/** One thing for the driver to do.  A list is done in order, and ends where one fails. */
export type Effect =
  | { effect: 'hold' }
  | { effect: 'release' }
  | { effect: 'map'; mapping: Mapping; epoch: number; unproven: boolean } // and held
  | { effect: 'set-wire'; wire: Tuple; state: 'syncing' }
  | { effect: 'set-wire'; wire: Tuple; state: 'pending'; ack: Seq } // of what follows our SYN/ACK
  | { effect: 'delete-wire'; wire: Tuple }
  | { effect: 'send'; packet: Packet } // to the network
  | { effect: 'refuse'; packet: Packet } // likewise, but not too often: it answers anyone
  | { effect: 'inject'; packet: Uint8Array } // into the own kernel
  | { effect: 'begin' } // draw, and tell the mover to begin
  | { effect: 'arm'; afterMs: number } // replaces what is armed
  | { effect: 'disarm' }
  | { effect: 'report'; report: SyncReport };

/** Why an effect failed; what comes after it in the list has not been done. */
export type EffectFailure = 'no-flow' | 'stale-epoch' | 'full' | 'foreign-wire';

/** Why a TI_RST was sent; a number of the wire format. */
export const REFUSAL = { tiack: 1, ended: 2 } as const;

/** What of the peer's stream has arrived here, counted from the start of the flow. */
export const tiackOf = (flow: Flow): number => seq(flow.rcvNxt - flow.irs - 1);

/** The peer's TIAck as a sequence number of ours: the first byte that it has not got. */
export const tiackSeq = (flow: Flow, tiack: number): Seq => seq(flow.iss + 1 + tiack);

/** Where a TIAck lies: only 'within' [SND.UNA, SND.NXT] can both ends go on. */
export function placeTiack(flow: Flow, tiack: number): 'behind' | 'within' | 'beyond' {
  const at = tiackSeq(flow, tiack);
  if (seqWithin(at, flow.sndUna, flow.sndNxt)) return 'within';
  return seqBefore(at, flow.sndUna) ? 'behind' : 'beyond';
}

/** The mapping that counts; undefined while wire and kernel view are the same. */
export const activeMapping = (flow: Flow): Mapping | undefined =>
  flow.active === 0 ? undefined : flow.mapping[flow.active - 1];

/** The tuple that is on the wire now. */
export const wireOf = (kernel: Tuple, flow: Flow): Tuple => activeMapping(flow)?.wire ?? kernel;

/** Index of the interface by which a flow leaves whatever its kernel's routes say; 0: none. */
export const wayOf = (flow: Flow): number => (activeMapping(flow)?.redirect ?? 0) >>> 1;

/** Whether epoch `a` is strictly above `b`: serial number arithmetic (RFC 1982), 16 bits. */
export function epochIsNewer(a: number, b: number): boolean {
  const ahead = (a - b) & 0xffff;
  return ahead > 0 && ahead < 0x8000;
}

/** The epoch `by` above all of `taken`.  Not 0, which means "never moved" in struct flow. */
export function epochAbove(taken: number[], by = 1): number {
  const highest = taken.reduce((a, b) => (epochIsNewer(b, a) ? b : a));
  const above = (highest + by) & 0xffff;
  return above === 0 ? 1 : above;
}

/** The two ends of a new wire as one of them sees them. */
export interface NewWire {
  wire: Tuple;
  /** Initial sequence numbers on the wire. */
  isn: { ours: Seq; theirs: Seq };
  /** `sent`: what we said that we have; `received`: what the other end said. */
  tiack: { sent: number; received: number };
  redirect: boolean;
  /** Index of the interface by which it leaves; undefined: the kernel's choice. */
  way?: number;
}

/**
 * Kernel view to wire view: our byte at offset o is SEQ iss + 1 + o to the kernel and
 * isn.ours + 1 + (o - tiack.received) on the wire.  Kernel ISNs never change, whatever the
 * number of moves before.
 */
export const mappingOf = (flow: Flow, n: NewWire): Mapping => ({
  wire: n.wire,
  sndDelta: seq(n.isn.ours - n.tiack.received - flow.iss),
  rcvDelta: seq(n.isn.theirs - n.tiack.sent - flow.irs),
  sndBase: tiackSeq(flow, n.tiack.received),
  rcvBase: seqAdd(flow.irs, 1 + n.tiack.sent),
  redirect: ((n.way ?? 0) << 1) | (n.redirect ? 1 : 0),
});
