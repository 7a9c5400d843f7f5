/*
 * What came back to a SYN.
 */
import type { Address } from '../wire/address.js';
import { encodeOption } from '../wire/option.js';
import type { Packet } from '../wire/packet.js';
import { seqAdd } from '../wire/seq.js';
import { optionBytes, type TiOpen } from './segments.js';

export type Answer =
  | {
      kind: 'syn-ack';
      /** TI_OPEN in it: none, the far end's own, or ours reflected */
      open: 'none' | 'own' | 'reflected';
      /** of the far end's TI_OPEN: the pre-shared key that it has in common with us, or 0 */
      keyId: number;
      /** of its other options */
      optionBytes: number;
      ms: number;
    }
  | { kind: 'reset'; ms: number }
  | { kind: 'unreachable'; from: Address; why: string; ms: number }
  | { kind: 'none' };

/** What `packet` answers to the SYN; undefined: nothing, it belongs to something else. */
export function answerIn(syn: Packet, packet: Packet, ms: number): Answer | undefined {
  const acknowledges = packet.flags.includes('A') && packet.ack === seqAdd(syn.seq, 1);
  if (!acknowledges) return undefined;
  if (packet.flags.includes('R')) return { kind: 'reset', ms };
  if (!packet.flags.includes('S')) return undefined;
  const open = packet.options.find((option): option is TiOpen => option.kind === 'ti-open');
  const others = packet.options.filter((option) => option !== open);
  return {
    kind: 'syn-ack',
    open: open === undefined ? 'none' : isReflected(syn, open) ? 'reflected' : 'own',
    keyId: open?.keyId ?? 0,
    optionBytes: (optionBytes(others) + 3) & ~3,
    ms,
  };
}

/** Some hosts send back options that they do not know. */
function isReflected(syn: Packet, open: TiOpen): boolean {
  const sent = syn.options.find((option) => option.kind === 'ti-open');
  return sent !== undefined && Buffer.compare(encodeOption(sent), encodeOption(open)) === 0;
}
