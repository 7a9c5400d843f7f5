/*
 * Throughput and CPU time per gigabyte of an iperf3 transfer through a router: plain, and with the
 * boundary on the router and on the peer outside.
 *
 *     peer  eth0 10.91.0.1 ──── eth0 10.91.0.2  gw  in0 10.91.8.1 ──── eth0 10.91.8.2  inner
 *           boundary            boundary, gateway
 *
 * CPU time is that of the whole machine (load.ts), and so the peer's boundary is in it as well: what
 * the gateway costs is about half of the difference.
 */
import type { Boundary } from '../src/boundary/boundary.js';
import { LabError } from '../src/lab/namespace.js';
import { pause, until } from '../src/lab/wait.js';
import { connectByVeth, Host } from './host.js';
import { CONNECTIONS, CPU, IperfTransfer } from './iperf.js';
import type { Measurement } from './measurement.js';
import { LINK, openBoundary } from './pair.js';
import { measureSets, ratiosToPlain, type TurnLane } from './turns.js';

type Kind = 'plain' | 'control' | 'gateway';
const KINDS: readonly Kind[] = ['plain', 'control', 'gateway'];
const INNER = '10.91.8.2';
const INSIDE = 'in0';

export const gatewayThroughput: Measurement = {
  name: 'gateway-throughput',
  summary: 'throughput and CPU time per gigabyte through a gateway (iperf3 over veth)',
  measure: async (o) => {
    const lanes: GatewayLane[] = [];
    try {
      for (const kind of KINDS) lanes.push(new GatewayLane(kind));
      const sums = await measureSets('gateway-throughput', lanes, o);
      return ratiosToPlain('gateway throughput', sums, ['control', 'gateway']);
    } finally {
      for (const lane of lanes) lane.remove();
    }
  },
};

class GatewayLane implements TurnLane<Kind> {
  readonly kind: Kind;
  readonly #peer = new Host('peer');
  readonly #gateway = new Host('gw');
  readonly #inner = new Host('inner');
  readonly #boundaries: Boundary[] = [];
  readonly transfer = new IperfTransfer();

  constructor(kind: Kind) {
    this.kind = kind;
    const [peer, gateway, inner] = [this.#peer, this.#gateway, this.#inner];
    connectByVeth(peer, LINK, gateway, LINK);
    connectByVeth(inner, LINK, gateway, INSIDE);
    peer.ip(`addr add 10.91.0.1/24 dev ${LINK}`, 'route add 10.91.8.0/24 via 10.91.0.2');
    gateway.ip(`addr add 10.91.0.2/24 dev ${LINK}`, `addr add 10.91.8.1/24 dev ${INSIDE}`);
    gateway.sysctl({ 'ipv4/ip_forward': '1' });
    inner.ip(`addr add ${INNER}/24 dev ${LINK}`, 'route add default via 10.91.8.1');
    for (const [host, cpu, name] of [
      [peer, CPU.sender, LINK],
      [gateway, CPU.sender, LINK],
      [gateway, CPU.receiver, INSIDE],
      [inner, CPU.receiver, LINK],
    ] as const) {
      host.receiveOn(cpu, name);
    }
    if (kind !== 'gateway') return;
    for (const [host, placement] of [
      [gateway, 'gateway'],
      [peer, 'host'],
    ] as const) {
      const boundary = openBoundary(host);
      this.#boundaries.push(boundary);
      host.inside(() => boundary.attach(LINK, placement));
    }
  }

  async start(): Promise<void> {
    for (const boundary of this.#boundaries) boundary.stockHalves();
    await this.transfer.start(this.#peer, this.#inner, INNER);
    const before = this.receivedBytes();
    await until(`the ${this.kind} transfer`, () => this.receivedBytes() > before + 1e8);
    await pause(100);
    for (const boundary of this.#boundaries) {
      const count = boundary.flows().length;
      if (count < CONNECTIONS) throw new LabError(`${count} TI flows instead of ${CONNECTIONS}`);
    }
    this.transfer.suspend();
  }

  receivedBytes(): number {
    return this.#inner.receivedBytes(LINK);
  }

  remove(): void {
    for (const boundary of this.#boundaries) boundary.close();
    for (const host of [this.#peer, this.#gateway, this.#inner]) host.remove();
  }
}
