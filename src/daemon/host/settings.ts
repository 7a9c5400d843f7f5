/* The data plane's settings and counters, in the words of the configuration and of the API. */

import { reasonClass, reasonName } from '../../boundary/abi.gen.js';
import type { Boundary } from '../../boundary/boundary.js';
import type { Config } from '../config/config.js';

/* An honest answer to our data comes within a round trip; 200 ms is the kernel's least RTO, so a
 * reset that comes later answers a retransmission.
 */
const RST_SILENT_MS = 200;

/** Marks that the tap programs know; written to the settings by the daemon. */
export interface TapMarks {
  guest: number;
  network: number;
  verbatim: number;
}

/** Beside `mark` of the configuration, so that an operator has to keep one range free. */
export const tapMarks = (mark: number): TapMarks => ({
  guest: (mark + 1) >>> 0,
  network: (mark + 2) >>> 0,
  verbatim: (mark + 3) >>> 0,
});

/** Tells the data plane what the configuration says. */
export function configure(boundary: Boundary, config: Config): void {
  const keyIds = new Uint8Array(32);
  for (const id of config.psk?.keys.keys() ?? []) {
    keyIds[id >> 3] = (keyIds[id >> 3] ?? 0) | (1 << (id & 7));
  }
  const marks = tapMarks(config.mark);
  boundary.writeSettings({
    markGuest: marks.guest,
    markNetwork: marks.network,
    markVerbatim: marks.verbatim,
    rstSilentMs: RST_SILENT_MS,
    plainPeerTtlS: Math.ceil(config.plainPeerTtlMs / 1e3),
    enabled: 1,
    keyId: config.psk?.keyId ?? 0,
    keyIds,
  });
}

/** Those that have counted something. */
export function countersByName(boundary: Boundary): Record<string, number> {
  const counters: Record<string, number> = {};
  for (const [reason, count] of boundary.counters()) {
    if (count > 0n) counters[`${reasonClass(reason)}.${reasonName(reason)}`] = Number(count);
  }
  return counters;
}
