/*
 * A transfer that never ends from a guest to aramis, stopped but for its turns.
 */
import type { ChildProcess } from 'node:child_process';
import { LabError, namespacePath } from '../src/lab/namespace.js';
import { now, pause, until } from '../src/lab/wait.js';
import { receivedBytes } from './host.js';
import type { VmLane } from './vm-lane.js';

/* chargen, RFC 864, with less variety. */
const PORT = '19';
const SERVE = `nc -ll -p ${PORT} -e /bin/cat /dev/zero < /dev/null > /dev/null 2>&1 &`;
/* After a turn begins, before it counts: the window opens again. */
const WARM_UP_MS = 300;
const ENOUGH_BYTES = 4e6;

export class VmTransfer {
  readonly #lane: VmLane;
  #client: ChildProcess | undefined;

  private constructor(lane: VmLane) {
    this.#lane = lane;
  }

  /** Has the guest serve. */
  static prepare(lane: VmLane): VmTransfer {
    lane.lab.inGuest(SERVE, lane.address);
    return new VmTransfer(lane);
  }

  /** Begins a new one, and leaves it stopped. */
  async start(): Promise<void> {
    const { lab, address } = this.#lane;
    const argv = ['busybox', 'nc', address, PORT];
    this.#client = lab.spawn('aramis', 'transfer', argv, ['pipe', 'ignore', 'inherit']);
    await this.#flows();
  }

  /** Waits until it has gone on; rejects if it has to be a moved TI flow and is none. */
  async goOn(): Promise<void> {
    this.#client?.kill('SIGCONT');
    await this.#flows();
    if (this.#lane.kind !== 'tiflow') return;
    const flows = await this.#lane.lab.daemon('aramis').flows();
    const moved = (f: (typeof flows)[number]) => f.kernel.endsWith(`:${PORT}`) && f.moves > 0;
    if (!flows.some(moved)) throw new LabError(`the transfer has not moved: ${flows.length} flows`);
  }

  async #flows(): Promise<void> {
    const before = this.#received();
    const more = () => this.#received() > before + ENOUGH_BYTES;
    await until(`the transfer (${this.#lane.kind})`, more, 60_000);
    this.#client?.kill('SIGSTOP');
  }

  /** Mbit/s of one turn. */
  async takeTurn(turnMs: number): Promise<number> {
    this.#client?.kill('SIGCONT');
    await pause(WARM_UP_MS);
    const [bytes, at] = [this.#received(), now()];
    await pause(turnMs);
    const rate = ((this.#received() - bytes) * 8) / (now() - at) / 1e3;
    this.#client?.kill('SIGSTOP');
    return rate;
  }

  stop(): void {
    this.#client?.kill('SIGKILL');
  }

  #received(): number {
    return receivedBytes(namespacePath(this.#lane.lab.namespaces.aramis), 'eth0');
  }
}
