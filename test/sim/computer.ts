/*
 * A machine without its daemon's decisions: kernel, boundary, the addresses that it has on the network,
 * and a synchronization agent that may die at any point.
 *
 * The fault that can hit it is exact: the daemon dies before the n-th thing that it asks of the
 * boundary or of the raw socket.  host.ts and machine.ts say what the daemon does with the agent.
 */
import { WIRE_STATE } from '../../src/boundary/abi.gen.js';
import { type Clock, SyncAgent, type SyncBoundary, type SyncEvent } from '../../src/sync/agent.js';
import type { Address } from '../../src/wire/address.js';
import { decodePacket, type Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { tupleText } from '../../src/wire/tuple.js';
import { BoundaryModel, incoming, type ModelEvent } from './boundary-model.js';
import { type FakeClock, MortalClock } from './fake-clock.js';
import type { LinkModel } from './link-model.js';
import type { Random } from './random.js';
import { type TcpEnd, TcpModel } from './tcp-model.js';

/** The daemon dies here; not an Error, so that nothing takes it for one. */
const DEATH = Symbol('death of the daemon');

const RESTART_MAX_MS = 3000;
const SWEEP_MS = 5000;
const FORMER_WIRE_NS = 60_000_000_000n;

export interface Surroundings {
  clock: FakeClock;
  random: Random;
  link: LinkModel;
}

export abstract class Computer {
  readonly boundary: BoundaryModel;
  readonly kernels = new Map<string, TcpModel>();
  /** All that this machine ever was reachable at. */
  readonly everOwned = new Set<Address>();
  readonly events: SyncEvent[] = [];
  /** Synchronization packets that the agents of this machine have really made. */
  readonly made: Packet[] = [];
  deaths = 0;
  protected readonly clock: FakeClock;
  protected readonly random: Random;
  protected readonly link: LinkModel;
  /** Time as the daemon of now knows it: it ends with it. */
  protected daemonClock: Clock;
  #agent: SyncAgent | undefined;
  #mortal: MortalClock;
  /** Things done until death; undefined: it lives on. */
  #lifeLeft: number | undefined;

  constructor(
    readonly name: string,
    { clock, random, link }: Surroundings,
    private readonly places?: number,
  ) {
    this.clock = clock;
    this.random = random;
    this.link = link;
    this.boundary = new BoundaryModel(() => BigInt(Math.round(clock.now() * 1e6)) + 1n);
    this.#mortal = new MortalClock(clock);
    this.daemonClock = this.#mortal;
  }

  /** What a new daemon does first. */
  protected abstract begin(agent: SyncAgent): void;

  protected abstract handle(agent: SyncAgent, event: ModelEvent): void;

  /** To be called with each event of the agent. */
  protected synchronized(event: SyncEvent): void {
    this.events.push(event);
  }

  /** Its packet is on its way to the network. */
  protected sending(_packet: Packet): void {
    // Nothing to be checked.
  }

  open(end: TcpEnd): TcpModel {
    const kernel = new TcpModel(end, this.clock, (p) => {
      const outside = this.boundary.egress(p);
      if (outside !== undefined) this.link.send(outside);
      this.#readSoon();
    });
    this.kernels.set(tupleText(end.tuple), kernel);
    return kernel;
  }

  plug(address: Address): void {
    this.everOwned.add(address);
    this.link.plug(address, (p) => this.#arrived(p));
  }

  unplug(address: Address): void {
    this.link.unplug(address);
  }

  killAfter(things: number): void {
    this.#lifeLeft = things;
  }

  startDaemon(): void {
    const mortal = new MortalClock(this.clock);
    this.#mortal = mortal;
    const clock: Clock = {
      now: () => mortal.now(),
      setTimer: (ms, f) => mortal.setTimer(ms, () => this.supervise(f)),
      clearTimer: (timer) => mortal.clearTimer(timer),
    };
    this.daemonClock = clock;
    this.#agent = new SyncAgent({
      boundary: this.mortalBoundary(),
      raw: {
        toWire: (bytes) => this.#fate(() => this.#toWire(decoded(bytes))),
        toKernel: (bytes) => this.#fate(() => this.inject(bytes)),
      },
      clock,
      random: (n) => this.random.bytes(n),
      psk: () => undefined,
      config: {
        sourcePorts: { first: 61_000, last: 65_535 },
        ...(this.places === undefined ? {} : { places: this.places }),
      },
      onEvent: (event) => this.synchronized(event),
    });
    this.supervise((agent) => {
      for (const { wire, entry } of [...this.boundary.wires.values()]) {
        if (entry.state !== WIRE_STATE.ACTIVE) this.boundary.deleteWire(wire);
      }
      this.begin(agent);
    });
    this.#sweep();
    this.readEvents();
  }

  get load(): { moving: number; candidates: number } {
    return this.#agent?.load() ?? { moving: 0, candidates: 0 };
  }

  get isAlive(): boolean {
    return this.#agent !== undefined;
  }

  readEvents(): void {
    while (this.#agent !== undefined) {
      const event = this.boundary.events.shift();
      if (event === undefined) return;
      this.supervise((agent) => this.handle(agent, event));
    }
  }

  #readSoon(): void {
    if (this.boundary.events.length === 0) return;
    this.clock.setTimer(this.random.between(0, 2), () => this.readEvents());
  }

  #sweep(): void {
    this.boundary.sweepWires(FORMER_WIRE_NS);
    this.#mortal.setTimer(SWEEP_MS, () => this.#sweep());
  }

  /** Does what the daemon does, if there is one; it may die of it. */
  protected supervise(act: (agent: SyncAgent) => void): void {
    const agent = this.#agent;
    if (agent === undefined) return;
    try {
      act(agent);
    } catch (death) {
      if (death !== DEATH) throw death;
      this.#agent = undefined;
      this.#mortal.kill();
      this.#lifeLeft = undefined;
      this.deaths += 1;
      this.clock.setTimer(this.random.between(1, RESTART_MAX_MS), () => this.startDaemon());
    }
  }

  #fate<T>(act: () => T): T {
    if (this.#lifeLeft === 0) throw DEATH;
    if (this.#lifeLeft !== undefined) this.#lifeLeft -= 1;
    return act();
  }

  protected mortalBoundary(): SyncBoundary {
    const b = this.boundary;
    return {
      flow: (t) => b.flow(t),
      tupleOfHalf: (half) => b.tupleOfHalf(half),
      wire: (t) => b.wire(t),
      setWire: (t, w) => this.#fate(() => b.setWire(t, w)),
      deleteWire: (t) => this.#fate(() => b.deleteWire(t)),
      command: (c) => this.#fate(() => b.command(c)),
    };
  }

  #toWire(p: Packet): void {
    this.made.push(p);
    this.sending(p);
    this.link.send(p);
  }

  #arrived(p: Packet): void {
    const inside = this.boundary.ingress(p);
    if (inside !== undefined) this.#toKernel(inside);
    this.#readSoon();
  }

  #toKernel(p: Packet): void {
    const kernel = this.kernels.get(tupleText(incoming(p)));
    if (kernel !== undefined) kernel.receive(p);
    else if (!p.flags.includes('R')) this.#refuse(p);
  }

  /** RFC 9293, section 3.10.7.1: a segment for no connection is reset. */
  #refuse(p: Packet): void {
    const acked = p.flags.includes('A');
    this.link.send({
      ...p,
      source: p.destination,
      sourcePort: p.destinationPort,
      destination: p.source,
      destinationPort: p.sourcePort,
      flags: acked ? 'R' : 'RA',
      seq: acked ? p.ack : seq(0),
      ack: acked ? seq(0) : seq(p.seq + p.payload.length + 1),
      options: [],
      payload: new Uint8Array(0),
    });
  }

  /** A raw packet for the own kernel: TCP, or an ICMP error that quotes one of its own. */
  protected inject(bytes: Uint8Array): void {
    const isIpv4 = bytes[0] === 0x45;
    if (bytes[isIpv4 ? 9 : 6] === 6) {
      this.#toKernel(decoded(bytes));
      return;
    }
    // Behind the IP header, the ICMP header and the quoted IP header.
    const quoted = new DataView(bytes.buffer, bytes.byteOffset + (isIpv4 ? 48 : 88));
    for (const kernel of this.kernels.values()) {
      const { localPort, remotePort } = kernel.end.tuple;
      if (quoted.getUint16(0) === localPort && quoted.getUint16(2) === remotePort) {
        kernel.unreachable(seq(quoted.getUint32(4)));
      }
    }
  }
}

function decoded(bytes: Uint8Array): Packet {
  const packet = decodePacket(bytes);
  if ('error' in packet) throw new Error(packet.error);
  return packet;
}
