/*
 * One run: two machines with the daemon's own parts, some connections between their programs, and
 * what the scenario does to addresses, links and daemons.
 *
 *   program -- kernel -- boundary --- link, middlebox --- boundary -- kernel -- program
 *                          |                                 |
 *                     machine.ts                         machine.ts
 */
import assert from 'node:assert/strict';
import { ROLE } from '../../src/boundary/abi.gen.js';
import { type Address, address } from '../../src/wire/address.js';
import type { Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { type Tuple, tupleReverse, tupleText } from '../../src/wire/tuple.js';
import { mappingOf } from './boundary-model.js';
import { FakeClock } from './fake-clock.js';
import { checkMapping, checkMirrored, Firewall } from './invariants.js';
import { FRIENDLY, LinkModel } from './link-model.js';
import { type LinkName, Machine } from './machine.js';
import { Middlebox } from './middlebox.js';
import { openedFlow, tiOpen } from './opened-flow.js';
import { Random } from './random.js';
import {
  type Act,
  type Phase,
  PLACES,
  type RoamingScenario,
  roamingScenarioOf,
} from './roaming-scenario.js';
import type { TcpModel } from './tcp-model.js';

/** Once nothing happens any more every flow is proven where its machine is. */
const REST_MAX_MS = 15_000;

/** And what programs write then, and what they wrote before, has arrived. */
const TALK_MAX_MS = 10_000;
const TALK_BYTES = 300;

/** A link that has not led anywhere is tried again by then. */
const FOLLOW_MAX_MS = 70_000;
/** Longer than a link must have been the better one. */
const DOCK_MS = 3_000;
/**
 * A synchronization, and one timeout of the end that stays: what it has sent by the old path when
 * the mover maps is lost.
 */
const SILENCE_MAX_MS = 450;

const PACKETS_MAX = 200_000;

interface Connection {
  tuples: [Tuple, Tuple];
  kernels: [TcpModel, TcpModel];
}

export class Roaming {
  readonly clock = new FakeClock();
  readonly machines: [Machine, Machine];
  readonly scenario: RoamingScenario;
  readonly #random: Random;
  readonly #link: LinkModel;
  readonly #middlebox = new Middlebox();
  readonly #firewall = new Firewall();
  readonly #arrivals: Packet[] = [];
  readonly #connections: Connection[];
  #packets = 0;

  constructor(seed: number) {
    this.scenario = roamingScenarioOf(seed);
    this.#random = new Random(seed ^ 0x5449);
    this.#link = new LinkModel(this.clock, this.#random, FRIENDLY);
    this.machines = [this.#newMachine(0, 'client'), this.#newMachine(1, 'server')];
    for (const who of [0, 1] as const) this.#settle(who, { link: 'eth0', place: 0 }, false);
    this.#connections = Array.from({ length: this.scenario.flows }, (_, n) => this.#open(n));
    this.#watch();
  }

  /** Runs to the end.  Throws AssertionError where something that must hold does not. */
  run(): { packets: number; steps: number; deaths: number; restMs: number; talkMs: number } {
    const rests = this.scenario.phases.map((phase) => this.#play(phase));
    return {
      packets: this.#packets,
      steps: this.scenario.phases.reduce((sum, { steps }) => sum + steps.length, 0),
      deaths: this.machines[0].deaths + this.machines[1].deaths,
      restMs: Math.max(...rests.map(({ restMs }) => restMs)),
      talkMs: Math.max(...rests.map(({ talkMs }) => talkMs)),
    };
  }

  #play(phase: Phase): { restMs: number; talkMs: number } {
    const begun = this.clock.now();
    this.#link.hostility = phase.hostility;
    for (const { at, who, act } of phase.steps) this.clock.setTimer(at, () => this.#do(who, act));
    for (const { at, who, flow, bytes } of phase.writes) {
      this.clock.setTimer(at, () => this.#connections[flow]?.kernels[who].write(bytes));
    }
    this.clock.setTimer(phase.healsAt, () => this.#heal(phase));
    const healed = begun + phase.healsAt;
    this.clock.run({ atMost: healed, until: () => this.clock.now() >= healed });
    this.#await(REST_MAX_MS, () => this.#unrest());
    const atRest = this.clock.now();
    for (const { kernels } of this.#connections) for (const k of kernels) k.write(TALK_BYTES);
    this.#await(TALK_MAX_MS, () => this.#unheard());
    const talked = this.clock.now();
    this.#await(REST_MAX_MS, () => this.#unrest());
    this.#checkMirrored();
    if (phase.spare) this.#dock(phase);
    return { restMs: atRest - healed, talkMs: talked - atRest };
  }

  /** The other link becomes the better one while both work, and programs talk: nobody notices. */
  #dock({ roamer, home }: Phase): void {
    const machine = this.machines[roamer];
    for (const each of this.machines) each.killAfter(Number.POSITIVE_INFINITY);
    this.#await(FOLLOW_MAX_MS, () => machine.straggler() ?? this.#unrest());
    machine.prefer(otherLink(home.link));
    const until = this.clock.now() + DOCK_MS;
    for (let at = 0; at < DOCK_MS; at += 25) {
      for (const { tuples, kernels } of this.#connections) {
        const [here, there] = at % 50 === 0 ? ([0, 1] as const) : ([1, 0] as const);
        this.clock.setTimer(at, () => {
          kernels[here].write(this.#random.between(1, 50));
          const { written } = kernels[here];
          this.clock.setTimer(SILENCE_MAX_MS, () => {
            const about = `${tupleText(tuples[0])} while it follows a route, at ${this.clock.now()}`;
            assert.ok(kernels[there].read >= written, `${about}: ${SILENCE_MAX_MS} ms of silence`);
          });
        });
      }
    }
    this.clock.run({ atMost: until, until: () => this.clock.now() >= until });
    this.#await(FOLLOW_MAX_MS, () => machine.straggler() ?? this.#unrest());
    this.#checkMirrored();
  }

  /** Until there is nothing to complain of. */
  #await(withinMs: number, complaint: () => string | undefined): void {
    const atMost = this.clock.now() + withinMs;
    this.clock.run({ atMost, until: () => complaint() === undefined });
    const left = complaint();
    assert.equal(left, undefined, `${left} at ${this.clock.now()}, after ${withinMs} ms`);
  }

  #unrest(): string | undefined {
    return this.machines[0].unrest() ?? this.machines[1].unrest();
  }

  #unheard(): string | undefined {
    for (const { tuples, kernels } of this.#connections) {
      for (const [here, there] of [kernels, [...kernels].reverse()]) {
        if (here === undefined || there === undefined || here.read === there.written) continue;
        return `${tupleText(tuples[0])}: ${here.read} of ${there.written} bytes`;
      }
    }
    return undefined;
  }

  #newMachine(who: 0 | 1, name: string): Machine {
    const random = new Random(this.#random.word());
    const { places, prefersDeadLinks } = this.scenario;
    const o = { places, prefersDeadLinks: prefersDeadLinks[who] };
    return new Machine(name, { clock: this.clock, random, link: this.#link }, o);
  }

  #addressAt(who: 0 | 1, place: number): Address {
    const n = who * PLACES + place + 1;
    return address(this.scenario.family === 4 ? `192.0.2.${n}` : `2001:db8::${n}`);
  }

  #open(n: number): Connection {
    const [client, server] = [this.#addressAt(0, 0), this.#addressAt(1, 0)];
    const tuple = { local: client, remote: server, localPort: 40_000 + n, remotePort: 22 };
    const tuples: [Tuple, Tuple] = [tuple, tupleReverse(tuple)];
    const half = () => tiOpen((this.#random.word() | 1) >>> 0, this.#random.bytes(8));
    const [initiator, responder] = [half(), half()];
    const isns = [seq(this.#random.word()), seq(this.#random.word())] as const;
    const ends = [
      { iss: isns[0], irs: isns[1], role: ROLE.INITIATOR, pattern: 0 as const },
      { iss: isns[1], irs: isns[0], role: ROLE.RESPONDER, pattern: 1 as const },
    ] as const;
    const open = (who: 0 | 1): TcpModel => {
      const kernel = tuples[who];
      const flow = openedFlow({ kernel, initiator, responder, ...ends[who] });
      this.machines[who].boundary.flows.set(tupleText(kernel), { kernel, flow });
      return this.machines[who].open({ tuple: kernel, ...ends[who] });
    };
    return { tuples, kernels: [open(0), open(1)] };
  }

  #watch(): void {
    this.#link.passes = (p) => this.#middlebox.passes(p);
    this.#link.onSend = (p) => {
      this.#packets += 1;
      assert.ok(this.#packets < PACKETS_MAX, 'a storm of packets');
      this.#firewall.sent(p);
      for (const { kernels } of this.#connections) {
        for (const kernel of kernels) assert.equal(kernel.error, undefined);
      }
    };
    this.#link.onArrival = (p) => {
      this.#firewall.arrived(p);
      if (p.options.some((o) => o.kind === 'ti-confirm')) this.#arrivals.push(p);
    };
    this.machines.forEach((here, index) => {
      const there = this.machines[index === 0 ? 1 : 0];
      here.boundary.onMap = (c, flow) =>
        checkMapping(c, { flow, here, there, arrivals: this.#arrivals });
    });
  }

  #do(who: 0 | 1, act: Act): void {
    const machine = this.machines[who];
    switch (act.do) {
      case 'carrier':
        machine.carrier(act.link, act.up);
        break;
      case 'add':
        machine.add(act.link, this.#addressAt(who, act.place));
        break;
      case 'remove':
        machine.remove(act.link, this.#addressAt(who, act.place));
        break;
      case 'only':
        this.#leaveOnly(machine, act.link, this.#addressAt(who, act.place));
        break;
      case 'prefer':
        machine.prefer(act.link);
        break;
      case 'kill':
        machine.killAfter(act.after);
        break;
      case 'forget':
        this.#middlebox.forget();
    }
  }

  #leaveOnly(machine: Machine, link: 'eth0' | 'wlan0', address: Address): void {
    for (const old of machine.addresses(link)) if (old !== address) machine.remove(link, old);
    machine.add(link, address);
  }

  #settle(who: 0 | 1, { link, place }: Phase['home'], spare: boolean): void {
    const machine = this.machines[who];
    const left = otherLink(link);
    machine.carrier(left, spare);
    for (const old of machine.addresses(left)) machine.remove(left, old);
    if (spare) machine.add(left, this.#addressAt(who, (place + 1) % PLACES));
    machine.prefer(link);
    machine.carrier(link, true);
    this.#leaveOnly(machine, link, this.#addressAt(who, place));
  }

  #heal({ roamer, home, spare }: Phase): void {
    this.#link.hostility = FRIENDLY;
    this.#settle(roamer, home, spare);
    // Its links may be down; where it is has not changed.
    const other = this.machines[roamer === 0 ? 1 : 0];
    for (const link of ['eth0', 'wlan0'] as const) {
      other.carrier(link, other.addresses(link).length > 0);
    }
  }

  #checkMirrored(): void {
    const [client, server] = this.machines;
    for (const { tuples } of this.#connections) {
      const [a, b] = [client, server].map((machine, who) => {
        const found = machine.boundary.flows.get(tupleText(tuples[who] ?? tuples[0]));
        assert.ok(found, 'a flow is gone');
        return mappingOf(found.flow);
      });
      checkMirrored(a, b);
    }
  }
}

const otherLink = (link: LinkName): LinkName => (link === 'eth0' ? 'wlan0' : 'eth0');
