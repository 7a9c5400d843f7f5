/*
 * The flows of a VM on their way to another hypervisor: everything that the tables hold of them, in
 * bytes, which the next boundary takes in as they are.
 *
 * It outlives the process and the version that wrote it, so it begins with a magic number, its
 * version, and the lowest version that may read it; big-endian, as numbers that travel are.  What
 * follows are records of the data plane, little-endian as in its maps, so their sizes are told.
 *
 *   0 "TIFL"  4 version  6 lowest compatible  8 flow bytes  10 plain bytes  12 flows  16 plain
 *   20 CLOCK_MONOTONIC of the writer's machine, ns
 *   28 flows: tuple, struct flow …   plain: tuple, struct plain …
 */
import type { Tuple } from '../wire/tuple.js';
import {
  ABI_VERSION,
  encodeFlow,
  encodePlain,
  encodeTuple,
  FLOW_SIZE,
  type Flow,
  PLAIN_SIZE,
  type Plain,
  readFlow,
  readPlain,
  readTuple,
  TUPLE_SIZE,
} from './abi.gen.js';

const MAGIC = 0x5449464c;
const HEADER_SIZE = 28;
/** The layout of struct flow is what a reader must know. */
const LOWEST_COMPATIBLE = 3;

/** What travels: TI flows, and why the other connections are none. */
export interface Luggage {
  flows: Array<[Tuple, Flow]>;
  plain: Array<[Tuple, Plain]>;
}

/** In what form they travel: what two hypervisors have to agree on. */
export interface LuggageFormat {
  version: number;
  /** The lowest version that may read it. */
  lowest: number;
  flow_bytes: number;
  plain_bytes: number;
}

export const LUGGAGE_FORMAT: LuggageFormat = {
  version: ABI_VERSION,
  lowest: LOWEST_COMPATIBLE,
  flow_bytes: FLOW_SIZE,
  plain_bytes: PLAIN_SIZE,
};

/** Can what travels in one form be read by whom packs in the other? */
export function canRead(here: LuggageFormat, from: LuggageFormat): boolean {
  return (
    from.lowest <= here.version &&
    from.version >= here.lowest &&
    from.flow_bytes === here.flow_bytes &&
    from.plain_bytes === here.plain_bytes
  );
}

/** The bytes cannot be read; the message says why. */
export class LuggageError extends Error {
  override readonly name = 'LuggageError';
  readonly code = 'EPROTO';
}

/** As it travels.  `nowNs`: CLOCK_MONOTONIC, which all times in it are of. */
export function packLuggage({ flows, plain }: Luggage, nowNs: bigint): Uint8Array {
  const header = Buffer.alloc(HEADER_SIZE);
  header.writeUInt32BE(MAGIC, 0);
  header.writeUInt16BE(ABI_VERSION, 4);
  header.writeUInt16BE(LOWEST_COMPATIBLE, 6);
  header.writeUInt16BE(FLOW_SIZE, 8);
  header.writeUInt16BE(PLAIN_SIZE, 10);
  header.writeUInt32BE(flows.length, 12);
  header.writeUInt32BE(plain.length, 16);
  header.writeBigUInt64BE(nowNs, 20);
  return Buffer.concat([
    header,
    ...flows.flatMap(([tuple, flow]) => [encodeTuple(tuple), encodeFlow(flow)]),
    ...plain.flatMap(([tuple, why]) => [encodeTuple(tuple), encodePlain(why)]),
  ]);
}

/** Where it is unpacked: behind which tap, and what CLOCK_MONOTONIC says there, ns. */
export interface Arrival {
  tap: number;
  nowNs: bigint;
}

/** What came, in this machine's names and times.  Throws LuggageError. */
export function unpackLuggage(bytes: Uint8Array, { tap, nowNs }: Arrival): Luggage {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < HEADER_SIZE || view.getUint32(0) !== MAGIC) {
    throw new LuggageError('take in the flows of a VM: these are none');
  }
  const [version, lowest] = [view.getUint16(4), view.getUint16(6)];
  const bytesOf = { flow_bytes: view.getUint16(8), plain_bytes: view.getUint16(10) };
  if (!canRead(LUGGAGE_FORMAT, { version, lowest, ...bytesOf })) {
    const here = `this program reads ${ABI_VERSION}`;
    throw new LuggageError(`take in the flows of a VM: they are of version ${version}, ${here}`);
  }
  const [flows, plain] = [view.getUint32(12), view.getUint32(16)];
  const [flowStep, plainStep] = [TUPLE_SIZE + FLOW_SIZE, TUPLE_SIZE + PLAIN_SIZE];
  const plainAt = HEADER_SIZE + flows * flowStep;
  if (bytes.length !== plainAt + plain * plainStep) {
    throw new LuggageError('take in the flows of a VM: they are cut off');
  }
  const later = nowNs - view.getBigUint64(20);
  const tupleAt = (at: number): Tuple => ({ ...readTuple(view, at), tap });
  return {
    flows: Array.from({ length: flows }, (_, i) => {
      const at = HEADER_SIZE + i * flowStep;
      return [tupleAt(at), arrived(readFlow(view, at + TUPLE_SIZE), tap, later)];
    }),
    plain: Array.from({ length: plain }, (_, i) => {
      const at = plainAt + i * plainStep;
      const plain = readPlain(view, at + TUPLE_SIZE);
      return [tupleAt(at), { ...plain, since: shift(plain.since, later) }];
    }),
  };
}

/* The machines were started at different times.  0 stays: it means "never". */
const shift = (at: bigint, by: bigint): bigint => {
  if (at === 0n) return at;
  return at + by > 0n ? at + by : 1n;
};

const arrived = (flow: Flow, tap: number, later: bigint): Flow => ({
  ...flow,
  created: shift(flow.created, later),
  seenIn: shift(flow.seenIn, later),
  seenOut: shift(flow.seenOut, later),
  resumedAt: shift(flow.resumedAt, later),
  resentSince: shift(flow.resentSince, later),
  frozenUntil: shift(flow.frozenUntil, later),
  movedAt: shift(flow.movedAt, later),
  gapSince: shift(flow.gapSince, later),
  mapping: [
    { ...flow.mapping[0], wire: { ...flow.mapping[0].wire, tap } },
    { ...flow.mapping[1], wire: { ...flow.mapping[1].wire, tap } },
  ],
});
