/*
 * Throughput and CPU time per gigabyte of an iperf3 transfer: plain, through a boundary, moved.
 * The control is a second plain lane: its ratio shows what the noise is.
 */
import { Lane, type LaneKind } from './lanes.js';
import { type Aim, atLeast, type Measurement } from './measurement.js';
import { measureSets, ratiosToPlain } from './turns.js';

const KINDS: readonly LaneKind[] = ['plain', 'control', 'attached', 'moved'];
const AIMS: Partial<Record<LaneKind, Aim>> = { attached: atLeast(0.99), moved: atLeast(0.97) };

export const throughput: Measurement = {
  name: 'throughput',
  summary: 'throughput and CPU time per gigabyte (iperf3 over veth)',
  measure: async (o) => {
    const lanes: Lane[] = [];
    try {
      for (const kind of KINDS) lanes.push(await Lane.build(kind));
      const sums = await measureSets('throughput', lanes, o);
      return ratiosToPlain('throughput', sums, KINDS.slice(1), AIMS);
    } finally {
      for (const lane of lanes) lane.remove();
    }
  },
};
