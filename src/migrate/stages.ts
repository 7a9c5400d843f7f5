/* A linear process with a way back: an ordered table, and what a failure at any row means.
 *
 *   check → address → ... → continue │ announce → release
 *     ◄──── undo, in reverse ──────  │  no way back: the VM runs elsewhere
 *                             commit point
 *
 * Pure: what a stage does comes in with the table.
 */

export interface Stage<Name extends string = string> {
  name: Name;
  /** `signal`: the user has asked to stop; a stage that waits must listen to it. */
  run(signal: AbortSignal): Promise<void>;
  /** Also called when `run` failed half way; must find out by itself what there is to undo. */
  undo?(): Promise<void>;
  /** `commit`: too late to abort; `after`: a failure is told, nothing is undone. */
  point?: 'commit' | 'after';
}

export interface StageEvent<Name extends string = string> {
  stage: Name;
  event: 'begin' | 'done' | 'failed' | 'undone';
  /** Why it failed, or why it could not be undone. */
  message?: string;
}

export interface StageFailure<Name extends string = string> {
  stage: Name;
  error: Error;
}

export type Outcome<Name extends string = string> =
  | { result: 'done'; unfinished: StageFailure<Name>[] }
  | { result: 'undone'; failed: StageFailure<Name>; notUndone: StageFailure<Name>[] }
  /** Nobody knows whether the commit took place: nothing was undone, nothing was finished. */
  | { result: 'undecided'; failed: StageFailure<Name> };

/** Thrown by the stage at the commit point when neither going on nor going back is safe. */
export class Undecided extends Error {
  override readonly name = 'Undecided';
}

export class Aborted extends Error {
  override readonly name = 'Aborted';
  constructor(message = 'interrupted') {
    super(message);
  }
}

/** Rejects when the user asks to stop. */
export function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(new Aborted());
    signal.addEventListener('abort', () => reject(new Aborted()), { once: true });
  });
}

/** Runs the table.  Never throws: what failed is in the outcome. */
export async function runStages<Name extends string>(
  stages: readonly Stage<Name>[],
  o: { signal: AbortSignal; emit(event: StageEvent<Name>): void },
): Promise<Outcome<Name>> {
  const unfinished: StageFailure<Name>[] = [];
  for (const [at, stage] of stages.entries()) {
    o.emit({ stage: stage.name, event: 'begin' });
    const error = await attempt(() => runOne(stage, o.signal));
    if (error === undefined) {
      o.emit({ stage: stage.name, event: 'done' });
      continue;
    }
    const failed = { stage: stage.name, error };
    o.emit({ stage: stage.name, event: 'failed', message: error.message });
    if (stage.point === 'after') unfinished.push(failed);
    else if (error instanceof Undecided) return { result: 'undecided', failed };
    else
      return { result: 'undone', failed, notUndone: await undo(stages.slice(0, at + 1), o.emit) };
  }
  return { result: 'done', unfinished };
}

async function runOne(stage: Stage, signal: AbortSignal): Promise<void> {
  // From the commit point on, nobody can ask to stop any more.
  if (stage.point !== undefined) return stage.run(NEVER);
  if (signal.aborted) throw new Aborted();
  await stage.run(signal);
}

const NEVER = new AbortController().signal;

/* Each is attempted whatever became of the others. */
async function undo<Name extends string>(
  stages: readonly Stage<Name>[],
  emit: (event: StageEvent<Name>) => void,
): Promise<StageFailure<Name>[]> {
  const notUndone: StageFailure<Name>[] = [];
  for (const stage of stages.toReversed()) {
    if (stage.undo === undefined) continue;
    const error = await attempt(() => stage.undo?.());
    if (error !== undefined) notUndone.push({ stage: stage.name, error });
    emit({ stage: stage.name, event: 'undone', ...(error && { message: error.message }) });
  }
  return notUndone;
}

async function attempt(work: () => Promise<void> | undefined): Promise<Error | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}
