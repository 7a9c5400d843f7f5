/*
 * One run: two machines, one connection between their programs, a hostile link, and what the
 * scenario does to them.
 *
 *   program -- kernel -- boundary --- link --- boundary -- kernel -- program
 *                          |           |           |
 *                        daemon    attacker      daemon
 */
import assert from 'node:assert/strict';
import { ROLE } from '../../src/boundary/abi.gen.js';
import { type Address, address } from '../../src/wire/address.js';
import type { Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { type Tuple, tupleReverse, tupleText } from '../../src/wire/tuple.js';
import { Attacker } from './attacker.js';
import { mappingOf } from './boundary-model.js';
import { FakeClock } from './fake-clock.js';
import { Host } from './host.js';
import { checkBounds, checkMapping, checkMirrored, Firewall } from './invariants.js';
import { FRIENDLY, LinkModel } from './link-model.js';
import { openedFlow, tiOpen } from './opened-flow.js';
import { Random } from './random.js';
import { type Move, type Scenario, scenarioOf } from './scenario.js';
import type { TcpModel } from './tcp-model.js';

/** After the link has healed, everything must be over in so long. */
const RECOVERY_MS = 120_000;

/** Candidates and former wires may outlive the run by their lifetimes. */
const LEFTOVERS_MS = 70_000;

const PACKETS_MAX = 60_000;

export class World {
  readonly clock = new FakeClock();
  readonly hosts: [Host, Host];
  readonly kernels: [TcpModel, TcpModel];
  readonly scenario: Scenario;
  readonly #random: Random;
  readonly #link: LinkModel;
  readonly #firewall = new Firewall();
  readonly #arrivals: Packet[] = [];
  readonly #moves: Move[];
  readonly #tuples: [Tuple, Tuple];
  #addressesUsed = 0;
  #moving = false;
  #packets = 0;
  /** By end: writes that its program has yet to make. */
  readonly #unwritten: [number, number];

  constructor(seed: number) {
    this.scenario = scenarioOf(seed);
    this.#random = new Random(seed ^ 0x5449);
    this.#moves = [...this.scenario.moves];
    const writesOf = (end: 0 | 1) => this.scenario.writes.filter(({ who }) => who === end).length;
    this.#unwritten = [writesOf(0), writesOf(1)];
    this.#link = new LinkModel(this.clock, this.#random, this.scenario.hostility);
    this.hosts = [this.#newHost('client'), this.#newHost('server')];
    const [client, server] = [this.#newAddress(), this.#newAddress()];
    const tuple = { local: client, remote: server, localPort: 40_000, remotePort: 22 };
    this.#tuples = [tuple, tupleReverse(tuple)];
    this.kernels = this.#openConnection();
    this.#watch();
  }

  /** Runs to the end.  Throws AssertionError where something that must hold does not. */
  run(): { packets: number; moves: number; deaths: number; endedAt: number } {
    for (const { at, who, bytes } of this.scenario.writes) {
      this.clock.setTimer(at, () => {
        this.kernels[who].write(bytes);
        this.#unwritten[who] -= 1;
        this.#closeIfDue(who);
      });
    }
    this.clock.setTimer(this.scenario.healsAt, () => {
      this.#link.hostility = FRIENDLY;
    });
    const atMost = this.scenario.healsAt + RECOVERY_MS;
    this.clock.run({ atMost, until: () => this.#isOver() });
    this.#checkOver();
    const endedAt = this.clock.now();
    this.clock.run({ atMost: endedAt + LEFTOVERS_MS, until: () => false });
    this.#checkNothingLeft();
    const deaths = this.hosts[0].deaths + this.hosts[1].deaths;
    return { packets: this.#packets, moves: this.scenario.moves.length, deaths, endedAt };
  }

  #newHost(name: string): Host {
    const random = new Random(this.#random.word());
    return new Host(name, { clock: this.clock, random, link: this.#link });
  }

  #newAddress(): Address {
    this.#addressesUsed += 1;
    return address(
      this.scenario.family === 4
        ? `192.0.2.${this.#addressesUsed}`
        : `2001:db8::${this.#addressesUsed}`,
    );
  }

  #openConnection(): [TcpModel, TcpModel] {
    const initiator = tiOpen((this.#random.word() | 1) >>> 0, this.#random.bytes(8));
    const responder = tiOpen((this.#random.word() | 1) >>> 0, this.#random.bytes(8));
    const [issClient, issServer] = this.scenario.isns.map(seq);
    assert.ok(issClient !== undefined && issServer !== undefined);
    const ends = [
      { iss: issClient, irs: issServer, role: ROLE.INITIATOR, pattern: 0 as const },
      { iss: issServer, irs: issClient, role: ROLE.RESPONDER, pattern: 1 as const },
    ] as const;
    const open = (who: 0 | 1): TcpModel => {
      const host = this.hosts[who];
      const tuple = this.#tuples[who];
      host.plug(tuple.local);
      host.settleAt(tuple.local);
      const { epoch } = this.scenario;
      const flow = openedFlow({ kernel: tuple, initiator, responder, epoch, ...ends[who] });
      host.boundary.flows.set(tupleText(tuple), { kernel: tuple, flow });
      return host.open({ tuple, ...ends[who] });
    };
    return [open(0), open(1)];
  }

  #watch(): void {
    const random = this.#random;
    const mallory = this.scenario.attacker
      ? new Attacker(address(this.scenario.family === 4 ? '203.0.113.66' : '2001:db8:bad::1'), {
          clock: this.clock,
          random,
          link: this.#link,
        })
      : undefined;
    this.#link.onSend = (p) => {
      this.#packets += 1;
      assert.ok(this.#packets < PACKETS_MAX, 'a storm of packets');
      this.#firewall.sent(p);
      mallory?.see(p);
      for (const host of this.hosts) checkBounds(host);
      for (const kernel of this.kernels) assert.equal(kernel.error, undefined);
    };
    this.#link.onArrival = (p) => {
      this.#firewall.arrived(p);
      if (p.options.some((o) => o.kind === 'ti-confirm')) this.#arrivals.push(p);
      this.#moveIfDue();
    };
    this.hosts.forEach((here, index) => {
      const there = this.hosts[index === 0 ? 1 : 0];
      here.boundary.onMap = (c, flow) =>
        checkMapping(c, { flow, here, there, arrivals: this.#arrivals });
    });
  }

  /** One move after the other: both ends away at once cannot find each other on the wire. */
  #moveIfDue(): void {
    if (this.#moving || !this.hosts.every((host) => host.isSteady())) return;
    const move = this.#moves.shift();
    if (move === undefined) return;
    this.#moving = true;
    this.clock.setTimer(move.pauseMs, () => this.#begin(move));
  }

  #begin(move: Move): void {
    for (const { who, after } of move.deaths) this.hosts[who].killAfter(after);
    const both = move.kind === 'both';
    for (const who of both ? ([0, 1] as const) : [move.who]) {
      const host = this.hosts[who];
      if (move.kind === 'same') host.resynchronize(this.#tuples[who]);
      else this.#relocate(host, move.kind === 'break' ? move.gapMs : undefined);
    }
    this.clock.setTimer(move.kind === 'break' ? move.gapMs + 1 : 1, () => {
      this.#moving = false;
    });
  }

  /** `gapMs`: without any address for so long; undefined: the old one stays. */
  #relocate(host: Host, gapMs: number | undefined): void {
    const source = this.#newAddress();
    const arrive = () => {
      host.plug(source);
      host.settleAt(source);
    };
    if (gapMs === undefined) {
      arrive();
      return;
    }
    for (const old of [...host.addresses]) host.unplug(old);
    this.clock.setTimer(gapMs, arrive);
  }

  #closeIfDue(who: 0 | 1): void {
    const isDone = this.#unwritten[who] === 0;
    if (isDone && this.scenario.closesEarly[who]) this.kernels[who].close();
  }

  #isOver(): boolean {
    if (this.#moves.length > 0) this.#moveIfDue();
    const isMoved = this.#moves.length === 0 && !this.#moving;
    const isWritten = this.#unwritten.every((left) => left === 0);
    if (!isMoved || !isWritten || !this.hosts.every((h) => h.isSteady())) return false;
    const [client, server] = this.kernels;
    if (!client.closed) client.close();
    if (!server.closed) server.close();
    return (
      client.isFlushed() &&
      server.isFlushed() &&
      client.read === server.written &&
      server.read === client.written
    );
  }

  #checkOver(): void {
    const [client, server] = this.kernels;
    assert.ok(
      this.#isOver(),
      `not over at ${this.clock.now()}: ${JSON.stringify({
        movesLeft: this.#moves.length,
        steady: this.hosts.map((host) => host.isSteady()),
        client: [client.read, server.written],
        server: [server.read, client.written],
      })}`,
    );
    for (const kernel of this.kernels) assert.equal(kernel.error, undefined);
    const [a, b] = this.hosts.map((host) => {
      const [only] = host.boundary.flows.values();
      return only && mappingOf(only.flow);
    });
    checkMirrored(a, b);
  }

  #checkNothingLeft(): void {
    for (const host of this.hosts) {
      assert.equal(host.load.moving, 0);
      assert.equal(host.load.candidates, 0);
      assert.ok(host.boundary.wires.size <= 1, `${host.name}: ${host.boundary.wires.size} wires`);
      const final = host.events.find((event) => event.type === 'failed' && event.final);
      assert.equal(final, undefined, `${host.name} gave up`);
    }
  }
}
