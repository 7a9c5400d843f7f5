/**
 * What the verbs of `tiflow lab` share: errors and arguments.
 */
import { UsageError, VerbError } from '../cli/exit.js';
import { LabError } from './namespace.js';

/** Runs a verb; what the lab has to say about a failure is all there is to say. */
export async function verb(action: () => void | Promise<void>): Promise<void> {
  try {
    await action();
  } catch (error) {
    throw error instanceof LabError ? new VerbError(error.message) : error;
  }
}

/** Of an option's argument; throws UsageError. */
export function wholeNumber(text: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new UsageError(`"${text}" is not a whole number`);
  return Number(text);
}
