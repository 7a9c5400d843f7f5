/*
 * The keys of flows, derived when a synchronization first needs them and kept for the next.
 *
 * By TIFID, and only as long as the options are the same byte for byte: a kernel tuple comes back
 * with another connection.
 */
import { encodeTiOpen, type Flow, ROLE } from '../boundary/abi.gen.js';
import type { EndKeys } from './attempt.js';
import { commonKeyId, deriveKeys, type Keys } from './keys.js';

interface Entry {
  opens: Uint8Array;
  keys: Keys;
}

export class KeyRing {
  readonly #entries = new Map<string, Entry>();

  /** `psk`: the pre-shared key of an id; `max`: how many flows are remembered. */
  constructor(
    private readonly psk: (keyId: number) => Uint8Array | undefined,
    private readonly max = 65_536,
  ) {}

  /** The keys as this end uses them; undefined: they need a PSK that is not here. */
  of(flow: Flow): EndKeys | undefined {
    const keys = this.#keys(flow);
    if (keys === undefined) return undefined;
    return flow.role === ROLE.INITIATOR
      ? { ours: keys.initiator, theirs: keys.responder }
      : { ours: keys.responder, theirs: keys.initiator };
  }

  #keys(flow: Flow): Keys | undefined {
    const initiator = encodeTiOpen(flow.initiator);
    const responder = encodeTiOpen(flow.responder);
    const opens = Buffer.concat([initiator, responder]);
    const tifid = `${flow.initiator.tifidHalf} ${flow.responder.tifidHalf}`;
    const known = this.#entries.get(tifid);
    if (known !== undefined && opens.equals(known.opens)) return known.keys;
    const keyId = commonKeyId(flow.initiator, flow.responder);
    const psk = keyId ? this.psk(keyId) : undefined;
    if (keyId === undefined || (keyId !== 0 && psk === undefined)) return undefined;
    const keys = deriveKeys(initiator, responder, psk);
    this.#remember(tifid, { opens, keys });
    return keys;
  }

  #remember(tifid: string, entry: Entry): void {
    const [oldest] = this.#entries.keys();
    if (this.#entries.size >= this.max && oldest !== undefined) this.#entries.delete(oldest);
    this.#entries.set(tifid, entry);
  }
}
