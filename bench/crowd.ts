/*
 * Two hosts with tiflow daemons and many connections between them, all of which move at once.
 *
 *     mover  eth0 10.91.1.1/32 or 10.91.2.1/32 ────veth──── eth0 10.91.0.2/24  peer
 *
 * The peer reaches both addresses via 10.91.0.1, as through a router.
 */

import { now, pause, until } from '../src/lab/wait.js';
import type { WatchedDaemon } from '../src/lab/watched-daemon.js';
import { closeFd } from '../src/libc/socket.js';
import { startDaemon } from './daemon.js';
import { connectByVeth, Host } from './host.js';
import { accept, listenOn, openConnection, receiveWaiting, sendAll } from './tcp.js';

const LINK = 'eth0';
const MAC = '02:00:00:00:00:0a';
const GATEWAY = '10.91.0.1';
const PEER = '10.91.0.2';
const PORT = 5001;
/* Long enough for the kernels to have sent everything once more, in vain. */
const DARK_MS = 1_000;
const PATIENCE_MS = 30_000;
const MESSAGE = new Uint8Array(100);

/** ms from the new address until the last flow was proven, and until the last byte was there. */
export interface CrowdMove {
  proven: number;
  arrived: number;
}

export class Crowd {
  readonly #mover = new Host('mover');
  readonly #peer = new Host('peer');
  #daemons: WatchedDaemon[] = [];
  #sockets: { mover: number[]; peer: number[] } = { mover: [], peer: [] };
  #subnet: 1 | 2 = 1;

  constructor() {
    const [mover, peer] = [this.#mover, this.#peer];
    connectByVeth(mover, LINK, peer, LINK);
    mover.ip(`link set ${LINK} address ${MAC}`, ...this.#arrival());
    peer.ip(
      `addr add ${PEER}/24 dev ${LINK}`,
      `neigh replace ${GATEWAY} lladdr ${MAC} dev ${LINK} nud permanent`,
      `route add 10.91.1.1/32 via ${GATEWAY}`,
      `route add 10.91.2.1/32 via ${GATEWAY}`,
    );
  }

  #arrival(): string[] {
    return [`addr add 10.91.${this.#subnet}.1/32 dev ${LINK}`, `route add ${PEER}/32 dev ${LINK}`];
  }

  /** Starts the daemons and opens so many connections; rejects if one is no TI flow. */
  async open(count: number): Promise<void> {
    this.#daemons = [await startDaemon(this.#mover), await startDaemon(this.#peer)];
    const listener = this.#peer.inside(() => listenOn({ address: PEER, port: PORT }, count));
    this.#mover.inside(() => {
      for (let i = 0; i < count; i++) {
        this.#sockets.mover.push(openConnection({ address: PEER, port: PORT }));
        this.#sockets.peer.push(accept(listener));
      }
    });
    closeFd(listener);
    const status = await this.#daemons[0]?.status();
    if (status?.flows.protected !== count) {
      throw new Error(`${status?.flows.protected} TI flows instead of ${count}`);
    }
  }

  /** Takes the address away, has both ends write, gives another address. */
  async move(): Promise<CrowdMove> {
    const { mover, peer } = this.#sockets;
    const lostAt = now();
    this.#mover.ip(`addr flush dev ${LINK}`);
    await this.#daemons[0]?.waitFor('address-removed', lostAt);
    for (const fd of [...mover, ...peer]) sendAll(fd, MESSAGE);
    await pause(DARK_MS);
    this.#subnet = this.#subnet === 1 ? 2 : 1;
    const at = now();
    this.#mover.ip(...this.#arrival());
    const provenAt = await until('all flows to be proven', () => this.#proven(at), PATIENCE_MS);
    const wanted = (mover.length + peer.length) * MESSAGE.length;
    let received = 0;
    const arrived = () => {
      received += receiveAll([...mover, ...peer]);
      return received >= wanted;
    };
    await until('all bytes to arrive', arrived, PATIENCE_MS);
    return { proven: provenAt - at, arrived: now() - at };
  }

  /** When the last flow was proven at the mover; undefined: not all are. */
  #proven(since: number): number | undefined {
    const events = this.#daemons[0]?.events ?? [];
    const proven = events.filter((e) => e.event === 'proven' && e.at_ms >= since);
    if (proven.length < this.#sockets.mover.length) return undefined;
    return Math.max(...proven.map((e) => e.at_ms));
  }

  remove(): void {
    for (const daemon of this.#daemons) daemon.close();
    for (const fd of [...this.#sockets.mover, ...this.#sockets.peer]) closeFd(fd);
    for (const host of [this.#mover, this.#peer]) host.remove();
  }
}

/** How many bytes were waiting on all sockets. */
function receiveAll(sockets: readonly number[]): number {
  const buffer = new Uint8Array(4096);
  return sockets.reduce((sum, fd) => sum + receiveWaiting(fd, buffer), 0);
}
