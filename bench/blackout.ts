/*
 * How soon data flows again after a time without any network, both sides writing: tiflow, whose
 * mover gets an address in another subnet, beside plain TCP, whose address comes back.
 *
 *   cut ─── blackout ─── carrier ── 0.3 s ── address and route: 0 ──► first byte leaves, each side
 *
 * The path has a round trip of 20 ms.  A first byte is noted when the program at the far end has
 * it; it left half a round trip earlier.  The earliest a mover can send is one round trip after its
 * address (SYN, SYN/ACK); the peer, which waits for the CONFIRM, one and a half.
 *
 * Several networks at once: all they do is wait.  They begin one after the other, so that no two
 * are being restored at the same time.
 */
import { pause, until } from '../src/lab/wait.js';
import { BlackoutNetwork } from './blackout-network.js';
import { Dialogue } from './dialogue.js';
import {
  atMost,
  type Measurement,
  type MeasureOptions,
  type Result,
  result,
} from './measurement.js';

const NETWORKS = 5;
/* How often: a short one is cheap, and where it falls between two retransmissions of the kernel
 * matters most.
 */
const BLACKOUTS = [
  { seconds: 1, times: 3 },
  { seconds: 10, times: 1 },
  { seconds: 60, times: 1 },
];
const BLACKOUTS_QUICK = [{ seconds: 1, times: 1 }];
/* Each is up to a tenth shorter or longer: the kernel's timers run to a pattern, and one point of
 * it would be a sample of one.
 */
const SPREAD = 0.1;
const STAGGER_MS = 400;
const WARM_UP_MS = 1_000;
const CARRIER_MS = 300;
/* The longest pause of a kernel's retransmissions. */
const RECOVERY_MAX_MS = 130_000;
const AIM = atMost(15, '1 round trip + 15 ms');

/** ms from the new address until the first byte left. */
export interface Sample {
  roundTripMs: number;
  fromMover: number;
  fromPeer: number;
}

export const blackout: Measurement = {
  name: 'blackout',
  summary: 'time to the first byte after 1, 10 and 60 s without a network',
  measure: async (o) => {
    const count = o.quick ? 2 : NETWORKS;
    const networks: BlackoutNetwork[] = [];
    try {
      for (let i = 0; i < 2 * count; i++) networks.push(await BlackoutNetwork.build(i % 2 === 0));
      const results: Result[] = [];
      for (const wanted of o.quick ? BLACKOUTS_QUICK : BLACKOUTS) {
        results.push(...(await measureAll(networks, wanted, o)));
      }
      return results;
    } finally {
      for (const network of networks) network.remove();
    }
  },
};

/** All networks at once, each as often as asked for. */
async function measureAll(
  networks: readonly BlackoutNetwork[],
  { seconds, times }: { seconds: number; times: number },
  o: MeasureOptions,
): Promise<Result[]> {
  const taken = await Promise.all(
    networks.map(async (network, i) => {
      await pause(i * STAGGER_MS);
      const samples: Sample[] = [];
      for (let time = 0; time < times; time++) {
        const share = (time * networks.length + i) / (times * networks.length);
        samples.push(await measureOne(network, seconds * (1 - SPREAD + 2 * SPREAD * share)));
      }
      return { hasTiflow: network.hasTiflow, samples };
    }),
  );
  const of = (hasTiflow: boolean): Sample[] =>
    taken.filter((t) => t.hasTiflow === hasTiflow).flatMap((t) => t.samples);
  const [tiflow, plain] = [of(true), of(false)];
  o.say(`blackout of ${seconds} s, mover/peer: tiflow ${text(tiflow)}; plain ${text(plain)}`);
  return rows(`blackout ${seconds} s`, tiflow, plain);
}

function rows(name: string, tiflow: readonly Sample[], plain: readonly Sample[]): Result[] {
  const roundTrips = [...tiflow, ...plain].map((s) => s.roundTripMs);
  const sides = [
    { side: 'mover', from: (s: Sample) => s.fromMover },
    { side: 'peer', from: (s: Sample) => s.fromPeer },
  ];
  return [
    result(`${name}: round trip`, 'ms', roundTrips),
    ...sides.flatMap(({ side, from }) => {
      const late = tiflow.map((s) => from(s) - s.roundTripMs);
      return [
        result(`${name}: ${side}'s first byte`, 'ms after 1 round trip', late, AIM),
        result(`${name}: ${side}'s first byte, plain TCP`, 'ms', plain.map(from)),
      ];
    }),
  ];
}

const text = (samples: readonly Sample[]): string =>
  samples.map((s) => `${s.fromMover.toFixed(0)}/${s.fromPeer.toFixed(0)}`).join(' ');

/** A program at one end was told that its connection is over. */
export class ConnectionLost extends Error {
  override readonly name = 'ConnectionLost';
}

/** One blackout of one network, on a connection of its own.  Throws ConnectionLost. */
export async function measureOne(network: BlackoutNetwork, seconds: number): Promise<Sample> {
  const dialogue = new Dialogue(network.mover, network.peer, network.moverAddress);
  try {
    await pause(WARM_UP_MS);
    await network.checkProtected();
    network.cut();
    await pause(seconds * 1000 - CARRIER_MS);
    network.plugIn();
    await pause(CARRIER_MS);
    const { server: mover, client: peer } = dialogue.ends;
    for (const end of [mover, peer]) end.expect();
    const usable = network.configure();
    const arrivals = await until(
      'both directions to flow again',
      () => {
        const error = peer.error ?? mover.error;
        if (error !== undefined) throw new ConnectionLost(error);
        const [atPeer, atMover] = [peer.firstArrivalMs, mover.firstArrivalMs];
        return atPeer !== undefined && atMover !== undefined && { atPeer, atMover };
      },
      RECOVERY_MAX_MS,
    );
    const halfMs = dialogue.roundTripMs / 2;
    return {
      roundTripMs: dialogue.roundTripMs,
      fromMover: arrivals.atPeer - usable - halfMs,
      fromPeer: arrivals.atMover - usable - halfMs,
    };
  } finally {
    dialogue.close();
  }
}
