/*
 * Ten thousand flows of hosts behind one gateway, whose peer gets a new address: how long until the
 * programs at both ends have what was written meanwhile.
 *
 * Two daemons, three kernels and this program share the CPUs of one machine; on two machines each
 * daemon would have its own.
 */
import { GatewayCrowd, mostConnections } from './gateway-crowd.js';
import { atMost, type Measurement, result } from './measurement.js';

const FULL = { flows: 10_000, moves: 4 };
const QUICK = { flows: 500, moves: 2 };
const AIM = atMost(2000);

export const gatewayMany: Measurement = {
  name: 'gateway-many',
  summary: '10,000 flows behind a gateway resynchronized when their peer moves',
  measure: async (o) => {
    const { moves, flows: wanted } = o.quick ? QUICK : FULL;
    const flows = Math.min(wanted, mostConnections());
    const crowd = new GatewayCrowd();
    try {
      await crowd.open(flows);
      const took: number[] = [];
      for (let i = 0; i < moves; i++) {
        took.push(await crowd.move());
        o.say(`gateway-many: last byte after ${took.at(-1)?.toFixed(0)} ms`);
      }
      const name = `${flows} flows behind a gateway: last byte arrived`;
      return [result(name, 'ms', took, AIM)];
    } finally {
      crowd.remove();
    }
  },
};
