/*
 * Where on the way the option is: routers quote the packet that died at them, many of them with
 * its options (RFC 1812, section 4.3.2.3), so one sees it as it came there.
 */
import { encodeOption, type TcpOption } from '../wire/option.js';
import type { Prober } from './prober.js';

const HOPS_MAX = 30;
const HOP_MS = 500;
/** Then nobody further on will answer either. */
const SILENT_MAX = 4;

export interface Hop {
  hop: number;
  address: string | null;
  ms: number | null;
  /** as it came there; not-quoted: the router quotes less; end: the far end itself answered */
  option: 'there' | 'changed' | 'gone' | 'not-quoted' | 'end' | 'silent' | 'refused';
}

/** `destination` in its hops is the far end. */
export async function trace(
  prober: Prober,
  options: TcpOption[],
  destination: string,
): Promise<Hop[]> {
  const sent = options.find((option) => option.kind === 'ti-open');
  const hops: Hop[] = [];
  let silent = 0;
  for await (const outcome of prober.hops(options, { hopsMax: HOPS_MAX, boundMs: HOP_MS })) {
    const hop = hops.length + 1;
    if (outcome === undefined) {
      hops.push({ hop, address: null, ms: null, option: 'silent' });
      if (++silent === SILENT_MAX) break;
    } else if ('answer' in outcome) {
      const ms = outcome.answer.kind === 'none' ? null : outcome.answer.ms;
      hops.push({ hop, address: destination, ms, option: 'end' });
      break;
    } else {
      silent = 0;
      const { from, ms, error } = outcome.report;
      const seen = error.quoted.options;
      const refused = error.kind === 'unreachable';
      hops.push({ hop, address: from, ms, option: refused ? 'refused' : compare(sent, seen) });
      if (refused) break;
    }
  }
  return hops;
}

function compare(sent: TcpOption | undefined, seen: TcpOption[] | undefined): Hop['option'] {
  if (sent === undefined || seen === undefined) return 'not-quoted';
  const found = seen.find((option) => option.kind === 'ti-open');
  if (found === undefined) return 'gone';
  return Buffer.compare(encodeOption(sent), encodeOption(found)) === 0 ? 'there' : 'changed';
}

/** The first hop at which the option is not what was sent, and the one before it. */
export function lostAt(hops: readonly Hop[]): { before: Hop | undefined; at: Hop } | undefined {
  const index = hops.findIndex(({ option }) => option === 'gone' || option === 'changed');
  const at = hops[index];
  if (at === undefined) return undefined;
  return { before: hops.slice(0, index).findLast(({ option }) => option === 'there'), at };
}
