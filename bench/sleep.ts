/*
 * A sleep that is longer than either kernel waits for an acknowledgement: how soon data flows
 * again, and how many connections live to see it, tiflow beside plain TCP whose address comes back.
 * The network is that of the blackout measurement.
 *
 * With Linux' default the kernel waits for a quarter of an hour.  Five retransmissions (13 to 26 s)
 * are the same situation sooner.
 */
import { pause } from '../src/lab/wait.js';
import { ConnectionLost, measureOne, type Sample } from './blackout.js';
import { BlackoutNetwork } from './blackout-network.js';
import { atLeast, atMost, type Measurement, type MeasureOptions, result } from './measurement.js';

const RETRIES = 5;
const SECONDS = 60;
const SECONDS_QUICK = 30;
const NETWORKS = 5;
const NETWORKS_QUICK = 1;
const STAGGER_MS = 400;
const AIM = atMost(15, '1 round trip + 15 ms');

export const sleep: Measurement = {
  name: 'sleep',
  summary: `the gap after a sleep of ${SECONDS} s that the kernels would not outlast`,
  measure: async (o) => {
    const networks: BlackoutNetwork[] = [];
    try {
      const count = o.quick ? NETWORKS_QUICK : NETWORKS;
      for (let i = 0; i < 2 * count; i++) networks.push(await BlackoutNetwork.build(i % 2 === 0));
      return await measureAll(networks, o);
    } finally {
      for (const network of networks) network.remove();
    }
  },
};

async function measureAll(networks: readonly BlackoutNetwork[], o: MeasureOptions) {
  const taken = await Promise.all(
    networks.map(async (network, i) => {
      network.limitRetries(RETRIES);
      await pause(i * STAGGER_MS);
      const sample = await survived(network, o.quick ? SECONDS_QUICK : SECONDS);
      return { hasTiflow: network.hasTiflow, sample };
    }),
  );
  const of = (hasTiflow: boolean) =>
    taken.filter((t) => t.hasTiflow === hasTiflow).map((t) => t.sample);
  const kept = (hasTiflow: boolean) => of(hasTiflow).map((sample) => (sample ? 1 : 0));
  const samples = of(true).filter((sample) => sample !== undefined);
  const name = `sleep ${SECONDS} s, tcp_retries2 ${RETRIES}`;
  const late = (from: (s: Sample) => number) => samples.map((s) => from(s) - s.roundTripMs);
  const after = 'ms after 1 round trip';
  return [
    result(`${name}: connections kept`, 'share', kept(true), atLeast(1)),
    result(`${name}: connections kept, plain TCP`, 'share', kept(false)),
    result(
      `${name}: mover's first byte`,
      after,
      late((s) => s.fromMover),
      AIM,
    ),
    result(
      `${name}: peer's first byte`,
      after,
      late((s) => s.fromPeer),
      AIM,
    ),
  ];
}

/** undefined: the connection is gone. */
async function survived(network: BlackoutNetwork, seconds: number): Promise<Sample | undefined> {
  try {
    return await measureOne(network, seconds);
  } catch (error) {
    if (error instanceof ConnectionLost) return undefined;
    throw error;
  }
}
