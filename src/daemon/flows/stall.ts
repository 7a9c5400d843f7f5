/* What to do about one flow that gets no answer while no address of ours has changed: a NAT or a
 * firewall on the way has lost its state, a NAT has another address, or the peer is away.  Pure.
 *
 *                unanswered for 1.75 s, or a doubtful reset
 *    silent ------------------------------------------------> trying
 *     ^ `-- kernel probes: stand in for the peer               |  `-- the same
 *     |                                                        |
 *     `--- no answer in 1.5 s, refused: give way, pause -------'     pause over: trying
 *
 *    any: something comes in, or the synchronization succeeds --> over (the driver forgets it)
 *
 * An attempt holds egress, so it must be shorter than the pause that the kernel makes anyway: begun
 * with a retransmission after 1.75 s, the next is at least as far away again.  It is ended by
 * whatever comes in on the old path, and between two attempts that one is tried as well.
 */

/** Retransmissions, the last of them clearly later than a few round trips. */
export const STALL_MS = 1_750;

/** Three SYNs have left by then. */
export const TRY_MS = 1_500;

/** After so many attempts in vain so long until the next: a peer that is away costs little. */
export const PAUSES_MS = [2_000, 4_000, 8_000, 16_000, 30_000] as const;

export type Stall =
  | { state: 'silent'; tries: number; paused: boolean }
  | { state: 'trying'; tries: number };

export type StallEvent =
  | { event: 'probed'; unansweredMs: number } // its own TCP has sent once more
  | { event: 'doubted' } // a reset that may not be about this flow
  | { event: 'timer' }
  | { event: 'refused' }; // the attempt was, by someone who knows nothing of the flow

export type StallEffect =
  | { effect: 'stand-in' } // answer in the peer's stead
  | { effect: 'try' } // synchronize from where it is
  | { effect: 'arm'; afterMs: number };

export interface StallStep {
  next: Stall;
  effects: StallEffect[];
}

export const newStall = (): Stall => ({ state: 'silent', tries: 0, paused: false });

/** The next state and what to do.  From trying to silent: the synchronization is ended. */
export function stepStall(stall: Stall, e: StallEvent): StallStep {
  switch (e.event) {
    case 'probed':
      return probed(stall, e.unansweredMs);
    case 'doubted':
      // The pause is for a path that says nothing; this one has spoken.
      return stall.state === 'trying' || stall.tries > 1 ? stay(stall) : attempt(stall.tries);
    case 'timer':
      return stall.state === 'trying' ? giveWay(stall.tries) : attempt(stall.tries);
    case 'refused':
      return stall.state === 'trying' ? giveWay(stall.tries) : stay(stall);
  }
}

function probed(stall: Stall, unansweredMs: number): StallStep {
  const due = stall.state === 'silent' && !stall.paused && unansweredMs >= STALL_MS;
  const { next, effects } = due ? attempt(stall.tries) : stay(stall);
  return { next, effects: [{ effect: 'stand-in' }, ...effects] };
}

const attempt = (tries: number): StallStep => ({
  next: { state: 'trying', tries: tries + 1 },
  effects: [{ effect: 'try' }, { effect: 'arm', afterMs: TRY_MS }],
});

const giveWay = (tries: number): StallStep => ({
  next: { state: 'silent', tries, paused: true },
  effects: [{ effect: 'arm', afterMs: pauseMs(tries) }],
});

const pauseMs = (tries: number): number =>
  PAUSES_MS[Math.min(tries, PAUSES_MS.length) - 1] ?? PAUSES_MS[0];

const stay = (stall: Stall): StallStep => ({ next: stall, effects: [] });
