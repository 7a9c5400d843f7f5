/*
 * The mover: the end whose address changed.  Pure: one step from state and event to the next
 * state and the effects; agent.ts performs them.  From outside the handshake is that of RFC 9293,
 * section 3.5.
 *
 *              begin             SYN/ACK valid               packet over the new wire
 *   waiting ---------> syn-sent ---------------> confirming --------------------------> proven
 *    | ^  ^             | ^   |    map, CONFIRM   | ^    |     kick, if it is due still
 *    `-'  |       timer:| |   |                   `-'    |
 *  timer: |    same SYN `-'   |    timer: kick if due,   |
 *  begin  |                   |    else CONFIRM;         |
 *         |                   |    same SYN/ACK: CONFIRM |
 *         |<------------------'                          |
 *         |  refused, ghost, TIAck behind, yield,        |
 *         |  superseded, SYN_TRIES_MAX                   |
 *         |<---------------------------------------------'
 *            refused, peer restarted, superseded, map failed, CONFIRM_TRIES_MAX
 *
 *   syn-sent, confirming: valid TI_RST, or TIAck beyond what was ever sent --> failed
 *
 * The kick is due when the flow is proven, or after a lead that the peer mostly needs to commit,
 * whatever comes first: data that overtakes that is lost.  An attempt that ends before takes its
 * kick along, for the next one has its own; who ends the synchronization gets it from duesOf().
 *
 * Where the old path works (make before break) the first SYN leaves while that goes on: nothing is
 * held.  If nothing has gone either way meanwhile, its answer commits; else the answer says that the new
 * way works, and one more SYN is sent, for whose round trip egress is held.
 *
 * Each begin draws a new port, ISN, nonce and TIAck, and takes an epoch above all before it:
 * whatever the peer has committed or still holds of an older attempt, the new one is newer.
 * When to give up is not decided here: a failure is reported, and the next attempt follows.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Flow } from '../boundary/abi.gen.js';
import type { Packet } from '../wire/packet.js';
import { seqAdd } from '../wire/seq.js';
import {
  type Attempt,
  acceptance,
  type Draw,
  judgeAnswer,
  judgeReset,
  newAttempt,
  refusalOf,
  validSyncAck,
} from './attempt.js';
import type { FailureReason } from './event.js';
import type { Effect, EffectFailure } from './handshake.js';
import type { SyncAck } from './keys.js';
import { commitEffects } from './kick.js';
import { resetOf } from './segments.js';

/** On a quick path a SYN costs one round trip; then the pace of SYNs that nobody answers. */
export const BACKOFF_MS = [250, 500, 1000, 2000] as const;

/** After so many, the port and the epoch are changed: either may be what is in the way. */
export const SYN_TRIES_MAX = 5;
export const CONFIRM_TRIES_MAX = 5;

/** So often a SYN is sent while a path that works is held for its answer: 750 ms. */
const HELD_TRIES_MAX = 2;

/** How fast epochs may go up: 2^15 of them must not come together while a flow can be away. */
const EPOCH_STEP_MAX = 4;

/** From the CONFIRM to the kick: the peer's daemon takes 1 to 3 ms, so many more for each flow. */
export const KICK_LEAD_MS = 5;
export const KICK_LEAD_PER_FLOW_MS = 0.5;

export type Mover =
  /**
   * `failures` in a row set the pace; epochs up to `newest` are used up.  `answered`: by a peer that
   * the old path had told more meanwhile.
   */
  | { state: 'waiting'; failures: number; newest: number | undefined; answered: boolean }
  /** `gentle`: the old path works, and is not to be held for long. */
  | { state: 'syn-sent'; attempt: Attempt; tries: number; failures: number; gentle: boolean }
  | {
      state: 'confirming';
      attempt: Attempt;
      syncAck: SyncAck;
      confirm: Packet;
      tries: number;
      /** Not done yet; it is when the timer fires that was armed for `leadMs`. */
      kick: Effect[];
      leadMs: number;
    }
  | { state: 'proven' }
  | { state: 'failed'; why: FailureReason };

export type MoverEvent =
  | { event: 'begin'; draw: Draw }
  | { event: 'obstacle'; reason: FailureReason } // the driver cannot draw what begin needs
  | ({ event: 'packet' } & Answered)
  | { event: 'timer' }
  | { event: 'proven' }
  | { event: 'refused' } // a bare RST on the wire that waits for its proof
  | { event: 'yield' } // the other end moves as well, and goes first
  | { event: 'superseded' } // the other end has moved: our attempt goes to where it was
  | { event: 'effect-failed'; why: Exclude<EffectFailure, 'no-flow'> };

/** A packet on the attempt's wire, and how things are when it comes. */
export interface Answered {
  packet: Packet;
  flow: Flow;
  /** For how long nothing has come in on the flow. */
  silentMs: number;
  /** How many other flows wait for their answer at this moment: the peer has as much to do. */
  waiting: number;
}

export interface MoverStep {
  next: Mover;
  effects: Effect[];
}

type Waiting = Extract<Mover, { state: 'waiting' }>;
type SynSent = Extract<Mover, { state: 'syn-sent' }>;
type Confirming = Extract<Mover, { state: 'confirming' }>;

/** The mover before its first attempt; `newest`: the epoch of one that it replaces. */
export const newMover = (newest?: number): Mover => ({
  ...{ state: 'waiting', failures: 0, newest, answered: false },
});

/** The newest epoch that this mover has used. */
export function newestEpoch(mover: Mover): number | undefined {
  if (mover.state === 'waiting') return mover.newest;
  return 'attempt' in mover ? mover.attempt.epoch : undefined;
}

/** The next state and what to do.  An event that means nothing in a state changes nothing. */
export function stepMover(mover: Mover, event: MoverEvent): MoverStep {
  switch (mover.state) {
    case 'waiting':
      return stepWaiting(mover, event);
    case 'syn-sent':
      return stepSynSent(mover, event);
    case 'confirming':
      return stepConfirming(mover, event);
    case 'proven':
    case 'failed':
      return stay(mover);
  }
}

function stepWaiting(mover: Waiting, event: MoverEvent): MoverStep {
  switch (event.event) {
    case 'begin': {
      const { failures, newest, answered } = mover;
      const attempt = newAttempt(event.draw, newest, epochStep(failures));
      return sendSyn({ state: 'syn-sent', attempt, tries: 0, failures, gentle: answered }, [
        { effect: 'set-wire', wire: attempt.wire, state: 'syncing' },
      ]);
    }
    case 'obstacle':
      return again(mover, event.reason);
    case 'timer':
      return { next: mover, effects: [{ effect: 'begin' }] };
    case 'superseded':
      return { next: { ...mover, failures: 0 }, effects: [{ effect: 'begin' }] };
    default:
      return stay(mover);
  }
}

function stepSynSent(mover: SynSent, event: MoverEvent): MoverStep {
  switch (event.event) {
    case 'packet':
      return answered(mover, event);
    case 'timer':
      if (mover.gentle && mover.attempt.held && mover.tries >= HELD_TRIES_MAX) return letGo(mover);
      if (mover.tries >= SYN_TRIES_MAX) return again(mover, 'no-answer', { atOnce: true });
      return sendSyn({ ...mover, failures: mover.failures + 1 }, [failed('no-answer')]);
    case 'yield':
      return again(mover, 'yielded');
    case 'superseded':
      return again(mover, 'stale-epoch', { atOnce: true });
    case 'effect-failed':
      return again(mover, event.why === 'full' ? 'table-full' : event.why);
    default:
      return stay(mover);
  }
}

function sendSyn(mover: SynSent, before: Effect[]): MoverStep {
  const { wire, epoch, syn } = mover.attempt;
  const tries = mover.tries + 1;
  return {
    next: { ...mover, tries },
    effects: [
      ...before,
      { effect: 'send', packet: syn },
      { effect: 'arm', afterMs: backoffMs(mover.failures) },
      { effect: 'report', report: { type: 'syn-sent', wire, epoch, tries } },
    ],
  };
}

function answered(mover: SynSent, o: Answered): MoverStep {
  const { packet, flow } = o;
  const verdict = judgeAnswer(mover.attempt, packet, flow);
  switch (verdict.answer) {
    case 'none':
      return stay(mover);
    case 'refused':
      return again(mover, 'refused');
    case 'reset':
      return fail(mover, 'reset');
    case 'overtaken':
      return askAgain(mover, packet);
    case 'ghost':
    case 'tiack-behind':
      return again(mover, verdict.answer, { send: resetOf(packet) });
    case 'invalid-tiack':
      return fail(mover, 'invalid-tiack', refusalOf(mover.attempt, packet));
    case 'accepted':
      return accept(mover, { ...o, syncAck: verdict.syncAck });
  }
}

function accept({ attempt }: SynSent, o: Answered & { syncAck: SyncAck }): MoverStep {
  const { kernel, wire, epoch } = attempt;
  const { tiack } = o.syncAck;
  const { confirm, mapping } = acceptance(attempt, o);
  const { flow, silentMs, syncAck } = o;
  const c = { kernel, flow, mapping, epoch, unproven: true, announce: confirm, silentMs };
  const { commit, kick } = commitEffects(c);
  const leadMs = KICK_LEAD_MS + KICK_LEAD_PER_FLOW_MS * o.waiting;
  return {
    next: { state: 'confirming', attempt, syncAck, confirm, tries: 1, kick, leadMs },
    effects: [
      { effect: 'report', report: { type: 'syn-ack-received', wire, epoch, tiack } },
      ...commit,
      { effect: 'arm', afterMs: leadMs },
      { effect: 'report', report: { type: 'confirm-sent', wire, epoch, tries: 1 } },
    ],
  };
}

function stepConfirming(mover: Confirming, event: MoverEvent): MoverStep {
  const { wire, epoch } = mover.attempt;
  switch (event.event) {
    case 'packet':
      return answeredAgain(mover, event.packet);
    case 'timer':
      return mover.kick.length > 0 ? kick(mover) : confirmOnTimer(mover);
    case 'proven': {
      const report = { type: 'proven', wire, epoch } as const;
      return {
        next: { state: 'proven' },
        effects: [...mover.kick, { effect: 'disarm' }, { effect: 'report', report }],
      };
    }
    case 'refused':
      return again(mover, 'refused');
    case 'superseded':
      return again(mover, 'stale-epoch', { atOnce: true });
    case 'effect-failed':
      return mapFailed(mover, event.why);
    default:
      return stay(mover);
  }
}

/** The lead is over; the timer goes on as if it had been armed for the CONFIRM alone. */
const kick = (mover: Confirming): MoverStep => ({
  next: { ...mover, kick: [] },
  effects: [...mover.kick, { effect: 'arm', afterMs: backoffMs(0) - mover.leadMs }],
});

function confirmOnTimer(mover: Confirming): MoverStep {
  if (mover.tries >= CONFIRM_TRIES_MAX) return again(mover, 'unconfirmed', { atOnce: true });
  const { next, effects } = repeatConfirm({ ...mover, tries: mover.tries + 1 });
  return { next, effects: [...effects, { effect: 'arm', afterMs: backoffMs(mover.tries) }] };
}

/** The peer repeats its SYN/ACK until it has a CONFIRM, or says that it cannot go on. */
function answeredAgain(mover: Confirming, packet: Packet): MoverStep {
  const { attempt, confirm, syncAck } = mover;
  if (packet.flags.includes('R')) {
    if (packet.seq !== confirm.ack) return stay(mover);
    const { answer } = judgeReset(attempt, packet);
    if (answer === 'overtaken') return again(mover, 'tiack-behind', { atOnce: true });
    return answer === 'reset' ? fail(mover, answer) : again(mover, answer);
  }
  if (!packet.flags.startsWith('SA') || packet.ack !== confirm.seq) return stay(mover);
  const isSame = packet.options.some((o) => isDeepStrictEqual(o, syncAck));
  if (isSame && seqAdd(packet.seq, 1) === confirm.ack) return repeatConfirm(mover);
  if (validSyncAck(attempt, packet) === undefined) return stay(mover);
  return again(mover, 'peer-restarted', { atOnce: true });
}

function repeatConfirm(mover: Confirming): MoverStep {
  const { wire, epoch } = mover.attempt;
  const report = { type: 'confirm-sent', wire, epoch, tries: mover.tries } as const;
  const effects: Effect[] = [
    { effect: 'send', packet: mover.confirm },
    { effect: 'report', report },
  ];
  return { next: mover, effects };
}

/** The mapping was not committed, so its wire is still ours to delete. */
function mapFailed(mover: Confirming, why: Exclude<EffectFailure, 'no-flow'>): MoverStep {
  const unused: Effect = { effect: 'delete-wire', wire: mover.attempt.wire };
  const { next, effects } =
    why === 'full' ? again(mover, 'table-full') : again(mover, why, { atOnce: true });
  return { next, effects: [unused, ...effects] };
}

/** The new way works: once more, and this time nothing leaves until the answer is there. */
function askAgain(mover: SynSent, packet: Packet): MoverStep {
  const dismissed = packet.flags.includes('R') ? [] : sending(resetOf(packet));
  return {
    next: { state: 'waiting', failures: 0, newest: newestEpoch(mover), answered: true },
    effects: [...dismissed, ...abandon(mover), { effect: 'disarm' }, { effect: 'begin' }],
  };
}

/** It has ceased to work just now: what waits goes by the old way. */
function letGo(mover: SynSent): MoverStep {
  const { next, effects } = again(mover, 'no-answer');
  return { next, effects: [{ effect: 'release' }, ...effects] };
}

/** This attempt is over; the next begins after a pause, or at once. */
function again(
  mover: Waiting | SynSent | Confirming,
  reason: FailureReason,
  o: { atOnce?: boolean; send?: Packet } = {},
): MoverStep {
  const failures = mover.state === 'confirming' ? 0 : mover.failures;
  const then: Effect[] = o.atOnce
    ? [{ effect: 'disarm' }, { effect: 'begin' }]
    : [{ effect: 'arm', afterMs: backoffMs(failures) }];
  return {
    next: {
      ...{ state: 'waiting', failures: failures + 1, newest: newestEpoch(mover) },
      answered: false,
    },
    effects: [...sending(o.send), ...abandon(mover), failed(reason), ...then],
  };
}

/** The end: no attempt can succeed.  The peer is told if that is news to it. */
function fail(mover: SynSent | Confirming, why: FailureReason, send?: Packet): MoverStep {
  return {
    next: { state: 'failed', why },
    effects: [
      ...sending(send),
      ...abandon(mover),
      { effect: 'disarm' },
      { effect: 'report', report: { type: 'failed', reason: why, final: true } },
    ],
  };
}

/** What ends the attempt on this side.  Confirming, its wire is the flow's: not ours to delete. */
export const abandon = (mover: Mover): Effect[] =>
  mover.state === 'syn-sent' ? [{ effect: 'delete-wire', wire: mover.attempt.wire }] : [];

/**
 * What lets a flow go on whose synchronization is ended from outside.  Mapped, its kernel must
 * hear of the peer's ACK, or it would send for ever what lies below the base.
 */
export const duesOf = (mover: Mover): Effect[] => [
  { effect: 'release' },
  ...(mover.state === 'confirming' ? mover.kick : []),
];

const sending = (packet: Packet | undefined): Effect[] =>
  packet === undefined ? [] : [{ effect: 'send', packet }];

const failed = (reason: FailureReason): Effect => ({
  effect: 'report',
  report: { type: 'failed', reason, final: false },
});

const backoffMs = (failures: number): number =>
  BACKOFF_MS[Math.min(failures, BACKOFF_MS.length - 1)] ?? BACKOFF_MS[3];

/**
 * The other end may be ahead by as many epochs as it has committed without our hearing of it, and
 * takes none below.
 */
const epochStep = (failures: number): number =>
  Math.min(EPOCH_STEP_MAX, 2 ** Math.max(0, failures - 1));

const stay = (mover: Mover): MoverStep => ({ next: mover, effects: [] });
