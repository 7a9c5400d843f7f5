/*
 * A machine: kernel, boundary, and a daemon that may die at any point.
 *
 * The daemon here does what src/daemon does with the agent, and no more: it begins flows whose
 * address is gone, or which it finds unproven, and releases those it finds held for nothing.
 * The fault that can hit it is exact: it dies before the n-th thing that it asks of the boundary
 * or of the raw socket.
 */
import { FLOW_FLAG } from '../../src/boundary/abi.gen.js';
import { SyncAgent, type SyncBoundary, type SyncEvent } from '../../src/sync/agent.js';
import { wireOf } from '../../src/sync/handshake.js';
import type { Address } from '../../src/wire/address.js';
import { decodePacket, type Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { type Tuple, tupleText } from '../../src/wire/tuple.js';
import { BoundaryModel, incoming, type ModelEvent } from './boundary-model.js';
import { type FakeClock, MortalClock } from './fake-clock.js';
import type { LinkModel } from './link-model.js';
import type { Random } from './random.js';
import { type TcpEnd, TcpModel } from './tcp-model.js';

/** The daemon dies here; not an Error, so that nothing takes it for one. */
const DEATH = Symbol('death of the daemon');

const QUARANTINE_MS = 3000;
const SWEEP_MS = 5000;
const FORMER_WIRE_NS = 60_000_000_000n;
const MTU = 1500;

export class Host {
  readonly boundary: BoundaryModel;
  readonly kernels = new Map<string, TcpModel>();
  readonly addresses = new Set<Address>();
  /** All that this machine ever was reachable at. */
  readonly everOwned = new Set<Address>();
  readonly events: SyncEvent[] = [];
  /** Synchronization packets that the agents of this machine have really made. */
  readonly made: Packet[] = [];
  deaths = 0;
  #agent: SyncAgent | undefined;
  #mortal: MortalClock;
  #source: Address | undefined;
  /** Things done until death; undefined: it lives on. */
  #lifeLeft: number | undefined;

  constructor(
    readonly name: string,
    private readonly clock: FakeClock,
    private readonly random: Random,
    private readonly link: LinkModel,
  ) {
    this.boundary = new BoundaryModel(() => BigInt(Math.round(clock.now() * 1e6)) + 1n);
    this.#mortal = new MortalClock(clock);
    this.startDaemon();
  }

  open(end: TcpEnd): TcpModel {
    const kernel = new TcpModel(end, this.clock, (p) => {
      const outside = this.boundary.egress(p);
      if (outside !== undefined) this.link.send(outside);
    });
    this.kernels.set(tupleText(end.tuple), kernel);
    return kernel;
  }

  plug(address: Address): void {
    this.addresses.add(address);
    this.everOwned.add(address);
    this.link.plug(address, (p) => this.#arrived(p));
  }

  unplug(address: Address): void {
    this.addresses.delete(address);
    this.link.unplug(address);
  }

  /** New flows and old ones leave from here from now on. */
  settleAt(source: Address): void {
    this.#source = source;
    this.#supervise((agent) => this.#reconcile(agent));
  }

  /** Synchronizes although the address has not changed: a middlebox has lost its state. */
  resynchronize(kernel: Tuple): void {
    const flow = this.boundary.flow(kernel);
    if (flow === undefined) return;
    const { local } = wireOf(kernel, flow);
    this.#supervise((agent) => agent.move(kernel, local, { mtu: MTU, redirect: true }));
  }

  killAfter(things: number): void {
    this.#lifeLeft = things;
  }

  startDaemon(): void {
    this.#mortal = new MortalClock(this.clock);
    const clock = this.#mortal;
    this.#agent = new SyncAgent({
      boundary: this.#mortalBoundary(),
      raw: {
        toWire: (bytes) => this.#fate(() => this.#toWire(decoded(bytes))),
        toKernel: (bytes) => this.#fate(() => this.#inject(bytes)),
      },
      clock: {
        now: () => clock.now(),
        setTimer: (ms, f) => clock.setTimer(ms, () => this.#supervise(f)),
        clearTimer: (timer) => clock.clearTimer(timer),
      },
      random: (n) => this.random.bytes(n),
      psk: () => undefined,
      config: { sourcePorts: { first: 61_000, last: 65_535 } },
      onEvent: (event) => this.events.push(event),
    });
    this.#supervise((agent) => {
      for (const { wire, entry } of [...this.boundary.wires.values()]) {
        if (entry.state !== 3) this.boundary.deleteWire(wire);
      }
      this.#reconcile(agent);
    });
    this.#sweep();
    this.readEvents();
  }

  get load(): { moving: number; candidates: number } {
    return this.#agent?.load() ?? { moving: 0, candidates: 0 };
  }

  isSteady(): boolean {
    const flags = FLOW_FLAG.HELD | FLOW_FLAG.UNPROVEN;
    const flows = [...this.boundary.flows.values()];
    return (
      this.#agent !== undefined &&
      this.#agent.load().moving === 0 &&
      flows.every(({ flow, kernel }) => {
        const { local } = wireOf(kernel, flow);
        return (flow.flags & flags) === 0 && this.addresses.has(local);
      })
    );
  }

  readEvents(): void {
    while (this.#agent !== undefined) {
      const event = this.boundary.events.shift();
      if (event === undefined) return;
      this.#supervise((agent) => this.#handle(agent, event));
    }
  }

  #handle(agent: SyncAgent, event: ModelEvent): void {
    switch (event.type) {
      case 'packet':
        agent.packet(event);
        break;
      case 'proven':
        agent.proven(event.tuple, event.at);
        break;
      case 'rst':
        if (!agent.reset(event.tuple, event.packet)) this.#quarantine(agent, event);
    }
  }

  #sweep(): void {
    this.boundary.sweepWires(FORMER_WIRE_NS);
    this.#mortal.setTimer(SWEEP_MS, () => this.#sweep());
  }

  #quarantine(agent: SyncAgent, event: ModelEvent): void {
    this.#mortal.setTimer(QUARANTINE_MS, () => {
      const flow = this.boundary.flow(event.tuple);
      if (flow === undefined || flow.seenIn > event.at || flow.movedAt > event.at) return;
      const inDoubt = (flow.flags & (FLOW_FLAG.HELD | FLOW_FLAG.UNPROVEN)) !== 0;
      if (inDoubt || agent.state(event.tuple) !== 'steady') return;
      this.#inject(event.packet);
    });
  }

  #reconcile(agent: SyncAgent): void {
    for (const { kernel } of this.boundary.flows.values()) {
      const flow = this.boundary.flow(kernel);
      if (flow === undefined || this.#source === undefined) continue;
      const { local } = wireOf(kernel, flow);
      const o = { mtu: MTU, redirect: false };
      const isHome = this.addresses.has(local) && local === this.#source;
      if (!isHome) agent.move(kernel, this.#source, o);
      else if ((flow.flags & FLOW_FLAG.UNPROVEN) !== 0) agent.move(kernel, local, o);
      else if ((flow.flags & FLOW_FLAG.HELD) !== 0) {
        agent.cancel(kernel);
        agent.kick(kernel);
      }
    }
  }

  #supervise(act: (agent: SyncAgent) => void): void {
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
      this.clock.setTimer(this.random.between(1, 3000), () => this.startDaemon());
    }
  }

  #fate<T>(act: () => T): T {
    if (this.#lifeLeft === 0) throw DEATH;
    if (this.#lifeLeft !== undefined) this.#lifeLeft -= 1;
    return act();
  }

  #mortalBoundary(): SyncBoundary {
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
    this.link.send(p);
  }

  #arrived(p: Packet): void {
    const inside = this.boundary.ingress(p);
    if (inside !== undefined) this.#toKernel(inside);
    if (this.boundary.events.length > 0) {
      this.clock.setTimer(this.random.between(0, 2), () => this.readEvents());
    }
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
  #inject(bytes: Uint8Array): void {
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
