/*
 * What the boundary adds to the time that connect() takes: SYN and SYN/ACK get and lose TI_OPEN,
 * and a flow is made at both ends.
 *
 * One process connects, again and again, to a socket whose kernel completes handshakes by itself:
 * no other process has to be woken up, so the time is that of the two stacks alone.  Batches with
 * and without the boundary on the same veth pair alternate; a sample is the difference of two
 * neighbours' medians.
 */
import { closeFd } from '../src/libc/socket.js';
import { atMost, type Measurement, type Result, result } from './measurement.js';
import { B, Pair } from './pair.js';
import { median } from './statistics.js';
import { accept, connectTo, listenOn, openTcp, sockaddr } from './tcp.js';

/* A port for each batch: thousands of connections in TIME_WAIT to one port make connect() search
 * long for a free source port.
 */
const FIRST_PORT = 5001;
const CONNECTIONS = 300;
const BATCHES = 31;
const ADDED_MAX_US = 50;
const QUICK = { connections: 100, batches: 3 };

export const setUpTime: Measurement = {
  name: 'set-up',
  summary: 'time that the boundary adds to connect()',
  measure: async (o) => {
    const pair = new Pair();
    try {
      const { connections, batches } = o.quick
        ? QUICK
        : { connections: CONNECTIONS, batches: BATCHES };
      return alternate(pair, connections, batches);
    } finally {
      pair.remove();
    }
  },
};

function alternate(pair: Pair, connections: number, batches: number): Result[] {
  const [plain, attached]: [number[], number[]] = [[], []];
  // The first of each warms up caches and the JIT compiler.
  for (let i = 0; i <= batches; i++) {
    pair.detach();
    plain.push(connectTimeUs(pair, FIRST_PORT + i, connections));
    pair.attach();
    attached.push(connectTimeUs(pair, FIRST_PORT + i, connections));
    checkFlows(pair, connections);
    pair.forgetFlows();
  }
  const added = attached.map((time, i) => time - (plain[i] ?? 0)).slice(1);
  return [
    result('set-up plain', 'us/connect', plain.slice(1)),
    result('set-up attached', 'us/connect', attached.slice(1)),
    result('set-up added', 'us/connect', added, atMost(ADDED_MAX_US)),
  ];
}

/** Median of a batch of connections, each closed before the next. */
function connectTimeUs(pair: Pair, port: number, connections: number): number {
  const listener = pair.b.inside(() => listenOn({ address: B, port }, 2 * connections));
  const to = sockaddr({ address: B, port });
  const times = pair.a.inside(() => {
    const taken: number[] = [];
    for (let i = 0; i < connections; i++) {
      const fd = openTcp();
      const begun = process.hrtime.bigint();
      connectTo(fd, to);
      taken.push(Number(process.hrtime.bigint() - begun) / 1e3);
      closeFd(fd);
    }
    return taken;
  });
  for (let i = 0; i < connections; i++) closeFd(accept(listener));
  closeFd(listener);
  return median(times);
}

function checkFlows(pair: Pair, connections: number): void {
  const flows = pair.flows();
  if (flows.every((count) => count === connections)) return;
  throw new Error(`${flows.join(' and ')} TI flows instead of ${connections}`);
}
