/* Names of interfaces as the configuration and `tiflow up` may give them: "eth0", "en*", "default". */

import { z } from 'zod';

/** What has a default route. */
export const DEFAULT_ROUTE = 'default';

/** Linux: up to 15 bytes, neither "/" nor white space, not "." or "..". */
export const interfaceName = z
  .string('must be a string')
  .regex(
    /^(?!\.{1,2}$)[^/\s:]{1,15}$/,
    'is no interface name (1 to 15 characters, no "/", ":" or space)',
  );

/** The same with "*" for any characters and "?" for one; as long as a name may be, and an end. */
export const interfacePattern = z
  .string('must be a string')
  .regex(
    /^(?!\.{1,2}$)[^/\s:]{1,31}$/,
    'is no interface name or pattern (up to 31 characters, no "/", ":" or space; * and ? match)',
  )
  .refine(
    (text) => isPattern(text) || text.length <= 15,
    'is no interface name (1 to 15 characters)',
  );

/** Whether it may name other links than the one that is called so. */
export const isPattern = (text: string): boolean => text === DEFAULT_ROUTE || /[*?]/.test(text);

/** By the name alone: DEFAULT_ROUTE matches none. */
export function matchesName(pattern: string, name: string): boolean {
  if (pattern === DEFAULT_ROUTE) return false;
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 's').test(name);
}
