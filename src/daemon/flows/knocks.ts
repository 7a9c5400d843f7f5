/* Lets a peer in again that has crashed and comes back from where its old connection began, while
 * that flow lives elsewhere, as far as is known here; and keeps strangers from ending it.
 *
 *   SYN on the kernel tuple ──► ask who knocks, and the owner, once a second
 *                                 owner heard ─────────────────────────► the flow lives: nothing
 *                                 5 s of silence, who knocks is there ─► the flow ends; the next SYN
 *                                                                        is an ordinary one
 */

import type { Boundary } from '../../boundary/boundary.js';
import { msOfNs } from '../../libc/monotonic.js';
import type { Clock } from '../../sync/clock.js';
import { activeMapping } from '../../sync/handshake.js';
import { challenge, question } from '../../sync/knock.js';
import { decodePacket, type Packet } from '../../wire/packet.js';
import { type Tuple, tupleKey } from '../../wire/tuple.js';
import { flowIsOver } from '../view/flow-views.js';

/* An owner that roams is silent for a few seconds; who connects waits for longer than this, and its
 * SYNs are 1, 3 and 7 s behind the first, or closer.
 */
const ASK_MS = 5_000;
const AGAIN_MS = 1_000;
/* Each costs a few packets.  A client machine that has crashed has so many connections to us at most. */
const ASKED_MAX = 1024;

interface Asked {
  kernel: Tuple;
  sinceMs: number;
  /** Who knocks has shown to be there. */
  isThere: boolean;
  timer: unknown;
}

export interface KnocksOptions {
  boundary: Pick<Boundary, 'flow'>;
  clock: Clock;
  send: (kernel: Tuple, packet: Packet) => void;
  /** Ends a flow towards its program. */
  end: (kernel: Tuple, reason: string) => void;
}

export class Knocks {
  readonly #o: KnocksOptions;
  readonly #asked = new Map<string, Asked>();

  constructor(o: KnocksOptions) {
    this.#o = o;
  }

  /** To be called with EVENT_KNOCK: a SYN, or the answer to our question. */
  knock(kernel: Tuple, bytes: Uint8Array): void {
    const packet = decodePacket(bytes, { truncated: true });
    const flow = this.#o.boundary.flow(kernel);
    if ('error' in packet || flow === undefined || flowIsOver(flow)) return;
    const asked = this.#asked.get(tupleKey(kernel));
    if (packet.flags.includes('R')) {
      if (asked !== undefined && packet.seq === flow.knock) asked.isThere = true;
      return;
    }
    this.#o.send(kernel, challenge(kernel, flow));
    if (asked !== undefined || this.#asked.size >= ASKED_MAX) return;
    const sinceMs = this.#o.clock.now();
    const fresh: Asked = { kernel, sinceMs, isThere: false, timer: undefined };
    this.#asked.set(tupleKey(kernel), fresh);
    this.#ask(fresh);
  }

  /** Forgets a flow that has ended. */
  ended(kernel: Tuple): void {
    const asked = this.#asked.get(tupleKey(kernel));
    if (asked === undefined) return;
    this.#o.clock.clearTimer(asked.timer);
    this.#asked.delete(tupleKey(kernel));
  }

  close(): void {
    for (const { kernel } of [...this.#asked.values()]) this.ended(kernel);
  }

  #ask(asked: Asked): void {
    const { kernel, sinceMs } = asked;
    const flow = this.#o.boundary.flow(kernel);
    const mapping = flow && activeMapping(flow);
    const isHeard = flow !== undefined && msOfNs(flow.seenIn) > sinceMs;
    if (flow === undefined || mapping === undefined || flowIsOver(flow) || isHeard) {
      this.ended(kernel);
    } else if (this.#o.clock.now() - sinceMs < ASK_MS) {
      this.#o.send(kernel, question(flow, mapping));
      asked.timer = this.#o.clock.setTimer(AGAIN_MS, () => this.#ask(asked));
    } else {
      this.ended(kernel);
      if (asked.isThere) this.#o.end(kernel, 'peer-restarted');
    }
  }
}
