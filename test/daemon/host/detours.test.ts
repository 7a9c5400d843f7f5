/* Which flows get a detour: by the kernel's way to the old address and to the new one. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Flow } from '../../../src/boundary/abi.gen.js';
import { Detours, withDetours } from '../../../src/daemon/host/detours.js';
import { SystemError } from '../../../src/libc/errno.js';
import type { Detour } from '../../../src/link/detour.js';
import type { Route } from '../../../src/link/route.js';
import type { SyncBoundary } from '../../../src/sync/agent.js';
import { type Address, address } from '../../../src/wire/address.js';
import type { Tuple } from '../../../src/wire/tuple.js';

const OWN = address('192.0.2.20');
const OLD = address('192.0.2.10');
const NEW = address('198.51.100.10');
const GATEWAY = address('192.0.2.1');

const ON_LINK: Route = { source: OWN, interface: 'eth0' };
const BY_GATEWAY: Route = { ...ON_LINK, gateway: GATEWAY };

const tuple = (localPort: number, remote = OLD): Tuple => ({
  ...{ local: OWN, remote, localPort, remotePort: 22 },
});

/** All that counts here: where the flow is on the wire. */
const flowAt = (kernel: Tuple, remote: Address): [Tuple, Flow] => {
  const moved = { active: 1, mapping: [{ wire: { ...kernel, remote } }] };
  return [kernel, moved as unknown as Flow];
};

function setUp(routes: Array<[Address, Route]>, o: { fails?: boolean; attached?: string[] } = {}) {
  const known = new Map(routes);
  const kernel = new Map<Address, Detour>();
  const events: string[] = [];
  const detours = new Detours({
    routes: { from: (_, peer) => known.get(peer) },
    attached: (name) => (o.attached ?? ['eth0']).includes(name),
    emit: ({ event, address: of }) => events.push(`${event} ${of}`),
    table: {
      refresh: () => undefined,
      destinations: () => [...kernel.keys()],
      set: (destination, detour) => {
        if (o.fails) throw new SystemError('detour', 1);
        if (detour === undefined) return !kernel.delete(destination);
        kernel.set(destination, detour);
        return true;
      },
    },
  });
  return { detours, kernel, events, known };
}

describe('a flow whose peer has moved away gets a detour', () => {
  const rows: Array<[string, Route | undefined, Route | undefined, Address | undefined]> = [
    ['from the link to behind a gateway', ON_LINK, BY_GATEWAY, GATEWAY],
    ['on the link', ON_LINK, ON_LINK, NEW],
    ['from where there is no route', undefined, BY_GATEWAY, GATEWAY],
    ['to another interface', { ...ON_LINK, interface: 'eth1' }, BY_GATEWAY, GATEWAY],
    ['not behind the same gateway', BY_GATEWAY, BY_GATEWAY, undefined],
    ['not from behind a gateway to the link', BY_GATEWAY, ON_LINK, undefined],
    ['not to where there is no route', ON_LINK, undefined, undefined],
    ['not to where no boundary is', ON_LINK, { ...BY_GATEWAY, interface: 'eth9' }, undefined],
  ];
  for (const [name, old, fresh, gateway] of rows) {
    test(name, () => {
      const routes = [[OLD, old] as const, [NEW, fresh] as const].flatMap(([to, route]) =>
        route === undefined ? [] : [[to, route] as [Address, Route]],
      );
      const { detours, kernel } = setUp(routes);
      detours.mapped(tuple(1000), tuple(1000, NEW));
      assert.equal(kernel.get(OLD)?.via.gateway, gateway);
      detours.update([flowAt(tuple(1000), NEW)]);
      assert.equal(kernel.get(OLD)?.via.gateway, gateway);
    });
  }
});

describe('detours', () => {
  const routes: Array<[Address, Route]> = [
    [OLD, ON_LINK],
    [NEW, BY_GATEWAY],
    [address('192.0.2.77'), ON_LINK],
  ];
  const ports = (kernel: Map<Address, Detour>) => kernel.get(OLD)?.flows.map((f) => f.localPort);

  test('go with the last flow that needs them', () => {
    const { detours, kernel, events } = setUp(routes);
    detours.mapped(tuple(1000), tuple(1000, NEW));
    detours.mapped(tuple(2000), tuple(2000, NEW));
    assert.deepEqual(ports(kernel), [1000, 2000]);
    detours.mapped(tuple(1000), tuple(1000, OLD));
    assert.deepEqual(ports(kernel), [2000]);
    detours.ended(tuple(2000));
    assert.equal(kernel.size, 0);
    assert.deepEqual(events, [`detour-added ${OLD}`, `detour-removed ${OLD}`]);
  });

  test('of flows that are in different places take the gateway', () => {
    const { detours, kernel } = setUp(routes);
    detours.mapped(tuple(1000), tuple(1000, address('192.0.2.77')));
    detours.mapped(tuple(2000), tuple(2000, NEW));
    assert.equal(kernel.get(OLD)?.via.gateway, GATEWAY);
    assert.deepEqual(ports(kernel), [1000, 2000]);
  });

  test('that a former daemon left go, or stay for the flows that are there', () => {
    const { detours, kernel } = setUp(routes);
    const stale = { via: { interface: 'eth0', gateway: GATEWAY }, flows: [] };
    kernel.set(OLD, stale);
    kernel.set(address('192.0.2.11'), stale);
    detours.update([flowAt(tuple(1000), NEW), flowAt(tuple(2000), OLD)]);
    assert.deepEqual([...kernel.keys()], [OLD]);
    assert.deepEqual(ports(kernel), [1000]);
    assert.equal(detours.dependOnRoutes, true);
    detours.update([]);
    assert.equal(kernel.size, 0);
    assert.equal(detours.dependOnRoutes, false);
  });

  test('follow the routes', () => {
    const { detours, kernel, known } = setUp(routes);
    detours.mapped(tuple(1000), tuple(1000, NEW));
    known.set(OLD, BY_GATEWAY);
    detours.update([flowAt(tuple(1000), NEW)]);
    assert.equal(kernel.size, 0);
  });

  test('that cannot be made are told of, and nothing breaks', () => {
    const { detours, events } = setUp(routes, { fails: true });
    detours.mapped(tuple(1000), tuple(1000, NEW));
    assert.deepEqual(events, [`detour-failed ${OLD}`]);
  });

  test('are there when a map command returns, if it was obeyed', () => {
    for (const result of ['ok', 'stale-epoch'] as const) {
      const { detours, kernel } = setUp(routes);
      const boundary = { command: () => ({ result }) } as unknown as SyncBoundary;
      const mapping = { wire: { ...tuple(1000), remote: NEW } };
      const map = { verb: 'map', kernel: tuple(1000), mapping } as unknown;
      withDetours(boundary, detours).command(map as Parameters<SyncBoundary['command']>[0]);
      assert.equal(kernel.size, result === 'ok' ? 1 : 0);
    }
  });
});
