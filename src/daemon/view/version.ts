/* The version of this tiflow, from the one place where it is written. */

import { readFileSync } from 'node:fs';

/** For example "0.1.0". */
export function tiflowVersion(): string {
  // From <root>/<out>/src/daemon/version.js, whatever the output folder is called.
  const text = readFileSync(new URL('../../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
