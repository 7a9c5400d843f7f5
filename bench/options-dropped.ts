/*
 * What it costs to open a connection where a firewall drops SYNs with unknown options: two lost
 * SYNs the first and the second time, nothing while the destination is remembered.  For a sample,
 * one new destination and three connections to it, beside one without a boundary.
 */
import { runInside } from '../src/lab/namespace.js';
import { closeFd } from '../src/libc/socket.js';
import { atMost, type Measurement, type Result, result } from './measurement.js';
import { LINK, Pair } from './pair.js';
import { accept, connectTo, listenOn, openTcp, sockaddr } from './tcp.js';

const PORT = 5001;
const DESTINATIONS = 9;
const QUICK_DESTINATIONS = 1;
/* As what the boundary adds where nothing is dropped (set-up-time.ts). */
const REMEMBERED_MAX_US = 50;

const FIREWALL = `table inet firewall {
  chain prerouting {
    type filter hook prerouting priority raw
    tcp flags & syn == syn tcp option 253 exists drop
  }
}
`;

export const optionsDropped: Measurement = {
  name: 'options-dropped',
  summary: 'time lost at set-up where unknown options are dropped',
  measure: async (o) => {
    const pair = new Pair();
    try {
      return perDestination(pair, o.quick ? QUICK_DESTINATIONS : DESTINATIONS);
    } finally {
      pair.remove();
    }
  },
};

function perDestination(pair: Pair, destinations: number): Result[] {
  runInside(pair.b.namespace, ['nft', '-f', '-'], FIREWALL);
  const [lostMs, addedUs]: [number[], number[]] = [[], []];
  // The first warms up caches and the JIT compiler.
  for (let i = 0; i <= destinations; i++) {
    const address = `10.91.0.${10 + i}`;
    pair.b.ip(`addr add ${address}/24 dev ${LINK}`);
    // Also resolves the neighbour, which none of the three is to wait for.
    connectTimeUs(pair, address);
    const plain = connectTimeUs(pair, address);
    pair.attach();
    lostMs.push((connectTimeUs(pair, address) - plain) / 1e3);
    // Only the second that is lost as well tells that it was no chance.
    connectTimeUs(pair, address);
    addedUs.push(connectTimeUs(pair, address) - plain);
    pair.detach();
  }
  return [
    result('options dropped, first connection: added', 'ms/connect', lostMs.slice(1)),
    result(
      'options dropped, destination remembered: added',
      'us/connect',
      addedUs.slice(1),
      atMost(REMEMBERED_MAX_US),
    ),
  ];
}

function connectTimeUs(pair: Pair, address: string): number {
  const listener = pair.b.inside(() => listenOn({ address, port: PORT }, 1));
  const to = sockaddr({ address, port: PORT });
  const fd = pair.a.inside(() => openTcp());
  const begun = process.hrtime.bigint();
  connectTo(fd, to);
  const took = Number(process.hrtime.bigint() - begun) / 1e3;
  for (const each of [accept(listener), fd, listener]) closeFd(each);
  return took;
}
