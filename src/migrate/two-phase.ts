/* The two-phase log of a migration: what each side has written down, what follows from it, and which
 * word it can give.  Pure; test/migrate/two-phase.test.ts plays every order of losses, deaths and
 * reboots.  docs/decisions/0016.
 *
 *   source         prepared ──commit──► committed ──"running", "ran"──► moved ──► (no journal)
 *                     ▲                     │  └─ "unknown", or no word: it stays so
 *                     └──────"never"────────┘
 *                     └─► the VM goes on here ──► (no journal)
 *
 *   destination    prepared ──go──► committed ──QEMU continues──► ran ──done──► (no journal)
 *                     │                 └─ QEMU says no ─┐
 *                     └──────── abandoned, asked ────────┴──► never ──done──► (no journal)
 *
 * What is written is written before what follows is done, and survives a reboot.  So `prepared` at
 * the destination proves that the VM never ran there, and `committed` that nobody can know unless
 * its process lives.  No journal proves nothing: it may have been lost.
 */

export const SOURCE_PHASES = ['prepared', 'committed', 'moved'] as const;
export type SourcePhase = (typeof SOURCE_PHASES)[number];

export const DESTINATION_PHASES = ['prepared', 'committed', 'ran', 'never'] as const;
export type DestinationPhase = (typeof DESTINATION_PHASES)[number];

/** What the destination says of the VM: it runs there, has run and ended, never ran nor will. */
export const WORDS = ['running', 'ran', 'never', 'unknown'] as const;
export type Word = (typeof WORDS)[number];

export type DestinationEvent =
  | { event: 'go' }
  /** What QEMU answers to `continue`; `silent`: nothing. */
  | { event: 'continued' | 'refused' | 'silent' }
  /** The channel is gone, and with it the order to go on. */
  | { event: 'abandoned' }
  /** The source takes it back, and will not ask any more. */
  | { event: 'taken-back' }
  /** The source asks; `alive`: the process of the VM's QEMU lives. */
  | { event: 'asked'; alive: boolean }
  /** The source has heard the word. */
  | { event: 'done' };

export type DestinationEffect =
  | { write: DestinationPhase }
  /** `end`: kill QEMU, then remove all that was made for it.  `forget`: the journal. */
  | { do: 'continue' | 'end' | 'forget' }
  | { say: Word };

/** To be done in this order, each before the next. */
export function destinationStep(
  phase: DestinationPhase | undefined,
  e: DestinationEvent,
): DestinationEffect[] {
  switch (e.event) {
    case 'go':
      return onGo(phase);
    case 'continued':
      return phase === 'committed' ? [{ write: 'ran' }, { say: 'running' }] : [];
    case 'refused':
      return phase === 'committed' ? [...ends(phase), { say: 'never' }] : [];
    case 'silent':
      return [{ say: 'unknown' }];
    case 'abandoned':
      return phase === 'prepared' || phase === 'never' ? ends(phase) : [];
    case 'taken-back':
      return phase === 'prepared' || phase === 'never' ? [...ends(phase), { do: 'forget' }] : [];
    case 'asked':
      return onAsked(phase, e.alive);
    case 'done':
      return phase === 'ran' || phase === 'never' ? [{ do: 'forget' }] : [];
  }
}

function onGo(phase: DestinationPhase | undefined): DestinationEffect[] {
  if (phase === 'prepared') return [{ write: 'committed' }, { do: 'continue' }];
  // The same word twice.
  if (phase === 'committed') return [{ do: 'continue' }];
  return onAsked(phase, true);
}

function onAsked(phase: DestinationPhase | undefined, alive: boolean): DestinationEffect[] {
  switch (phase) {
    case undefined:
      return [{ say: 'unknown' }];
    case 'prepared':
    case 'never':
      return [...ends(phase), { say: 'never' }];
    case 'committed':
      return alive ? [{ do: 'continue' }] : [{ say: 'unknown' }];
    case 'ran':
      return [{ say: alive ? 'running' : 'ran' }];
  }
}

/* `never` is written when nothing is left that could run. */
function ends(phase: DestinationPhase): DestinationEffect[] {
  return phase === 'never' ? [{ do: 'end' }] : [{ do: 'end' }, { write: 'never' }];
}

export type SourceEvent =
  | { event: 'commit' }
  /** Whoever acts on it now: the migration itself after a loss, its guard, an operator. */
  | { event: 'recover' }
  | { event: 'heard'; word: Word };

export type SourceEffect =
  | { write: SourcePhase }
  /** `done`: the word has been heard, and is not needed any more. */
  | { send: 'go' | 'ask' | 'done' }
  /** `resume`: the VM runs here again.  `release`: its QEMU here ends. */
  | { do: 'resume' | 'release' | 'forget' };

/** What the destination says cannot be: a journal was lost or altered.  Nothing is done. */
export class Contradiction extends Error {
  override readonly name = 'Contradiction';
}

/** To be done in this order, each before the next.  Throws Contradiction. */
export function sourceStep(phase: SourcePhase, e: SourceEvent): SourceEffect[] {
  if (e.event === 'commit') {
    return phase === 'prepared' ? [{ write: 'committed' }, { send: 'go' }] : [];
  }
  if (e.event === 'recover') {
    if (phase === 'committed') return [{ send: 'ask' }];
    return [{ do: phase === 'moved' ? 'release' : 'resume' }, { send: 'ask' }];
  }
  return onWord(phase, e.word);
}

function onWord(phase: SourcePhase, word: Word): SourceEffect[] {
  if (phase === 'committed') {
    if (word === 'unknown') return [];
    if (word === 'never') return [{ write: 'prepared' }, { do: 'resume' }, ...OVER];
    return [{ write: 'moved' }, { do: 'release' }, ...OVER];
  }
  const ran = word === 'running' || word === 'ran';
  if (word !== 'unknown' && ran !== (phase === 'moved')) {
    const there = ran ? 'has run at the destination' : 'has never run at the destination';
    throw new Contradiction(`the VM ${there}, which cannot be: here it is ${phase}`);
  }
  return [...OVER];
}

const OVER = [{ send: 'done' }, { do: 'forget' }] as const;
