/*
 * Plays synchronizations between two agents that only exist here, so that the first real one
 * meets code that V8 has compiled: without it each step of a fresh daemon's first move costs 5 to
 * 10 ms at either end, more than all else together.
 *
 * Nothing leaves: the boundary is a flow in memory, the wire a queue.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  encodeFlow,
  FLOW_FLAG,
  FLOW_SIZE,
  type Flow,
  NEGOTIATED,
  ROLE,
  readFlow,
  WIRE_STATE,
  type Wire,
} from '../boundary/abi.gen.js';
import { type Address, address } from '../wire/address.js';
import { decodePacket } from '../wire/packet.js';
import { seq } from '../wire/seq.js';
import { type Tuple, tupleKey, tupleReverse } from '../wire/tuple.js';
import { SyncAgent, type SyncBoundary } from './agent.js';

/* V8 begins to optimize a function after some hundred calls; each round makes a dozen of most. */
export const ROUNDS = 60;

const HALVES = { initiator: 1, responder: 2 };

/**
 * Plays all rounds, a turn of the event loop each; how many of them went well: all of them.
 * `random`: as the agent's.
 */
export async function rehearse(random: (n: number) => Uint8Array): Promise<number> {
  let proven = 0;
  for (const [ours, theirs] of ADDRESSES) {
    const play = new Play(ours, theirs, random);
    for (let round = 0; round < ROUNDS / ADDRESSES.length; round++) {
      if (play.move()) proven += 1;
      await nextTurn();
    }
  }
  return proven;
}

const ADDRESSES: [Address, Address][] = [
  [address('192.0.2.1'), address('192.0.2.2')],
  [address('2001:db8::1'), address('2001:db8::2')],
];

class Play {
  #kernel: Tuple;
  #mover: Side;
  #peer: Side;

  constructor(local: Address, remote: Address, random: (n: number) => Uint8Array) {
    this.#kernel = { local, remote, localPort: 40_000, remotePort: 22 };
    this.#mover = new Side(this.#kernel, ROLE.INITIATOR, random);
    this.#peer = new Side(tupleReverse(this.#kernel), ROLE.RESPONDER, random);
  }

  /** Whether the flow is carried by the new wire at both ends in the end. */
  move(): boolean {
    const { agent, stage } = this.#mover;
    const before = stage.current.epoch;
    agent.move(this.#kernel, this.#kernel.local, { mtu: 1500, redirect: false });
    for (let sent = true; sent; ) {
      sent = this.#mover.sendTo(this.#peer);
      sent = this.#peer.sendTo(this.#mover) || sent;
    }
    stage.current.flags &= ~FLOW_FLAG.UNPROVEN;
    agent.proven(this.#kernel, 0n);
    const { epoch } = stage.current;
    return agent.state(this.#kernel) === 'steady' && epoch > before && epoch === this.#peer.epoch;
  }
}

/** One end: an agent on a boundary that has one flow. */
class Side {
  readonly agent: SyncAgent;
  readonly stage: OneFlow;
  #out: Uint8Array[] = [];

  constructor(kernel: Tuple, role: number, random: (n: number) => Uint8Array) {
    this.stage = new OneFlow(kernel, role);
    this.agent = new SyncAgent({
      boundary: this.stage,
      raw: { toWire: (packet) => this.#out.push(packet), toKernel: () => undefined },
      clock: { now: () => 0, setTimer: () => undefined, clearTimer: () => undefined },
      random,
      psk: () => undefined,
      config: { sourcePorts: { first: 61_000, last: 65_535 } },
      onEvent: () => undefined,
    });
  }

  get epoch(): number {
    return this.stage.current.epoch;
  }

  /** False if there was nothing to send. */
  sendTo(other: Side): boolean {
    const packets = this.#out.splice(0);
    for (const packet of packets) {
      const p = decodePacket(packet);
      if ('error' in p) continue;
      const tuple = {
        local: p.destination,
        remote: p.source,
        localPort: p.destinationPort,
        remotePort: p.sourcePort,
      };
      other.agent.packet({ tuple, packet, at: 0n });
    }
    return packets.length > 0;
  }
}

class OneFlow implements SyncBoundary {
  current: Flow;
  #kernel: Tuple;
  #wires = new Map<string, Wire>();

  constructor(kernel: Tuple, role: number) {
    this.#kernel = kernel;
    this.current = readFlow(new DataView(new ArrayBuffer(FLOW_SIZE)));
    Object.assign(this.current, { role, options: NEGOTIATED.SACK | NEGOTIATED.WSCALE });
    this.current.initiator.tifidHalf = HALVES.initiator;
    this.current.responder.tifidHalf = HALVES.responder;
    for (const field of ['sndUna', 'sndNxt', 'rcvNxt', 'rcvMax'] as const) {
      this.current[field] = seq(1);
    }
  }

  flow(kernel: Tuple): Flow | undefined {
    if (tupleKey(kernel) !== tupleKey(this.#kernel)) return undefined;
    return readFlow(new DataView(encodeFlow(this.current).buffer));
  }

  tupleOfHalf(half: number): Tuple | undefined {
    const own = this.current.role === ROLE.INITIATOR ? HALVES.initiator : HALVES.responder;
    return half === own ? this.#kernel : undefined;
  }

  wire(t: Tuple): Wire | undefined {
    return this.#wires.get(tupleKey(t));
  }

  setWire(t: Tuple, { kernel, state }: Parameters<SyncBoundary['setWire']>[1]): void {
    const number = state === 'syncing' ? WIRE_STATE.SYNCING : WIRE_STATE.PENDING;
    this.#wires.set(tupleKey(t), { kernel, ack: seq(0), state: number });
  }

  deleteWire(t: Tuple): void {
    this.#wires.delete(tupleKey(t));
  }

  command(c: Parameters<SyncBoundary['command']>[0]): ReturnType<SyncBoundary['command']> {
    if (c.verb === 'map') {
      this.current.mapping[0] = c.mapping;
      this.current.active = 1;
      this.current.epoch = c.epoch;
      if (c.unproven) this.current.flags |= FLOW_FLAG.UNPROVEN;
      this.#wires.clear();
    }
    return { result: 'ok', flow: this.current };
  }
}
