/*
 * A machine whose daemon does with the agent the least that it must: it begins flows whose address
 * is gone, or which it finds unproven, and releases those it finds held for nothing.  It is for what
 * the protocol has to stand; machine.ts has the daemon as it is.
 */
import { FLOW_FLAG } from '../../src/boundary/abi.gen.js';
import type { SyncAgent } from '../../src/sync/agent.js';
import { wireOf } from '../../src/sync/handshake.js';
import type { Address } from '../../src/wire/address.js';
import type { Tuple } from '../../src/wire/tuple.js';
import type { ModelEvent } from './boundary-model.js';
import { Computer, type Surroundings } from './computer.js';

const QUARANTINE_MS = 3000;
const MTU = 1500;

export class Host extends Computer {
  readonly addresses = new Set<Address>();
  #source: Address | undefined;

  constructor(name: string, surroundings: Surroundings) {
    super(name, surroundings);
    this.startDaemon();
  }

  override plug(address: Address): void {
    this.addresses.add(address);
    super.plug(address);
  }

  override unplug(address: Address): void {
    this.addresses.delete(address);
    super.unplug(address);
  }

  /** New flows and old ones leave from here from now on. */
  settleAt(source: Address): void {
    this.#source = source;
    this.supervise((agent) => this.#reconcile(agent));
  }

  /** Synchronizes although the address has not changed: a middlebox has lost its state. */
  resynchronize(kernel: Tuple): void {
    const flow = this.boundary.flow(kernel);
    if (flow === undefined) return;
    const { local } = wireOf(kernel, flow);
    this.supervise((agent) => agent.move(kernel, local, { mtu: MTU, redirect: true }));
  }

  isSteady(): boolean {
    const flags = FLOW_FLAG.HELD | FLOW_FLAG.UNPROVEN;
    const flows = [...this.boundary.flows.values()];
    return (
      this.isAlive &&
      this.load.moving === 0 &&
      flows.every(({ flow, kernel }) => {
        const { local } = wireOf(kernel, flow);
        return (flow.flags & flags) === 0 && this.addresses.has(local);
      })
    );
  }

  protected override begin(agent: SyncAgent): void {
    this.#reconcile(agent);
  }

  protected override handle(agent: SyncAgent, event: ModelEvent): void {
    switch (event.type) {
      case 'packet':
        agent.packet(event);
        break;
      case 'proven':
        agent.proven(event.tuple, event.at);
        break;
      case 'rst':
        if (!agent.reset(event.tuple, event.packet)) this.#quarantine(agent, event);
        break;
      case 'stalled':
      case 'revived':
      // This daemon does not care.
    }
  }

  #quarantine(agent: SyncAgent, event: ModelEvent): void {
    this.daemonClock.setTimer(QUARANTINE_MS, () => {
      const flow = this.boundary.flow(event.tuple);
      if (flow === undefined || flow.seenIn > event.at || flow.movedAt > event.at) return;
      const inDoubt = (flow.flags & (FLOW_FLAG.HELD | FLOW_FLAG.UNPROVEN)) !== 0;
      if (inDoubt || agent.state(event.tuple) !== 'steady') return;
      this.inject(event.packet);
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
}
