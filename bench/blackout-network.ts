/*
 * The network of the blackout measurement: a mover that can sit in one of two subnets, a router
 * that drops silently what it cannot deliver, and 10 ms of wire each way to the peer.
 *
 *     mover  eth0 ──veth── mover0  router  peer0 ══ userspace wire, 2 x 10 ms ══ eth0  peer
 *     10.92.1.2/24         10.92.1.1/24    10.92.9.1/24                    10.92.9.2/24
 *     10.92.2.2/24         10.92.2.1/24
 */
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { LabError, runInside } from '../src/lab/namespace.js';
import { now, until } from '../src/lab/wait.js';
import type { WatchedDaemon } from '../src/lab/watched-daemon.js';
import { startDaemon } from './daemon.js';
import { connectByVeth, Host } from './host.js';

const WIRE = fileURLToPath(new URL('../src/lab/programs/wire.js', import.meta.url));
const DELAY = 'delay=10ms';
const PEER = '10.92.9.2';

type Subnet = 1 | 2;

export class BlackoutNetwork {
  readonly mover = new Host('mover');
  readonly peer = new Host('peer');
  readonly #router = new Host('router');
  #daemons: WatchedDaemon[] = [];
  #ip: ChildProcess | undefined;
  #subnet: Subnet = 1;

  /** Builds it with the mover in subnet 1; with tiflow at both ends, or without. */
  static async build(protect: boolean): Promise<BlackoutNetwork> {
    const network = new BlackoutNetwork();
    try {
      await network.#build(protect);
    } catch (error) {
      network.remove();
      throw error;
    }
    return network;
  }

  async #build(protect: boolean): Promise<void> {
    const { mover, peer } = this;
    this.#buildRouter();
    peer.ip('tuntap add dev eth0 mode tap', `addr add ${PEER}/24 dev eth0`, 'link set eth0 up');
    peer.ip('route add default via 10.92.9.1');
    const tapPaths = [peer.path, 'eth0', this.#router.path, 'peer0'];
    this.#router.spawn([process.execPath, WIRE, ...tapPaths, '1', DELAY]);
    mover.ip(...this.#arrival(1));
    // Kept at hand: the start of a process would be in the time that is measured.
    this.#ip = mover.spawn(['ip', '-batch', '-'], ['pipe', 'ignore', 'inherit']);
    await until('the userspace wire', () =>
      runInside(peer.namespace, ['ip', '-o', 'link', 'show', 'dev', 'eth0']).includes('LOWER_UP'),
    );
    if (protect) this.#daemons = [await startDaemon(mover), await startDaemon(peer)];
  }

  #buildRouter(): void {
    const router = this.#router;
    connectByVeth(this.mover, 'eth0', router, 'mover0');
    router.sysctl({ 'ipv4/ip_forward': '1' });
    router.ip(
      'tuntap add dev peer0 mode tap',
      'addr add 10.92.9.1/24 dev peer0',
      'addr add 10.92.1.1/24 dev mover0',
      'addr add 10.92.2.1/24 dev mover0',
      'link set peer0 up',
      // Without these it would say "unreachable", at which the peer's TCP backs off less.
      'route add blackhole 10.92.1.0/24 metric 1000',
      'route add blackhole 10.92.2.0/24 metric 1000',
    );
  }

  /** Both kernels give a connection up after so many retransmissions (tcp_retries2). */
  limitRetries(retries: number): void {
    for (const host of [this.mover, this.peer]) {
      host.sysctl({ 'ipv4/tcp_retries2': String(retries) });
    }
  }

  get moverAddress(): string {
    return `10.92.${this.#subnet}.2`;
  }

  get hasTiflow(): boolean {
    return this.#daemons.length > 0;
  }

  /** Rejects if tiflow is here and the mover's connections are not TI flows. */
  async checkProtected(): Promise<void> {
    const status = await this.#daemons[0]?.status();
    if (status?.flows.protected === 0) throw new LabError('the connection is no TI flow');
  }

  /** The mover loses carrier, address and routes. */
  cut(): void {
    this.#router.ip('link set mover0 down');
    this.mover.ip('addr flush dev eth0');
  }

  /** The carrier comes back, no address yet. */
  plugIn(): void {
    this.#router.ip('link set mover0 up');
  }

  /** The mover gets an address and its default route, within a millisecond of what is returned:
   * with tiflow in the other subnet, without it the address that it had.
   */
  configure(): number {
    if (this.hasTiflow) this.#subnet = this.#subnet === 1 ? 2 : 1;
    const at = now();
    this.#ip?.stdin?.write(`${this.#arrival(this.#subnet).join('\n')}\n`);
    return at;
  }

  remove(): void {
    for (const daemon of this.#daemons) daemon.close();
    for (const host of [this.mover, this.peer, this.#router]) host.remove();
  }

  #arrival(subnet: Subnet): string[] {
    return [`addr add 10.92.${subnet}.2/24 dev eth0`, `route add default via 10.92.${subnet}.1`];
  }
}
