/*
 * The lanes of the throughput measurement: one iperf3 transfer each, over a veth pair of its own,
 * plain, through a boundary, or moved by real daemons.
 *
 *     a  eth0 10.91.0.1/24 ────veth──── eth0 10.91.0.2/24  b
 *        eth0 10.91.1.1/32 (moved lane: where its connections begin)
 *
 * b reaches 10.91.1.1 via 10.91.0.1, as through a router, so that the next hop stays the same.
 */
import { LabError } from '../src/lab/namespace.js';
import { now, pause, until } from '../src/lab/wait.js';
import type { WatchedDaemon } from '../src/lab/watched-daemon.js';
import { startDaemon } from './daemon.js';
import { CONNECTIONS, CPU, IperfTransfer } from './iperf.js';
import { A, B, LINK, Pair } from './pair.js';
import type { TurnLane } from './turns.js';

const OLD = '10.91.1.1';
export type LaneKind = 'plain' | 'control' | 'attached' | 'moved';

export class Lane implements TurnLane<LaneKind> {
  readonly kind: LaneKind;
  readonly #pair = new Pair();
  #daemons: readonly [WatchedDaemon, WatchedDaemon] | undefined;
  readonly transfer = new IperfTransfer();

  private constructor(kind: LaneKind) {
    this.kind = kind;
  }

  /** Builds the pair and what protects it. */
  static async build(kind: LaneKind): Promise<Lane> {
    const lane = new Lane(kind);
    const { a, b } = lane.#pair;
    a.receiveOn(CPU.sender, LINK);
    b.receiveOn(CPU.receiver, LINK);
    if (kind === 'attached') lane.#pair.attach();
    if (kind === 'moved') {
      b.ip(`route add ${OLD}/32 via ${A}`);
      lane.#daemons = [await startDaemon(a), await startDaemon(b)];
    }
    return lane;
  }

  /** Starts a new transfer, moves it where that belongs to the lane, and leaves it stopped. */
  async start(): Promise<void> {
    const { a, b } = this.#pair;
    if (this.kind === 'moved') a.ip(`addr add ${OLD}/32 dev ${LINK}`);
    if (this.kind === 'attached') this.#pair.attach();
    await this.transfer.start(a, b, B, ['-B', this.kind === 'moved' ? OLD : A]);
    await this.#flows(this.receivedBytes());
    if (this.kind === 'attached') this.#checkProtected();
    if (this.kind === 'moved') await this.#move();
    this.transfer.suspend();
  }

  receivedBytes(): number {
    return this.#pair.b.receivedBytes(LINK);
  }

  remove(): void {
    for (const daemon of this.#daemons ?? []) daemon.close();
    this.#pair.remove();
  }

  async #move(): Promise<void> {
    const [mover, peer] = this.#daemons ?? [];
    if (!mover || !peer) throw new LabError('a lane without daemons cannot move');
    const at = now();
    this.#pair.a.ip(`addr del ${OLD}/32 dev ${LINK}`);
    const proven = () => mover.events.filter((e) => e.event === 'proven' && e.at_ms >= at);
    await until('the transfer to be moved', () => proven().length >= CONNECTIONS, 20_000);
    await this.#flows(this.receivedBytes());
    const moved = (await peer.flows()).filter((f) => f.moves === 1 && f.kernel !== f.wire);
    if (moved.length < CONNECTIONS) throw new LabError(`${moved.length} flows were moved`);
  }

  #checkProtected(): void {
    const flows = this.#pair.flows();
    if (flows.some((count) => count < CONNECTIONS)) {
      throw new LabError(`${flows.join(' and ')} TI flows instead of ${CONNECTIONS}`);
    }
  }

  /** Waits until much more has arrived. */
  async #flows(before: number): Promise<void> {
    await until(`the ${this.kind} transfer`, () => this.receivedBytes() > before + 1e8);
    await pause(100);
  }
}
