/* A real daemon and taps in a namespace: what it finds by itself, finds again, and leaves behind.
 *
 *   fd ── vnet0 (tap) ─┐
 *   fd ── vnet1 (tap) ─┴─ br0
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { FLOW_SIZE, type Flow, REASON, readFlow } from '../../src/boundary/abi.gen.js';
import { packLuggage } from '../../src/boundary/transfer.js';
import { DaemonClient } from '../../src/daemon/api/client.js';
import { daemonPid } from '../../src/daemon/config/run-directory.js';
import type { TapView } from '../../src/daemon/view/view.js';
import { type GuestState, unknownGuest } from '../../src/guest/identity.js';
import { ownName } from '../../src/lab/own-name.js';
import { openTap, writeFrame } from '../../src/lab/tap.js';
import { until } from '../../src/lab/wait.js';
import { closeFd } from '../../src/libc/socket.js';
import { address } from '../../src/wire/address.js';
import { DHCP_OPTION, EVERYBODY, encodeDhcp, NOBODY, typeOption } from '../../src/wire/dhcp.js';
import { BROADCAST_MAC, ETHERTYPE, encodeFrame, type Mac, mac } from '../../src/wire/ethernet.js';
import { parsePacketLine } from '../../src/wire/notation.js';
import { encodePacket } from '../../src/wire/packet.js';
import type { Tuple } from '../../src/wire/tuple.js';

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const GUEST = mac('52:54:00:00:00:0a');
const INSIDE = address('192.0.2.10');
const OUTSIDE = address('198.51.100.10');
const PEER = address('203.0.113.7');

let namespaces = 0;

function hypervisor(t: TestContext) {
  const name = ownName(`vm-${++namespaces}`);
  const path = `/run/netns/${name}`;
  const runDir = join(mkdtempSync(join(tmpdir(), `${name}-`)), 'run');
  const open = new Map<string, number>();
  const ip = (line: string) => execFileSync('ip', ['-n', name, ...line.split(' ')]);
  const tiflow = (...args: string[]) => {
    const command = [`--net=${path}`, '--', process.execPath, MAIN, ...args, '--run-dir', runDir];
    const { status, stdout, stderr } = spawnSync('nsenter', command, { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    return stdout;
  };
  const unplug = (tap: string) => {
    const fd = open.get(tap);
    open.delete(tap);
    if (fd !== undefined) closeFd(fd);
  };
  const plug = (tap: string) => {
    ip(`tuntap add ${tap} mode tap`);
    ip(`link set ${tap} addrgenmode none master br0 up`);
    open.set(tap, openTap(path, tap));
  };
  t.after(() => {
    try {
      tiflow('down', '--force');
    } finally {
      for (const tap of [...open.keys()]) unplug(tap);
      execFileSync('ip', ['netns', 'del', name]);
      rmSync(join(runDir, '..'), { recursive: true, force: true });
    }
  });
  execFileSync('ip', ['netns', 'add', name]);
  ip('link set lo up');
  ip('link add br0 type bridge');
  ip('link set br0 addrgenmode none up');
  plug('vnet0');
  const client = new DaemonClient(runDir);
  return {
    ...{ runDir, ip, tiflow, plug, unplug, client },
    says: (tap: string, from: Mac) => writeFrame(open.get(tap) ?? -1, frameOf(from)),
    asks: (tap: string, from: Mac, as: string) =>
      writeFrame(open.get(tap) ?? -1, discover(from, as)),
    hostName: (tap: string): string => {
      const record = JSON.parse(readFileSync(join(runDir, 'taps', `${tap}.json`), 'utf8'));
      return Buffer.from(record.guest.dhcp.host_name, 'hex').toString();
    },
    tap: async (tap: string): Promise<TapView | undefined> =>
      (await client.taps()).find((each) => each.name === tap),
    index: (tap: string): number =>
      JSON.parse(execFileSync('ip', ['-n', name, '-j', 'link', 'show', tap]).toString())[0].ifindex,
    tc: (tap: string): string =>
      ['ingress', 'egress']
        .map((hook) => execFileSync('tc', ['-n', name, 'filter', 'show', 'dev', tap, hook]))
        .join(''),
    kill: async () => {
      const pid = daemonPid(runDir);
      assert.ok(pid);
      process.kill(pid, 'SIGKILL');
      await until('the daemon is dead', () => daemonPid(runDir) === undefined);
    },
    records: () => (existsSync(join(runDir, 'taps')) ? readdirSync(join(runDir, 'taps')) : []),
  };
}
type Hypervisor = ReturnType<typeof hypervisor>;

/** Something that a guest says. */
const frameOf = (source: Mac): Uint8Array =>
  encodeFrame({
    ...{ source, destination: mac('52:54:00:00:00:01'), etherType: ETHERTYPE.IPV4 },
    payload: encodePacket(
      parsePacketLine('A 0:0(0) ack 1 win 9', {
        ...{ source: INSIDE, destination: PEER, sourcePort: 7, destinationPort: 7 },
      }),
    ),
  });

/** A guest looks for a DHCP server, and says what it is called. */
const discover = (chaddr: Mac, hostName: string): Uint8Array => {
  const name = { code: DHCP_OPTION.HOST_NAME, bytes: Buffer.from(hostName) };
  const message = {
    ...{ op: 'request' as const, xid: 1, secs: 0, broadcast: true, chaddr },
    ...{ ciaddr: NOBODY, yiaddr: NOBODY, siaddr: NOBODY },
    options: [typeOption('discover'), name],
  };
  return encodeFrame({
    ...{ source: chaddr, destination: BROADCAST_MAC, etherType: ETHERTYPE.IPV4 },
    payload: encodeDhcp({ source: NOBODY, destination: EVERYBODY, message }),
  });
};

const guestOf = (m: Mac): GuestState => ({
  ...unknownGuest(m),
  inside4: {
    ...{ address: INSIDE, prefix_length: 24, gateway: null, server: null },
    ...{ lease_s: 0, options: [] },
  },
});

/** One TI flow and one legacy connection, as another hypervisor packs them. */
function luggage(half: number): string {
  const tuple: Tuple = { local: INSIDE, remote: PEER, localPort: 22, remotePort: 40_000, tap: 1 };
  const flow: Flow = readFlow(new DataView(new ArrayBuffer(FLOW_SIZE)));
  flow.initiator.tifidHalf = half;
  const now = process.hrtime.bigint();
  const seen = { created: now, seenIn: now, seenOut: now };
  const plain = { since: now, reason: REASON.LEGACY_MPTCP };
  const packed = packLuggage(
    { flows: [[tuple, { ...flow, ...seen }]], plain: [[{ ...tuple, localPort: 80 }, plain]] },
    now,
  );
  return Buffer.from(packed).toString('base64');
}

/** A VM comes to this tap: away, with a flow that is held and a legacy connection. */
async function arrive(h: Hypervisor, tap: string, o: { mac: Mac; at: string; half: number }) {
  await h.client.place(tap, guestOf(o.mac), [`${o.at}/24`]);
  const arrived = await h.client.importFlows(tap, { flows: luggage(o.half), outside: [INSIDE] });
  assert.deepEqual(arrived, { version: 1, imported: 1, refused: 0 });
}

const flowsOf = async (h: Hypervisor, tap: string): Promise<string[]> =>
  (await h.client.flows()).flows.filter((flow) => flow.tap === tap).map((flow) => flow.state);

test('up recognises a tap in a bridge and learns its guest; down leaves nothing', async (t) => {
  const h = hypervisor(t);
  assert.match(h.tiflow('up', 'vnet0'), /^vnet0: boundary attached \(VM\)$/m);
  assert.match(h.tc('vnet0'), /tap_ingress.*tap_egress/s);
  h.says('vnet0', GUEST);
  await until('its MAC is known', async () => (await h.tap('vnet0'))?.mac === GUEST);
  assert.equal(h.tiflow('up', 'vnet0'), `vnet0: boundary attached already (VM, ${GUEST})\n`);
  assert.match(h.tiflow('status'), new RegExp(`^vnet0 +${GUEST} +home +- +=`, 'm'));
  assert.equal(h.tiflow('down', 'vnet0'), 'vnet0: boundary detached\n');
  assert.equal(h.tc('vnet0'), '');
  assert.deepEqual(await h.client.taps(), []);
  h.tiflow('up', 'vnet0');
  const down = h.tiflow('down');
  assert.match(down, /^vnet0: boundary detached\nnothing of tiflow is left in/m);
  assert.equal(h.tc('vnet0'), '');
  assert.deepEqual(existsSync(h.runDir) ? readdirSync(h.runDir) : [], []);
  assert.doesNotMatch(readFileSync('/proc/self/mounts', 'utf8'), new RegExp(h.runDir));
});

test('killed and started again: the VM, its place, its flows', async (t) => {
  const h = hypervisor(t);
  h.tiflow('up', 'vnet0');
  await arrive(h, 'vnet0', { mac: GUEST, at: OUTSIDE, half: 1 });
  await h.kill();
  h.tiflow('up', 'vnet0');
  const view = await h.tap('vnet0');
  assert.deepEqual(
    [view?.mac, view?.place, view?.inside, view?.outside],
    [GUEST, 'away', [INSIDE], [OUTSIDE]],
  );
  // Nobody has said that the flow may go on where it was, so it is begun again.
  assert.deepEqual((await flowsOf(h, 'vnet0')).sort(), ['legacy', 'syncing']);
  assert.deepEqual(await h.client.guest('vnet0'), guestOf(GUEST));
});

test('killed while a VM is leaving: its flows are held until somebody says what became of it', async (t) => {
  const h = hypervisor(t);
  h.tiflow('up', 'vnet0');
  await arrive(h, 'vnet0', { mac: GUEST, at: OUTSIDE, half: 1 });
  await h.client.synchronize('vnet0', 0, false);
  await h.client.exportFlows('vnet0');
  await h.kill();
  h.tiflow('up', 'vnet0');
  assert.deepEqual((await flowsOf(h, 'vnet0')).sort(), ['held', 'legacy']);
  assert.equal((await h.client.synchronize('vnet0', 0, false)).moved, 1);
  assert.deepEqual((await flowsOf(h, 'vnet0')).sort(), ['legacy', 'steady']);
});

for (const plugged of [true, false]) {
  const how = plugged ? 'with its VM' : 'after its VM';
  test(`a tap that vanishes ${how}: what was there can be asked for, until it is detached`, async (t) => {
    const h = hypervisor(t);
    h.tiflow('up', 'vnet0');
    await arrive(h, 'vnet0', { mac: GUEST, at: OUTSIDE, half: 1 });
    assert.deepEqual(h.records(), ['vnet0.json']);
    if (!plugged) h.unplug('vnet0');
    h.ip('link del vnet0');
    // A manager may come for its flows only now.
    assert.equal((await h.tap('vnet0'))?.mac, GUEST);
    assert.notEqual((await h.client.exportFlows('vnet0')).flows, '');
    await h.client.detachTap('vnet0');
    assert.deepEqual(await h.client.taps(), []);
    assert.deepEqual((await h.client.flows()).flows, []);
    assert.deepEqual(h.records(), []);
    h.unplug('vnet0');
    // A new one under the same name inherits nothing.
    h.plug('vnet0');
    h.tiflow('up', 'vnet0');
    const view = await h.tap('vnet0');
    assert.deepEqual([view?.mac, view?.place, view?.outside], [null, 'home', []]);
  });
}

test('a tap that is made anew at once, before anybody has looked', async (t) => {
  const h = hypervisor(t);
  h.tiflow('up', 'vnet0');
  await arrive(h, 'vnet0', { mac: GUEST, at: OUTSIDE, half: 1 });
  h.ip('link del vnet0');
  h.unplug('vnet0');
  h.plug('vnet0');
  await h.client.attachTap('vnet0');
  assert.match(h.tc('vnet0'), /tap_ingress/);
  const view = await h.tap('vnet0');
  assert.deepEqual([view?.mac, view?.place, view?.flows.legacy], [null, 'home', 0]);
});

test('vanished while no daemon ran: the next one forgets it, and a new one of its index', async (t) => {
  const h = hypervisor(t);
  h.plug('vnet1');
  h.tiflow('up', 'vnet0', 'vnet1');
  const index = h.index('vnet0');
  await arrive(h, 'vnet0', { mac: GUEST, at: OUTSIDE, half: 1 });
  await h.kill();
  h.ip('link del vnet0');
  h.ip(`link add vnet0 index ${index} type veth peer name far`);
  h.tiflow('up', 'vnet1');
  assert.deepEqual(
    (await h.client.taps()).map(({ name }) => name),
    ['vnet1'],
  );
  assert.deepEqual((await h.client.flows()).flows, []);
  assert.deepEqual(h.records(), []);
  await h.client.attachTap('vnet0');
  assert.equal((await h.tap('vnet0'))?.mac, null);
});

test('two VMs with the same inside address and the same connection do not meet', async (t) => {
  const h = hypervisor(t);
  h.plug('vnet1');
  h.tiflow('up', 'vnet0', 'vnet1');
  const other = mac('52:54:00:00:00:0b');
  await arrive(h, 'vnet0', { mac: GUEST, at: OUTSIDE, half: 1 });
  await arrive(h, 'vnet1', { mac: other, at: '198.51.100.11', half: 2 });
  assert.deepEqual((await h.tap('vnet1'))?.outside, ['198.51.100.11']);
  assert.deepEqual((await h.tap('vnet0'))?.outside, [OUTSIDE]);
  assert.equal((await h.client.synchronize('vnet0', 0, false)).moved, 1);
  assert.deepEqual((await flowsOf(h, 'vnet0')).sort(), ['legacy', 'steady']);
  assert.deepEqual((await flowsOf(h, 'vnet1')).sort(), ['held', 'legacy']);
  h.tiflow('down', 'vnet0', '--force');
  assert.deepEqual((await flowsOf(h, 'vnet1')).sort(), ['held', 'legacy']);
  assert.deepEqual(h.records(), ['vnet1.json']);
  const { flows } = await h.client.flows();
  assert.equal(flows.length, 2);
});

test("a guest's flood, each frame another: the other guest is heard, little is written", async (t) => {
  const h = hypervisor(t);
  h.plug('vnet1');
  h.tiflow('up', 'vnet0', 'vnet1');
  h.asks('vnet0', GUEST, 'first');
  await until('a record', () => h.records().includes('vnet0.json'));
  const written: string[] = [];
  const watcher = watch(join(h.runDir, 'taps'), (_, file) => written.push(file ?? ''));
  t.after(() => watcher.close());
  const begun = performance.now();
  for (let n = 1; n <= 20_000; n++) {
    h.asks('vnet0', GUEST, `${n}`);
    if (n === 10_000) h.asks('vnet1', mac('52:54:00:00:00:0b'), 'quiet');
  }
  await until('the other guest', () => h.records().includes('vnet1.json'));
  assert.equal(h.hostName('vnet1'), 'quiet');
  await until('what the flood said', () => Number(h.hostName('vnet0')) > 20);
  writeFileSync(join(h.runDir, 'taps', 'last'), '');
  await until('all that was written', () => written.includes('last'));
  // Once at once, and then once a second.
  const seconds = Math.ceil((performance.now() - begun) / 1000);
  const times = written.filter((file) => file === 'vnet0.json').length;
  assert.ok(times > 0 && times <= seconds + 1, `${times} times in ${seconds} s`);
  const { counters } = await h.client.status();
  assert.equal(counters['drop.event-lost'] ?? 0, 0);
});

test('the wrong guest, tap or MAC: what is wrong is told, nothing changes', async (t) => {
  const h = hypervisor(t);
  h.tiflow('up', 'vnet0');
  await assert.rejects(h.client.guest('vnet0'), { code: 'guest-unknown' });
  await assert.rejects(h.client.guest('vnet7'), {
    ...{ code: 'no-such-tap', message: 'no boundary on tap vnet7 (there is: vnet0)' },
  });
  await assert.rejects(h.client.attachTap('vnet7'), { code: 'ENODEV' });
  await assert.rejects(h.client.detach('vnet7'), { code: 'ENODEV' });
  await h.client.attachTap('vnet0', GUEST);
  const before = await h.tap('vnet0');
  const other = guestOf(mac('52:54:00:00:00:0b'));
  await assert.rejects(h.client.place('vnet0', other, ['dhcp']), { code: 'other-guest' });
  await assert.rejects(h.client.place('vnet0', guestOf(GUEST), ['192.0.2.7']), {
    code: 'bad-request',
  });
  const none = { flows: 'AAAA', outside: [] };
  await assert.rejects(h.client.importFlows('vnet0', none), { code: 'EPROTO' });
  assert.deepEqual(await h.tap('vnet0'), before);
});
