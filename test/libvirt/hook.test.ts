/*
 * etc/libvirt-hook under two real libvirtds, whose guests run on QEMU without acceleration; each
 * speaks with a daemon that notes what it is asked.
 *
 *     athos: libvirtd, guest ──── m0 ════ m0 ──── porthos: libvirtd
 *            10.9.0.1                             10.9.0.2
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { ipBatch } from '../../src/lab/namespace.js';
import { until } from '../../src/lab/wait.js';
import { type Call, FakeDaemon, FLOWS, GUEST, OUTSIDE } from './fake-daemon.js';
import { Hypervisor, prepareSsh } from './hypervisor.js';

const MAC = '52:54:00:12:34:56';
const GUEST_NAME = 'guest';
const MOVED = { version: 1, moved: 3, failed: 0, pending: 0, failures: [] };

/* A BIOS that finds nothing to boot runs as well as any system, and is migrated in no time. */
const DOMAIN = `<domain type='qemu'>
  <name>${GUEST_NAME}</name>
  <uuid>11111111-2222-3333-4444-555555555555</uuid>
  <memory unit='MiB'>16</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <interface type='ethernet'><mac address='${MAC}'/><model type='virtio'/></interface>
    <memballoon model='none'/>
  </devices>
</domain>
`;

describe('etc/libvirt-hook', { timeout: 180_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'tiflow-libvirt-'));
  const athos = new Hypervisor(directory, 'athos', 1);
  const porthos = new Hypervisor(directory, 'porthos', 2);
  const hypervisors = [athos, porthos] as const;
  const ssh = prepareSsh(directory, { athos: athos.address, porthos: porthos.address });
  const domain = join(directory, 'domain.xml');
  let calls: Call[];
  let daemons: Record<'athos' | 'porthos', FakeDaemon>;

  const abandon = (): void => {
    for (const hypervisor of hypervisors) hypervisor.abandon();
    rmSync(directory, { recursive: true, force: true });
  };

  before(async () => {
    process.on('exit', abandon);
    writeFileSync(domain, DOMAIN);
    ipBatch(athos.namespace, [
      `link add m0 type veth peer name m0 netns ${porthos.namespace}`,
      `addr add ${athos.address}/24 dev m0`,
      'link set m0 up',
    ]);
    ipBatch(porthos.namespace, [`addr add ${porthos.address}/24 dev m0`, 'link set m0 up']);
    await Promise.all(hypervisors.map((hypervisor) => hypervisor.start()));
  });

  beforeEach(async () => {
    calls = [];
    daemons = {
      athos: new FakeDaemon('athos', calls),
      porthos: new FakeDaemon('porthos', calls),
    };
    for (const hypervisor of hypervisors) {
      const peers = hypervisors.filter((other) => other !== hypervisor).map(({ name }) => name);
      configure(hypervisor, [`PEERS="aramis ${peers.join(' ')}"`]);
      await daemons[hypervisor.name as 'athos' | 'porthos'].listen(hypervisor.daemonSocket);
    }
  });

  const configure = (hypervisor: Hypervisor, lines: readonly string[]): void =>
    hypervisor.configureHook([`SSH='${ssh}'`, ...lines]);

  afterEach(async () => {
    for (const hypervisor of hypervisors) {
      await hypervisor.virsh('destroy', GUEST_NAME).catch(() => 'not here');
      await hypervisor
        .virsh('undefine', '--managed-save', GUEST_NAME)
        .catch(() => 'was never defined');
      hypervisor.clearHookLog();
    }
    for (const daemon of Object.values(daemons)) daemon.close();
  });

  after(async () => {
    await Promise.all(hypervisors.map((hypervisor) => hypervisor.stop()));
    rmSync(directory, { recursive: true, force: true });
    process.off('exit', abandon);
  });

  const migrate = (...options: string[]): Promise<string> => {
    const data = ['--migrateuri', `tcp://${porthos.address}`];
    return athos.virsh('migrate', '--live', ...options, GUEST_NAME, porthos.uri, ...data);
  };

  const lines = (): string[] => calls.map(({ line }) => line);
  const called = (line: string): Call => {
    const found = calls.find((call) => call.line === line);
    assert.ok(found, `${line} in\n${lines().join('\n')}`);
    return found;
  };

  /** The tap that the guest has there. */
  async function tapAt(hypervisor: Hypervisor): Promise<string> {
    const list = await hypervisor.virsh('domiflist', GUEST_NAME);
    const tap = /vnet\d+/.exec(list)?.[0];
    assert.ok(tap, list);
    return tap;
  }

  /** What a migration asks for, from the guest's start at athos. */
  const wholeMigration = (from: string, to: string): string[] => [
    'athos POST /v1/taps',
    'porthos POST /v1/taps',
    'athos GET /v1/taps',
    `athos GET /v1/taps/${from}/guest`,
    `porthos POST /v1/taps/${to}/place`,
    'athos GET /v1/taps',
    `athos POST /v1/taps/${from}/export`,
    `porthos POST /v1/taps/${to}/import`,
    `porthos POST /v1/taps/${to}/synchronize`,
    `porthos POST /v1/taps/${to}/announce`,
    `athos DELETE /v1/taps/${from}`,
  ];

  it('migrate --suspend: connections move while the guest is paused', async () => {
    await athos.virsh('create', domain);
    const from = await tapAt(athos);
    assert.deepEqual(called('athos POST /v1/taps').body, { name: from, mac: MAC });
    const states: string[] = [];
    daemons.porthos.during.synchronize = async () => {
      states.push(await porthos.virsh('domstate', GUEST_NAME));
      return { body: MOVED };
    };
    await migrate('--suspend');
    const to = await tapAt(porthos);
    assert.deepEqual(lines(), wholeMigration(from, to));
    assert.deepEqual(states, ['paused']);
    const guestAndRequest = { guest: GUEST, request: ['dhcp'] };
    assert.deepEqual(called(`porthos POST /v1/taps/${to}/place`).body, guestAndRequest);
    const exported = { guest: GUEST, outside: OUTSIDE, flows: FLOWS };
    assert.deepEqual(called(`porthos POST /v1/taps/${to}/import`).body, exported);
    const within = { within_ms: 10_000 };
    assert.deepEqual(called(`porthos POST /v1/taps/${to}/synchronize`).body, within);
    await porthos.virsh('resume', GUEST_NAME);
    assert.equal(await porthos.virsh('domstate', GUEST_NAME), 'running');
    assert.equal(await porthos.isUp(to), true);
    assert.equal(await athos.virsh('list', '--all', '--name'), '');
  });

  it('migrate: the guest runs with its link down until its flows are there', async () => {
    await athos.virsh('create', domain);
    const from = await tapAt(athos);
    const seen: unknown[] = [];
    const look = async (path: string): Promise<undefined> => {
      const [, , , tap = '', verb] = path.split('/');
      seen.push([verb, await porthos.virsh('domstate', GUEST_NAME), await porthos.isUp(tap)]);
    };
    daemons.porthos.during.import = look;
    daemons.porthos.during.synchronize = look;
    await migrate();
    assert.deepEqual(lines(), wholeMigration(from, await tapAt(porthos)));
    assert.deepEqual(seen, [
      ['import', 'running', false],
      ['synchronize', 'running', true],
    ]);
  });

  it('no address at the destination: the guest stays, and is taken next time', async () => {
    await athos.virsh('create', domain);
    daemons.porthos.during.place = async () => ({
      status: 409,
      body: { version: 1, error: { code: 'no-lease', message: 'no DHCP server answers' } },
    });
    await assert.rejects(migrate(), /no address here for 52:54:00:12:34:56.*porthos/s);
    assert.equal(await athos.virsh('domstate', GUEST_NAME), 'running');
    assert.equal(await porthos.virsh('list', '--all', '--name'), '');
    await until('the end at porthos', () =>
      lines().some((line) => line.startsWith('porthos DELETE')),
    );
    assert.ok(!lines().some((line) => line.includes('export')), lines().join('\n'));
    assert.match(porthos.hookLog(), /place:.*no-lease/);
    delete daemons.porthos.during.place;
    await migrate('--suspend');
    assert.equal(await porthos.virsh('domstate', GUEST_NAME), 'paused');
    called(`porthos POST /v1/taps/${await tapAt(porthos)}/import`);
  });

  it('nothing comes from the source: the link goes up all the same', async () => {
    configure(porthos, ['PEERS=athos', 'LINK_DOWN_S=1']);
    configure(athos, ['SSH=false']);
    await athos.virsh('create', domain);
    await migrate();
    const to = await tapAt(porthos);
    await until('the link', () => porthos.isUp(to));
    assert.match(porthos.hookLog(), /nothing came within 1 s/);
    assert.ok(!lines().some((line) => line.startsWith('porthos') && line.includes('import')));
  });

  it('a guest that no daemon knows, or without any daemon, starts, moves and ends', async () => {
    for (const hypervisor of hypervisors) configure(hypervisor, ['SOCKET=/nonexistent']);
    await athos.virsh('create', domain);
    await migrate();
    assert.equal(await porthos.virsh('domstate', GUEST_NAME), 'running');
    await porthos.virsh('destroy', GUEST_NAME);
    assert.deepEqual(lines(), []);
    assert.match(athos.hookLog(), /POST \/v1\/taps:/);
  });

  it('shut down: its flows are forgotten, also where a file of them was left', async () => {
    await athos.virsh('create', domain);
    const tap = await tapAt(athos);
    await athos.virsh('destroy', GUEST_NAME);
    const end = ['athos GET /v1/taps', `athos POST /v1/taps/${tap}/export`];
    assert.deepEqual(lines().slice(1), [...end, `athos DELETE /v1/taps/${tap}`]);
    calls.length = 0;
    await athos.virsh('create', domain);
    assert.deepEqual(lines(), ['athos POST /v1/taps']);
  });

  it('saved and restored: its flows wait on the disk', async () => {
    await athos.virsh('define', domain);
    await athos.virsh('start', GUEST_NAME);
    await athos.virsh('managedsave', GUEST_NAME);
    calls.length = 0;
    await athos.virsh('start', GUEST_NAME);
    const tap = await tapAt(athos);
    const verbs = ['place', 'import', 'synchronize', 'announce'];
    assert.deepEqual(lines(), [
      'athos POST /v1/taps',
      ...verbs.map((verb) => `athos POST /v1/taps/${tap}/${verb}`),
    ]);
    assert.deepEqual(called(`athos POST /v1/taps/${tap}/import`).body, {
      guest: GUEST,
      outside: OUTSIDE,
      flows: FLOWS,
    });
    assert.equal(await athos.virsh('domstate', GUEST_NAME), 'running');
  });
});
