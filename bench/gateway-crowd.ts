/*
 * Hosts behind a gateway and one peer with many connections to them, all of which move at once.
 *
 *     peer  eth0 10.91.1.1/32 or 10.91.2.1/32 ──── eth0 10.91.0.2/24  gw  in0 ──── eth0  inner
 *           tiflow                                 tiflow, gateway        10.91.8.1     10.91.8.2
 *
 * Nobody listens to the daemons' events: ten for each of ten thousand flows would be measured, too.
 * What counts is that the programs' bytes have arrived.
 */

import { readFileSync } from 'node:fs';
import { LabError } from '../src/lab/namespace.js';
import { now, pause, until } from '../src/lab/wait.js';
import type { WatchedDaemon } from '../src/lab/watched-daemon.js';
import { closeFd } from '../src/libc/socket.js';
import { startDaemon } from './daemon.js';
import { connectByVeth, Host } from './host.js';
import { accept, listenOn, openConnection, receiveWaiting, sendAll } from './tcp.js';

const LINK = 'eth0';
const MAC = '02:00:00:00:00:0a';
const INNER = '10.91.8.2';
const PORT = 5001;
/* Long enough for the kernels to have sent everything once more, in vain. */
const DARK_MS = 1_000;
const PATIENCE_MS = 60_000;
const FILES_OF_OURS = 200;
const MESSAGE = new Uint8Array(100);

/** The most connections that this process may have, both ends of them, beside what it needs. */
export function mostConnections(): number {
  const limits = readFileSync('/proc/self/limits', 'utf8');
  const files = /^Max open files +(\d+)/m.exec(limits)?.[1];
  return Math.floor((Number(files) - FILES_OF_OURS) / 2);
}

export class GatewayCrowd {
  readonly #peer = new Host('peer');
  readonly #gateway = new Host('gw');
  readonly #inner = new Host('inner');
  #daemons: WatchedDaemon[] = [];
  #sockets: number[] = [];
  #subnet: 1 | 2 = 1;

  constructor() {
    const [peer, gateway, inner] = [this.#peer, this.#gateway, this.#inner];
    connectByVeth(peer, LINK, gateway, LINK);
    connectByVeth(inner, LINK, gateway, 'in0');
    peer.ip(`link set ${LINK} address ${MAC}`, ...this.#arrival());
    gateway.ip(
      `addr add 10.91.0.2/24 dev ${LINK}`,
      `neigh replace 10.91.0.1 lladdr ${MAC} dev ${LINK} nud permanent`,
      'route add 10.91.1.1/32 via 10.91.0.1',
      'route add 10.91.2.1/32 via 10.91.0.1',
      'addr add 10.91.8.1/24 dev in0',
    );
    gateway.sysctl({ 'ipv4/ip_forward': '1' });
    inner.ip(`addr add ${INNER}/24 dev ${LINK}`, 'route add default via 10.91.8.1');
  }

  #arrival(): string[] {
    return [
      `addr add 10.91.${this.#subnet}.1/32 dev ${LINK}`,
      `route add 10.91.0.2/32 dev ${LINK}`,
      `route add ${INNER}/32 via 10.91.0.2`,
    ];
  }

  /** Starts the daemons and opens so many connections; rejects if one is no TI flow. */
  async open(count: number): Promise<void> {
    const gateway = await startDaemon(this.#gateway, { gateway: true, watched: false });
    this.#daemons = [gateway, await startDaemon(this.#peer, { watched: false })];
    const listener = this.#inner.inside(() => listenOn({ address: INNER, port: PORT }, count));
    // In portions: the daemons have to stock random numbers meanwhile.
    for (let opened = 0; opened < count; opened += 500) {
      this.#peer.inside(() => {
        for (let i = opened; i < Math.min(count, opened + 500); i++) {
          this.#sockets.push(openConnection({ address: INNER, port: PORT }), accept(listener));
        }
      });
      await pause(50);
    }
    closeFd(listener);
    const { flows } = await gateway.status();
    if (flows.protected !== count || flows.forwarded !== count) {
      throw new Error(`${flows.protected} TI flows, ${flows.forwarded} forwarded, not ${count}`);
    }
  }

  /** Takes the address away, has all write, gives another: ms until the last byte is there. */
  async move(): Promise<number> {
    this.#peer.ip(`addr flush dev ${LINK}`);
    for (const fd of this.#sockets) sendAll(fd, MESSAGE);
    await pause(DARK_MS);
    this.#subnet = this.#subnet === 1 ? 2 : 1;
    const at = now();
    this.#peer.ip(...this.#arrival());
    const waiting = this.#sockets.map((fd) => ({ fd, missing: MESSAGE.length }));
    const buffer = new Uint8Array(4096);
    // No further than the first that still waits: looking must not cost what is measured.
    const arrived = () => {
      for (let each = waiting.at(-1); each !== undefined; each = waiting.at(-1)) {
        each.missing -= receiveWaiting(each.fd, buffer);
        if (each.missing > 0) return false;
        waiting.pop();
      }
      return true;
    };
    await until('all bytes to arrive', arrived, PATIENCE_MS).catch(async (error: Error) => {
      throw new LabError(`${error.message}: ${await this.#told()}`);
    });
    return now() - at;
  }

  /** What both daemons say of their flows. */
  async #told(): Promise<string> {
    const all = await Promise.all(this.#daemons.map((daemon) => daemon.status()));
    return all
      .map(({ flows, moves, counters }) => JSON.stringify({ flows, moves, counters }))
      .join('; ');
  }

  remove(): void {
    for (const daemon of this.#daemons) daemon.close();
    for (const fd of this.#sockets) closeFd(fd);
    for (const host of [this.#peer, this.#gateway, this.#inner]) host.remove();
  }
}
