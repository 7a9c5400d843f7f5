/*
 * What a guest sends to one client when the boundary is on its tap, before and after a migration,
 * beside a guest without tiflow; each lane's guest has been migrated as often as the other's.
 *
 * The control is a second plain lane: its ratio shows what the noise is.  Turns are short and go
 * round, as in throughput.ts; a sample is one connection of each lane.
 */
import { type Measurement, type MeasureOptions, result } from './measurement.js';
import { median } from './statistics.js';
import { VmLane, type VmLaneKind } from './vm-lane.js';
import { VmTransfer } from './vm-transfer.js';

type Name = 'plain' | 'control' | 'tiflow';
const NAMES: readonly Name[] = ['plain', 'control', 'tiflow'];
const KINDS: Record<Name, VmLaneKind> = {
  plain: 'same subnet',
  control: 'same subnet',
  tiflow: 'tiflow',
};
const FULL = { turnMs: 800, rounds: 4, sets: 5 };
const QUICK = { turnMs: 300, rounds: 2, sets: 1 };

interface Party {
  name: Name;
  lane: VmLane;
  transfer: VmTransfer;
}

/** Mbit/s by lane. */
type Rates = Record<Name, number>;
interface SetOfRates {
  before: Rates;
  after: Rates;
}

export const vmThroughput: Measurement = {
  name: 'vm-throughput',
  summary: "a guest's throughput with tiflow on its hypervisor, before and after a migration",
  measure: async (o) => {
    const lanes: VmLane[] = [];
    try {
      for (const [i, name] of NAMES.entries()) lanes.push(await VmLane.build(KINDS[name], i));
      const parties = lanes.map((lane, i) => {
        return { name: NAMES[i] ?? 'plain', lane, transfer: VmTransfer.prepare(lane) };
      });
      return results(await measureSets(parties, o));
    } finally {
      for (const lane of lanes) lane.remove();
    }
  },
};

async function measureSets(parties: readonly Party[], o: MeasureOptions): Promise<SetOfRates[]> {
  const { turnMs, rounds, sets } = o.quick ? QUICK : FULL;
  const count = o.repetitions ?? sets;
  const measured: SetOfRates[] = [];
  for (let i = 0; i < count; i++) {
    for (const { transfer } of parties) await transfer.start();
    const before = await takeTurns(parties, turnMs, rounds);
    for (const { lane, transfer } of parties) {
      await lane.move();
      await transfer.goOn();
    }
    const after = await takeTurns(parties, turnMs, rounds);
    for (const { transfer } of parties) transfer.stop();
    for (const { lane } of parties) await lane.move();
    measured.push({ before, after });
    o.say(`vm-throughput, set ${i + 1} of ${count}: before ${text(before)}; after ${text(after)}`);
  }
  return measured;
}

async function takeTurns(
  parties: readonly Party[],
  turnMs: number,
  rounds: number,
): Promise<Rates> {
  const turns = new Map(NAMES.map((name) => [name, [] as number[]]));
  for (let round = 0; round < rounds; round++) {
    // Each lane is first as often as last: a drift of the machine hits all alike.
    const order = round % 2 === 0 ? parties : [...parties].reverse();
    for (const { name, transfer } of order) {
      turns.get(name)?.push(await transfer.takeTurn(turnMs));
    }
  }
  return Object.fromEntries([...turns].map(([name, rates]) => [name, median(rates)])) as Rates;
}

function results(sets: readonly SetOfRates[]) {
  return (['before', 'after'] as const).flatMap((when) => {
    const ratio = (name: Name) => sets.map((set) => set[when][name] / set[when].plain);
    const plain = sets.map((set) => set[when].plain);
    return [
      result(`VM throughput ${when} migration: plain`, 'Mbit/s', plain),
      result(`VM throughput ${when} migration: control / plain`, 'ratio', ratio('control')),
      result(`VM throughput ${when} migration: tiflow / plain`, 'ratio', ratio('tiflow')),
    ];
  });
}

const text = (rates: Rates): string =>
  `${NAMES.map((name) => `${name} ${rates[name].toFixed(0)}`).join(', ')} Mbit/s`;
