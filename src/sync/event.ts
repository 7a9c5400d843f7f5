/*
 * What the synchronization agent tells about its work: the timeline of a move is made of these.
 */
import type { Tuple } from '../wire/tuple.js';

/** Why an attempt came to nothing. */
export type FailureReason =
  | 'no-answer' // no SYN/ACK in time
  | 'refused' // bare RST: no such flow there, or no boundary
  | 'ghost' // SYN/ACK from something that knows nothing of the flow
  | 'tiack-behind' // the old path still delivered: asked again
  | 'invalid-tiack' // the peer has more than was ever sent: one of the two has gone back in time
  | 'reset' // valid TI_RST
  | 'unconfirmed' // SYN/ACK came, but nothing after the CONFIRM
  | 'peer-restarted' // the peer has forgotten the handshake that we confirm
  | 'yielded' // the other end moves as well, and goes first
  | 'stale-epoch' // the other end moved meanwhile
  | 'table-full'
  | 'foreign-wire' // of another address family
  | 'no-port' // no free source port
  | 'no-psk' // the flow was opened with a pre-shared key that is not configured
  | 'send'; // the system refused to send; `detail` says why

/** Why a SYN or a CONFIRM moved nothing. */
export type RefusalReason =
  | 'unknown-flow'
  | 'bad-mac'
  | 'stale-epoch'
  | 'invalid-tiack'
  | 'ended' // the flow was reset here
  | 'no-psk'
  | 'table-full'
  | 'unknown-candidate'
  | 'tuple-in-use'
  | 'foreign-wire'; // not one that the flow could be on

export type SyncReport =
  | { type: 'syn-sent'; wire: Tuple; epoch: number; tries: number }
  | { type: 'syn-ack-received'; wire: Tuple; epoch: number; tiack: number }
  | { type: 'confirm-sent'; wire: Tuple; epoch: number; tries: number }
  | { type: 'mapped'; wire: Tuple; epoch: number }
  | { type: 'kicked'; icmps: number }
  | { type: 'proven'; wire: Tuple; epoch: number }
  | { type: 'failed'; reason: FailureReason; final: boolean; detail?: string }
  | { type: 'candidate'; wire: Tuple; epoch: number; tiack: number }
  | { type: 'committed'; wire: Tuple; epoch: number }
  | { type: 'refused'; reason: RefusalReason; wire: Tuple };

/**
 * A report about one flow.  `at`: milliseconds of the agent's clock, monotonic.  `kernel` of a
 * refusal of an unknown flow is the tuple on which the packet came.
 */
export type SyncEvent = SyncReport & { kernel: Tuple; at: number };
