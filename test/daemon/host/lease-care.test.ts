/* Who is asked for other addresses, and when: owners and verifications made of answers. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LeaseCare } from '../../../src/daemon/host/lease-care.js';
import {
  actionFor,
  type Happening,
  type OwnerKind,
} from '../../../src/daemon/host/lease-policy.js';
import type { LeaseOwner } from '../../../src/link/lease-owner.js';
import type { Claim, Gateway, LeaseIdentity, Verdict } from '../../../src/link/verification.js';
import { address } from '../../../src/wire/address.js';
import { mac } from '../../../src/wire/ethernet.js';
import { FakeClock } from '../../sim/fake-clock.js';

const OURS = address('192.0.2.10');
const OTHER = address('198.51.100.10');
const GATEWAY: Gateway = { address: address('192.0.2.1'), mac: mac('02:00:00:00:00:01') };
const IDENTITY: LeaseIdentity = { clientId: 'hardware', certain: true };

const MANAGER: LeaseOwner = {
  ...{ kind: 'manager', name: 'systemd-networkd', mayBeTold: 'yes', identity: IDENTITY },
};
const SILENT: LeaseOwner = { ...MANAGER, mayBeTold: 'never' };
const BUSY: LeaseOwner = { ...MANAGER, mayBeTold: 'not now' };
const CLIENT: LeaseOwner = {
  ...{ kind: 'client', name: 'udhcpc', identity: IDENTITY },
  program: { pid: 1, name: 'udhcpc', argv: [], title: 'udhcpc' },
};

/** Promises that are there have been followed. */
const turn = () => new Promise((resolve) => setImmediate(resolve));

class Machine {
  readonly clock = new FakeClock();
  readonly settled: string[] = [];
  readonly asked: number[] = [];
  readonly verified: Claim[] = [];
  readonly leases: LeaseIdentity[] = [];
  readonly warned: string[] = [];
  address: typeof OURS | undefined = OURS;
  gateway: Gateway | undefined;
  verdicts: Verdict[] = [];
  /** What happens when the owner is asked. */
  onAsk: () => void = () => undefined;
  readonly care: LeaseCare;

  constructor(owner: LeaseOwner | 'command' | undefined) {
    this.care = new LeaseCare({
      clock: this.clock,
      settling: { end: (_, family) => this.settled.push(`IPv${family}`) },
      claim: () => this.#claim(),
      gateway: () => this.gateway,
      verify: (_, claim, onVerdict) => {
        this.verified.push(claim);
        const verdicts = this.verdicts;
        this.clock.setTimer(100, () => {
          for (const verdict of verdicts) onVerdict(4, verdict);
        });
        return { lease: (identity) => this.leases.push(identity), close: () => undefined };
      },
      owner: () => Promise.resolve(owner),
      ask: async () => {
        this.asked.push(this.clock.now());
        this.onAsk();
      },
      emit: () => undefined,
      log: { warn: (_: object, text: string) => this.warned.push(text) } as never,
    });
  }

  #claim() {
    const v4 = this.address && { address: this.address, prefixLength: 24, gateways: [] };
    return { index: 2, mac: mac('02:00:00:00:00:0a'), v4, v6: [] };
  }

  /** Lets so much time pass, and promises be followed in between. */
  async pass(ms: number): Promise<void> {
    for (let at = 0; at < ms; at += 100) {
      await turn();
      this.clock.pass(100);
    }
    await turn();
  }
}

async function after(
  owner: LeaseOwner | 'command' | undefined,
  happened: Happening,
  verdict: Verdict,
  ms = 400,
): Promise<Machine> {
  const machine = new Machine(owner);
  machine.verdicts = [verdict];
  machine.care.changed('eth0', happened);
  await machine.pass(ms);
  return machine;
}

describe('policy', () => {
  const verdicts = ['same', 'other', 'unknown', 'no address'] as const;
  for (const [owner, happened, ...expected] of [
    ['nobody', 'carrier', 'leave', 'leave', 'leave', 'leave'],
    ['nobody', 'resumed', 'leave', 'leave', 'leave', 'leave'],
    ['manager', 'carrier', 'leave', 'wait', 'leave', 'leave'],
    ['manager', 'resumed', 'leave', 'ask', 'look again', 'leave'],
    ['client', 'carrier', 'leave', 'ask', 'look again', 'ask'],
    ['client', 'resumed', 'leave', 'ask', 'look again', 'leave'],
    ['command', 'carrier', 'leave', 'ask', 'ask', 'ask'],
    ['command', 'resumed', 'leave', 'ask', 'look again', 'leave'],
  ] as [OwnerKind, Happening, ...string[]][]) {
    it(`${owner}, ${happened}: ${expected.join(', ')}`, () => {
      assert.deepEqual(
        verdicts.map((verdict) => actionFor(owner, happened, verdict)),
        expected,
      );
    });
  }
});

describe('a link that may lead elsewhere', () => {
  it('is the same: it settles at once, and nobody is asked', async () => {
    for (const owner of [MANAGER, CLIENT, 'command'] as const) {
      const machine = await after(owner, 'carrier', 'same', 20_000);
      assert.deepEqual(machine.settled, ['IPv4']);
      assert.deepEqual(machine.asked, []);
      assert.equal(machine.verified.length, 1);
    }
  });

  it('nobody answers: the address is kept, and asked about again and again, not for ever', async () => {
    for (const happened of ['carrier', 'resumed'] as const) {
      const machine = await after(CLIENT, happened, 'unknown', 600_000);
      assert.deepEqual(machine.asked, []);
      assert.equal(machine.verified.length, 8);
    }
  });

  it('a server comes back in the end, and says no', async () => {
    const machine = await after(CLIENT, 'carrier', 'unknown', 5_000);
    machine.verdicts = ['other'];
    await machine.pass(10_000);
    assert.ok(machine.asked.length > 0);
  });

  it('it is another one: the client is asked, and the manager has seen it', async () => {
    assert.equal((await after(CLIENT, 'carrier', 'other')).asked.length, 1);
    assert.equal((await after(MANAGER, 'carrier', 'other', 3_000)).asked.length, 0);
    assert.equal((await after(MANAGER, 'resumed', 'other')).asked.length, 1);
  });

  it('a manager that has not seen it keeps an address that is refused: it is told', async () => {
    const machine = await after(MANAGER, 'carrier', 'other', 5_000);
    assert.equal(machine.asked.length, 1);
  });

  it('a manager that is still at it is looked at again', async () => {
    const machine = await after(BUSY, 'carrier', 'other', 30_000);
    assert.deepEqual([machine.asked.length, machine.warned.length], [0, 0]);
    assert.ok(machine.verified.length > 2);
  });

  it('a manager that has given another address by then is not told', async () => {
    const machine = await after(MANAGER, 'carrier', 'other', 1_000);
    machine.address = OTHER;
    machine.care.addressAdded('eth0', OTHER);
    machine.verdicts = ['same'];
    await machine.pass(20_000);
    assert.deepEqual(machine.asked, []);
  });

  it('whoever must not be told is not told, and that is said', async () => {
    const machine = await after(SILENT, 'resumed', 'other', 60_000);
    assert.deepEqual(machine.asked, []);
    assert.match(machine.warned[0] ?? '', /another network/);
  });

  it('nobody owns its address: it is as good as before', async () => {
    const machine = await after(undefined, 'carrier', 'unknown', 10_000);
    assert.deepEqual(machine.settled, ['IPv4']);
    assert.equal(machine.verified.length, 1);
  });

  it('a server contradicts the gateway: it goes first', async () => {
    const machine = new Machine(CLIENT);
    machine.verdicts = ['same', 'other'];
    machine.care.changed('eth0', 'resumed');
    await machine.pass(400);
    assert.equal(machine.asked.length, 1);
  });

  it('what is said of an address that has gone meanwhile does not count', async () => {
    const machine = new Machine(CLIENT);
    machine.verdicts = ['other'];
    machine.care.changed('eth0', 'carrier');
    machine.address = OTHER;
    await machine.pass(400);
    assert.deepEqual(machine.asked, []);
  });

  it('a client without an address is asked when it is plugged in, to no harm', async () => {
    const machine = new Machine(CLIENT);
    machine.address = undefined;
    machine.care.changed('eth0', 'carrier');
    await machine.pass(400);
    assert.equal(machine.asked.length, 1);
    assert.equal(machine.verified.length, 0);
  });

  it('the servers are asked under the name of the lease', async () => {
    assert.deepEqual((await after(CLIENT, 'carrier', 'same')).leases, [IDENTITY]);
  });
});

describe('asking', () => {
  it('that flaps the carrier itself does not go round and round', async () => {
    for (const verdict of ['other', 'unknown'] as const) {
      const machine = new Machine('command');
      machine.verdicts = [verdict];
      machine.onAsk = () => {
        machine.clock.setTimer(200, () => {
          machine.care.lost('eth0');
          machine.care.changed('eth0', 'carrier');
        });
      };
      machine.care.changed('eth0', 'carrier');
      await machine.pass(60_000);
      assert.ok(machine.asked.length <= 6, `${verdict}: asked ${machine.asked.length} times`);
      const gaps = machine.asked.map((ms, n) => ms - (machine.asked[n - 1] ?? ms)).slice(1);
      assert.deepEqual(
        gaps,
        gaps.toSorted((a, b) => a - b),
        'less and less often',
      );
    }
  });

  it('that brings another address may follow the next move at once', async () => {
    const machine = new Machine(CLIENT);
    machine.verdicts = ['other'];
    for (const next of [OTHER, OURS, OTHER, OURS]) {
      machine.care.lost('eth0');
      machine.care.changed('eth0', 'carrier');
      await machine.pass(300);
      machine.address = next;
      machine.care.addressAdded('eth0', next);
      await machine.pass(100);
    }
    assert.equal(machine.asked.length, 4);
  });

  it('is not taken for in vain as the next move came first', async () => {
    const machine = new Machine(CLIENT);
    machine.verdicts = ['other'];
    for (let n = 0; n < 6; n++) {
      machine.care.lost('eth0');
      machine.care.changed('eth0', 'carrier');
      await machine.pass(300);
      machine.address = undefined;
      // Back where it came from, before it has got anything there.
      machine.care.lost('eth0');
      machine.care.changed('eth0', 'carrier');
      await machine.pass(100);
      machine.address = OURS;
      machine.care.addressAdded('eth0', OURS);
    }
    assert.equal(machine.asked.length, 12);
  });

  it('is waited for, and what happens meanwhile is not lost', async () => {
    const machine = new Machine(CLIENT);
    machine.verdicts = ['other'];
    machine.onAsk = () => machine.care.changed('eth0', 'carrier');
    machine.care.changed('eth0', 'carrier');
    await machine.pass(400);
    assert.equal(machine.asked.length, 1);
    assert.equal(machine.verified.length, 2);
  });
});

describe('gateways', () => {
  async function known(prepare: (machine: Machine) => void): Promise<Gateway[]> {
    const machine = new Machine(CLIENT);
    machine.gateway = GATEWAY;
    prepare(machine);
    machine.care.changed('eth0', 'carrier');
    return machine.verified[0]?.v4?.gateways ?? [];
  }

  it('are remembered for when the carrier has gone', async () => {
    assert.deepEqual(await known(({ care }) => care.remember(['eth0'])), [GATEWAY]);
  });

  it('are not learned on a link that may lead elsewhere', async () => {
    const gateways = await known(({ care }) => {
      care.lost('eth0');
      care.remember(['eth0']);
    });
    assert.deepEqual(gateways, []);
  });

  it('are of the address that they were learned with', async () => {
    const gateways = await known((machine) => {
      machine.care.remember(['eth0']);
      machine.address = OTHER;
    });
    assert.deepEqual(gateways, []);
  });
});
