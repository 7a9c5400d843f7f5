/*
 * A thousand flows of one host get a new address: how long until the last is proven at the mover.
 *
 * The round trip is next to nothing: what is measured is the work of two daemons and two kernels
 * on this machine's CPUs.  The first move that a daemon makes is apart from later ones, for which
 * V8 has compiled the code.
 */
import { Crowd, type CrowdMove } from './crowd.js';
import { atMost, type Measurement, type Result, result } from './measurement.js';

const FULL = { flows: 1000, crowds: 5, movesEach: 3 };
const QUICK = { flows: 100, crowds: 1, movesEach: 2 };
const AIM = atMost(500);

export const many: Measurement = {
  name: 'many',
  summary: '1,000 flows resynchronized at once',
  measure: async (o) => {
    const { flows, crowds, movesEach } = o.quick ? QUICK : FULL;
    const [first, later]: [CrowdMove[], CrowdMove[]] = [[], []];
    for (let i = 0; i < crowds; i++) {
      const moves = await moveCrowd(flows, movesEach);
      first.push(...moves.slice(0, 1));
      later.push(...moves.slice(1));
      o.say(`many: proven after ${moves.map((m) => m.proven.toFixed(0)).join(', ')} ms`);
    }
    return [
      ...results(`${flows} flows, first move`, first),
      ...results(`${flows} flows, later move`, later),
    ];
  },
};

async function moveCrowd(flows: number, count: number): Promise<CrowdMove[]> {
  const crowd = new Crowd();
  try {
    await crowd.open(flows);
    const moves: CrowdMove[] = [];
    for (let i = 0; i < count; i++) moves.push(await crowd.move());
    return moves;
  } finally {
    crowd.remove();
  }
}

const results = (name: string, moves: readonly CrowdMove[]): Result[] => [
  result(
    `${name}: last one proven`,
    'ms',
    moves.map((m) => m.proven),
    AIM,
  ),
  result(
    `${name}: last byte arrived`,
    'ms',
    moves.map((m) => m.arrived),
  ),
];
