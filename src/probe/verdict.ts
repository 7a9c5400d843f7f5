/*
 * What the answers to our SYNs mean.  From one end only: what cannot be told is `unknown`.
 *
 *     with TI_OPEN     without    TI_SYNC of nobody's flow     means
 *     -------------    -------    -------------------------    -----------------------------------
 *     TI_OPEN back     any        not asked                    movable
 *     ours reflected   any        not asked                    the host reflects what it is sent
 *     plain SYN/ACK    any        reset                        tiflow there; its option is not back
 *     plain SYN/ACK    any        SYN/ACK                      no tiflow, or not there
 *     nothing          SYN/ACK    reset                        tiflow there; its SYN/ACK is lost
 *     nothing          SYN/ACK    nothing                      SYNs with the option are lost
 *     reset            SYN/ACK    any                          SYNs with the option are refused
 *     any              reset      not asked                    closed: nothing can be told
 *     nothing          nothing    not asked                    nothing can be told
 */
import type { Answer } from './answer.js';

export interface Answers {
  /** to a SYN with TI_OPEN */
  open: Answer;
  /** to the same without */
  plain: Answer;
  /** to a TI_SYNC of a flow that nobody has; undefined: not asked */
  sync: Answer | undefined;
}

export type Passage = 'passes' | 'fails' | 'unknown';

/** Why a new connection would be plain TCP, or why that cannot be told. */
export type ProbeReason =
  | 'reflected'
  | 'no-psk'
  | 'no-option-back'
  | 'peer-plain'
  | 'syn-ack-lost'
  | 'syn-lost'
  | 'syn-refused'
  | 'closed'
  | 'unreachable'
  | 'no-answer';

export interface Verdict {
  /** whether a new connection would be a TI flow; null: cannot be told */
  movable: boolean | null;
  reason: ProbeReason | null;
  /** our option on the way there */
  there: Passage;
  /** the far end's option on the way back */
  back: Passage;
  peer: 'tiflow' | 'plain' | 'unknown';
}

/** Whether the third SYN has to be asked for a verdict. */
export const needsSync = (open: Answer, plain: Answer): boolean =>
  (open.kind === 'syn-ack' && open.open === 'none') ||
  (open.kind === 'none' && plain.kind === 'syn-ack');

/** `keyId`: the pre-shared key that this machine wants in common; undefined: none. */
export function judge(answers: Answers, keyId: number | undefined): Verdict {
  const { open, plain } = answers;
  switch (open.kind) {
    case 'syn-ack':
      return judgeAnswered(open, answers.sync, keyId);
    case 'none':
      if (plain.kind === 'syn-ack') return judgeLost(answers.sync);
      break;
    case 'reset':
      if (plain.kind === 'syn-ack') return plainBecause('syn-refused', 'fails', 'unknown');
      return untold('closed');
    case 'unreachable':
      return untold('unreachable');
  }
  if (plain.kind === 'reset') return untold('closed');
  return untold(plain.kind === 'unreachable' ? 'unreachable' : 'no-answer');
}

function judgeAnswered(
  open: Answer & { kind: 'syn-ack' },
  sync: Answer | undefined,
  keyId: number | undefined,
): Verdict {
  if (open.open === 'reflected') return plainBecause('reflected', 'passes', 'passes', 'plain');
  if (open.open === 'own') {
    const refused = keyId !== undefined && open.keyId !== keyId;
    if (refused) return plainBecause('no-psk', 'passes', 'passes', 'tiflow');
    return { movable: true, reason: null, there: 'passes', back: 'passes', peer: 'tiflow' };
  }
  if (sync?.kind === 'reset') return plainBecause('no-option-back', 'passes', 'unknown', 'tiflow');
  return plainBecause('peer-plain', 'unknown', 'unknown');
}

function judgeLost(sync: Answer | undefined): Verdict {
  if (sync?.kind === 'reset') return plainBecause('syn-ack-lost', 'passes', 'fails', 'tiflow');
  // One that was answered like any other: what loses SYNs is not our option, or not always.
  return plainBecause('syn-lost', sync?.kind === 'none' ? 'fails' : 'unknown', 'unknown');
}

const plainBecause = (
  reason: ProbeReason,
  there: Passage,
  back: Passage,
  peer: Verdict['peer'] = 'unknown',
): Verdict => ({ movable: false, reason, there, back, peer });

const untold = (reason: ProbeReason): Verdict => ({
  movable: null,
  reason,
  there: 'unknown',
  back: 'unknown',
  peer: 'unknown',
});
