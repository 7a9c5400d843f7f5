/* After a move: packets that are too large for the new path, where nobody says so.
 *
 * A kernel goes on with segments of the old path's size.  Routers that cannot forward them say so by
 * ICMP, which the data plane translates; where ICMP is dropped, small packets pass, the
 * synchronization succeeds, and the connection hangs: Linux probes for such a black hole only if
 * net.ipv4.tcp_mtu_probing is set, and by default it is not (RFC 4821, section 7.7; RFC 2923, section 2.1).
 * So we tell the own kernel what the router would have.
 *
 *   the same large data unanswered for a second ──► the peer is asked something small
 *   it has answered, and the same data waits ────► narrow
 *   nothing has come in ─────────────────────────► the path is dead, not narrow: a peer moves on
 *
 * A false alarm, on a path that is only slow or lossy, costs some header bytes until the kernel
 * forgets the path MTU (ten minutes).  Only the first minute after a move is watched: later the path
 * is as well known as any other.
 */

import { FLOW_FLAG, type Flow } from '../../boundary/abi.gen.js';
import { SystemError } from '../../libc/errno.js';
import type { Clock } from '../../sync/clock.js';
import { activeMapping } from '../../sync/handshake.js';
import { question } from '../../sync/knock.js';
import { quotedSegment } from '../../sync/segments.js';
import { family } from '../../wire/address.js';
import { packetTooBig } from '../../wire/icmp.js';
import { encodePacket, type Packet } from '../../wire/packet.js';
import { type Seq, seqDiff } from '../../wire/seq.js';
import { type Tuple, tupleKey, tupleText } from '../../wire/tuple.js';
import { flowIsOver } from '../view/flow-views.js';
import type { Emit } from '../view/monitor-events.js';

/* What the path is guessed to carry: what every IPv6 link does, which most tunnels of IPv4 do, too;
 * then what RFC 9293, section 3.7.1 takes for IPv4 if nothing is known.
 */
const GUESSES = { 4: [1280, 576], 6: [1280] } as const;

/* Two looks that find the same byte unanswered: longer than any round trip, and than the kernel's
 * first retransmissions.
 */
const LOOK_MS = 1_000;
const WATCHED_MS = 60_000;

/* Fewer bytes than this in flight fit into a packet of the first guess. */
const LARGE = 1280 - 60;

interface Watch {
  kernel: Tuple;
  untilMs: number;
  guesses: readonly number[];
  /** What waited for its ACK at the last look, and was large; and when something had come in last. */
  stuck: { at: Seq; seenIn: bigint } | undefined;
}

export interface NarrowPathsOptions {
  flow: (kernel: Tuple) => Flow | undefined;
  clock: Clock;
  /** Sends a packet to the network. */
  ask: (kernel: Tuple, packet: Packet) => void;
  /** Delivers a packet to the own kernel.  Throws SystemError. */
  deliver: (kernel: Tuple, packet: Uint8Array) => void;
  emit: Emit;
}

export class NarrowPaths {
  readonly #o: NarrowPathsOptions;
  readonly #watched = new Map<string, Watch>();
  #timer: unknown;

  constructor(o: NarrowPathsOptions) {
    this.#o = o;
  }

  /** To be called when a flow, of either end, has a new path. */
  moved(kernel: Tuple): void {
    const untilMs = this.#o.clock.now() + WATCHED_MS;
    const guesses = GUESSES[family(kernel.local)];
    this.#watched.set(tupleKey(kernel), { kernel, untilMs, guesses, stuck: undefined });
    this.#timer ??= this.#o.clock.setTimer(LOOK_MS, () => this.#look());
  }

  close(): void {
    this.#o.clock.clearTimer(this.#timer);
    this.#watched.clear();
  }

  #look(): void {
    const nowMs = this.#o.clock.now();
    for (const [key, watch] of this.#watched) {
      const flow = this.#o.flow(watch.kernel);
      const over = flow === undefined || flowIsOver(flow) || nowMs > watch.untilMs;
      if (over || !this.#goesOn(watch, flow)) this.#watched.delete(key);
    }
    const more = this.#watched.size > 0;
    this.#timer = more ? this.#o.clock.setTimer(LOOK_MS, () => this.#look()) : undefined;
  }

  /** False: there is nothing smaller to be tried. */
  #goesOn(watch: Watch, flow: Flow): boolean {
    const before = watch.stuck;
    const held = (flow.flags & FLOW_FLAG.HELD) !== 0;
    const large = seqDiff(flow.sndNxt, flow.sndUna) > LARGE;
    watch.stuck = large && !held ? { at: flow.sndUna, seenIn: flow.seenIn } : undefined;
    const [guess, ...smaller] = watch.guesses;
    if (watch.stuck === undefined || guess === undefined) return true;
    if (before?.at !== watch.stuck.at || before.seenIn === watch.stuck.seenIn) {
      this.#ask(watch.kernel, flow);
      return true;
    }
    if (!this.#tell(watch.kernel, watch.stuck.at, guess)) return true;
    watch.guesses = smaller;
    watch.stuck = undefined;
    return smaller.length > 0;
  }

  #ask(kernel: Tuple, flow: Flow): void {
    const mapping = activeMapping(flow);
    if (mapping !== undefined) this.#o.ask(kernel, question(flow, mapping));
  }

  /** In the name of the far end: from its own address a guest takes nothing that comes by its link.
   * False: the system refused, for lack of a route or of buffers.
   */
  #tell(kernel: Tuple, at: Seq, mtu: number): boolean {
    const quoted = encodePacket(quotedSegment(kernel, at));
    try {
      this.#o.deliver(kernel, packetTooBig(quoted, kernel.remote, mtu));
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      return false;
    }
    this.#o.emit({ event: 'narrowed', kernel: tupleText(kernel), mtu });
    return true;
  }
}
