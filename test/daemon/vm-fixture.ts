/* What a VM has of flows and packets in tests: one guest, one peer, many ports. */

import { FLOW_SIZE, type Flow, readFlow } from '../../src/boundary/abi.gen.js';
import { address } from '../../src/wire/address.js';
import { mac } from '../../src/wire/ethernet.js';
import { decodePacket, type Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import type { Tuple } from '../../src/wire/tuple.js';

export const TAP = 7;
export const GUEST_MAC = mac('52:54:00:00:00:0a');
export const INSIDE = address('192.0.2.10');
export const OUTSIDE = address('198.51.100.10');
export const PEER = address('203.0.113.7');

export const tupleOf = (localPort: number, tap = TAP): Tuple => ({
  local: INSIDE,
  remote: PEER,
  localPort,
  remotePort: 40_000,
  tap,
});

/** An established flow, its numbers chosen so that each can be told from the others. */
export function flowOf(o: Partial<Flow> = {}): Flow {
  const flow = readFlow(new DataView(new ArrayBuffer(FLOW_SIZE)));
  flow.initiator.tifidHalf = 0x0a0b0c0d;
  flow.responder.tifidHalf = 0x01020304;
  return { ...flow, sndNxt: seq(1000), sndUna: seq(900), rcvNxt: seq(0xffff_fff0), epoch: 3, ...o };
}

/** As a reader of the wire sees it; throws if it is none. */
export function read(bytes: Uint8Array): Packet {
  const packet = decodePacket(bytes);
  if ('error' in packet) throw new Error(packet.error);
  return packet;
}
