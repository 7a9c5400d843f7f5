/* The interfaces of this network namespace, by name. */

import { readFileSync } from 'node:fs';
import { didYouMean } from '../daemon/config/suggestion.js';
import { UsageError } from './exit.js';

/* /proc/net follows the namespace of the process; /sys/class/net shows the one in which /sys was
 * mounted.
 */
export function interfaceNames(): string[] {
  return readFileSync('/proc/net/dev', 'utf8')
    .split('\n')
    .slice(2)
    .map((line) => line.slice(0, line.indexOf(':')).trim())
    .filter((name) => name !== '');
}

/** Throws UsageError naming the first one that does not exist. */
export function requireInterfaces(names: readonly string[]): void {
  const known = interfaceNames();
  const unknown = names.find((name) => !known.includes(name));
  if (unknown === undefined) return;
  throw new UsageError(`no interface "${unknown}"${didYouMean(unknown, known)}`);
}
