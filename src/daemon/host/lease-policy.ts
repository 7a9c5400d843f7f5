/*
 * What is done about the addresses of a link when their verification has spoken: pure.
 *
 *   owner     happened   same    other   unknown      no address
 *   nobody    any        leave   leave   leave        leave
 *   manager   carrier    leave   wait    leave        leave       it has seen the carrier itself
 *             resumed    leave   ask     look again   leave
 *   client    carrier    leave   ask     look again   ask         nothing can be lost
 *             resumed    leave   ask     look again   leave
 *   command   carrier    leave   ask     ask          ask         nobody else knows what it serves
 *             resumed    leave   ask     look again   leave
 *
 * So no address is given up because nobody answers, and none of a network manager for what it sees by
 * itself; a sign that the machine was moved, which may be false, leads to questions only.  To wait is to
 * look again as if the machine had been moved: a manager that still has an address which is refused
 * has not seen it (NetworkManager, if the carrier was away for less than 6 s).
 */
import type { LeaseOwner } from '../../link/lease-owner.js';
import type { Verdict } from '../../link/verification.js';

/** 'command': the configuration names one; it goes first. */
export type OwnerKind = 'nobody' | 'command' | LeaseOwner['kind'];

/** 'carrier': it came; 'resumed': the machine may have been moved with its links up. */
export type Happening = 'carrier' | 'resumed';

export type Action = 'leave' | 'ask' | 'look again' | 'wait';

export function actionFor(
  owner: OwnerKind,
  happened: Happening,
  verdict: Verdict | 'no address',
): Action {
  if (owner === 'nobody' || verdict === 'same') return 'leave';
  const isSeen = happened === 'carrier';
  if (owner === 'manager' && isSeen) return verdict === 'other' ? 'wait' : 'leave';
  if (verdict === 'other') return 'ask';
  if (verdict === 'no address') return isSeen ? 'ask' : 'leave';
  return owner === 'command' && isSeen ? 'ask' : 'look again';
}

/** How often, and when last, an owner was asked in vain. */
export interface Askings {
  inVain: number;
  lastMs: number;
}

const BACKOFF_MS = 2_000;
const BACKOFF_MS_MAX = 300_000;

/** What an asking may bring about itself: the carrier of a card that is set up anew. */
const ECHO_MS = 5_000;

/** For how long it must not be asked yet; 0: now. */
export function pauseMs(askings: Askings | undefined, nowMs: number): number {
  if (askings === undefined) return 0;
  const backoffMs = Math.min(BACKOFF_MS * 2 ** (askings.inVain - 1), BACKOFF_MS_MAX);
  return Math.max(0, askings.lastMs + backoffMs - nowMs);
}

/** Whether a change of the carrier at this moment may well be our own doing. */
export const isEcho = (askings: Askings | undefined, nowMs: number): boolean =>
  askings !== undefined && nowMs - askings.lastMs < ECHO_MS;

const LOOK_AGAIN_MS = [4_000, 8_000, 16_000, 32_000, 64_000, 64_000, 64_000];

/** When to verify again after the nth time, from 0; undefined: no more, until something happens. */
export const lookAgainMs = (looks: number): number | undefined => LOOK_AGAIN_MS[looks];
