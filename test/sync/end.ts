/*
 * One end for the tests of the agent: the boundary's model, a fake clock, and lists of what goes
 * out.  No network: a test passes packets on itself, and sees each.
 */
import assert from 'node:assert/strict';
import { FLOW_FLAG, type Flow, ROLE } from '../../src/boundary/abi.gen.js';
import { SyncAgent, type SyncAgentOptions, type SyncEvent } from '../../src/sync/agent.js';
import { decodePacket, type Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { type Tuple, tupleReverse, tupleText } from '../../src/wire/tuple.js';
import { BoundaryModel } from '../sim/boundary-model.js';
import { FakeClock } from '../sim/fake-clock.js';
import { openedFlow, tiOpen } from '../sim/opened-flow.js';
import { Random } from '../sim/random.js';
import { KEY_INITIATOR, KEY_RESPONDER, MOVER_KERNEL } from './fixture.js';

export class End {
  readonly boundary: BoundaryModel;
  readonly sent: Packet[] = [];
  readonly injected: Uint8Array[] = [];
  readonly events: SyncEvent[] = [];
  agent: SyncAgent;
  /** Called with each event, as the daemon would be. */
  onEvent: (e: SyncEvent) => void = () => undefined;
  #random = new Random(1);

  constructor(
    readonly clock: FakeClock,
    private readonly options: Partial<SyncAgentOptions> = {},
  ) {
    this.boundary = new BoundaryModel(() => BigInt(Math.round(clock.now() * 1e6)) + 1n);
    this.agent = this.startAgent();
  }

  /** A new agent over the same boundary: the old one has died. */
  startAgent(): SyncAgent {
    this.agent = new SyncAgent({
      boundary: this.boundary,
      raw: {
        toWire: (bytes) => this.sent.push(decoded(bytes)),
        toKernel: (bytes) => this.injected.push(bytes),
      },
      clock: this.clock,
      random: (n) => this.#random.bytes(n),
      psk: () => undefined,
      config: { sourcePorts: { first: 61_000, last: 65_535 } },
      onEvent: (event) => {
        this.events.push(event);
        this.onEvent(event);
      },
      ...this.options,
    });
    return this.agent;
  }

  /** Adds the n-th flow of this end. */
  open(role: 'mover' | 'peer', n = 0, keyId = 0): Tuple {
    const mover = { ...MOVER_KERNEL, remotePort: MOVER_KERNEL.remotePort + n };
    const kernel = role === 'mover' ? mover : tupleReverse(mover);
    const isn = { mover: seq(5000 + n), peer: seq(0xfffffff0 + n) };
    const flow = openedFlow({
      kernel,
      role: role === 'mover' ? ROLE.RESPONDER : ROLE.INITIATOR,
      initiator: tiOpen(100_000 + n, KEY_INITIATOR, keyId),
      responder: tiOpen(200_000 + n, KEY_RESPONDER, keyId),
      iss: isn[role],
      irs: isn[role === 'mover' ? 'peer' : 'mover'],
    });
    this.boundary.flows.set(tupleText(kernel), { kernel, flow });
    return kernel;
  }

  flow(kernel: Tuple): Flow {
    const flow = this.boundary.flow(kernel);
    assert.ok(flow);
    return flow;
  }

  isHeld(kernel: Tuple): boolean {
    return (this.flow(kernel).flags & FLOW_FLAG.HELD) !== 0;
  }

  /** A packet arrives; what the boundary says about it goes to the agent. */
  receive(...packets: Packet[]): void {
    for (const packet of packets) this.boundary.ingress(packet);
    for (let e = this.boundary.events.shift(); e !== undefined; e = this.boundary.events.shift()) {
      if (e.type === 'packet') this.agent.packet(e);
      else if (e.type === 'proven') this.agent.proven(e.tuple, e.at);
    }
  }

  /** What has been sent since the last time. */
  takeSent(): Packet[] {
    return this.sent.splice(0);
  }

  /** Lets so much time pass. */
  wait(ms: number): void {
    const until = this.clock.now() + ms;
    let isDue = false;
    this.clock.setTimer(ms, () => {
      isDue = true;
    });
    this.clock.run({ atMost: until, until: () => isDue });
  }

  types(): string[] {
    return this.events.map((e) =>
      e.type === 'failed' || e.type === 'refused' ? `${e.type} ${e.reason}` : e.type,
    );
  }

  wiresIn(state: number): number {
    return [...this.boundary.wires.values()].filter(({ entry }) => entry.state === state).length;
  }
}

/** Both ends of a connection, on one clock. */
export function pair(
  o: { mover?: Partial<SyncAgentOptions>; peer?: Partial<SyncAgentOptions> } = {},
) {
  const clock = new FakeClock();
  const [mover, peer] = [new End(clock, o.mover), new End(clock, o.peer)];
  return { clock, mover, peer, kernel: mover.open('mover'), peerKernel: peer.open('peer') };
}

export const decoded = (bytes: Uint8Array): Packet => {
  const packet = decodePacket(bytes);
  assert.ok(!('error' in packet));
  return packet;
};

/** Carries packets between both ends until nothing more comes. */
export function exchange(p: ReturnType<typeof pair>): void {
  for (let rounds = 0; rounds < 20; rounds++) {
    const [toPeer, toMover] = [p.mover.takeSent(), p.peer.takeSent()];
    if (toPeer.length === 0 && toMover.length === 0) return;
    p.peer.receive(...toPeer);
    p.mover.receive(...toMover);
  }
  assert.fail('no end of packets');
}
