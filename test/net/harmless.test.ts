/* A guest on the host: what was there before tiflow, and what others add while it runs, is there
 * after a move, and after `down`.
 *
 *   host: eth0 ── veth ── eth0: peer
 *   10.0.1.2, then 10.0.1.3     10.0.1.1
 *   lo: 203.0.113.80            10.96.0.10 is translated to it by the host
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { DaemonClient } from '../../src/daemon/api/client.js';
import type { FlowView } from '../../src/daemon/view/view.js';
import { ownName } from '../../src/lab/own-name.js';
import { onEveryExit } from '../../src/lab/runner.js';
import { now, until } from '../../src/lab/wait.js';

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const [HOST, PEER] = [ownName('harmless-host'), ownName('harmless-peer')];
const VIP = '203.0.113.80';
const SERVICE = '10.96.0.10';
const GIVE_UP_MS = 1000;

const inside = (host: string, ...command: string[]): string[] => [
  `--net=/run/netns/${host}`,
  '--',
  ...command,
];
const on = (host: string, ...command: string[]): string =>
  execFileSync('nsenter', inside(host, ...command), { encoding: 'utf8' });
const ip = (host: string, line: string): string =>
  execFileSync('ip', ['-n', host, ...line.split(' ')], { encoding: 'utf8' });

const children: ChildProcess[] = [];
const directory = mkdtempSync(join(tmpdir(), `tiflow-harmless-${process.pid}-`));
const cleanUp = (): void => {
  for (const child of children) child.kill('SIGKILL');
  for (const host of [HOST, PEER]) {
    spawnSync('umount', [join(directory, host, 'bpf')]); // of a daemon that was not taken down
    spawnSync('ip', ['netns', 'del', host]);
  }
  rmSync(directory, { recursive: true, force: true });
};
onEveryExit(cleanUp);
after(cleanUp);

/* Not what counts, or what is drawn at random. */
const SETTINGS = "sysctl -a -r '^net' 2>&- | grep -vE '_count|stable_secret|fastopen_key'";

/* What an operator, and other managers, see of the machine. */
const machine = (): string[] => [
  ...[
    ...['ip addr', 'ip -4 rule', 'ip -6 rule'],
    ...['ip -4 route show table all', 'ip -6 route show table all'],
    ...['tc qdisc show', 'tc filter show dev eth0 ingress', 'tc filter show dev eth0 egress'],
  ].map((line) => on(HOST, ...line.split(' '))),
  on(HOST, 'sh', '-c', SETTINGS),
];

/** A program that goes on as long as its script does. */
function program(host: string, script: string): { heard: () => number } {
  const child = spawn('nsenter', inside(host, process.execPath, '-e', script));
  children.push(child);
  let heard = 0;
  child.stdout.on('data', (bytes: Buffer) => {
    heard += bytes.length;
  });
  return { heard: () => heard };
}

const serving = (address: string, port: number): string =>
  `require('net').createServer((s) => s.on('error', () => {}).pipe(s)).listen(${port}, '${address}')`;

/* Connects until it can, and says something all the time; never twice. */
const talking = (address: string, port: number): string => `(function again() {
  const s = require('net').connect(${port}, '${address}').on('error', () => s.began || setTimeout(again, 50));
  s.on('connect', () => { s.began = true; s.write('x'); });
  s.on('data', () => { process.stdout.write('x'); setTimeout(() => s.write('x'), 5); });
})()`;

/** The daemon of a host, and `tiflow` there. */
async function daemon(host: string) {
  const [runDir, config] = [join(directory, host), join(directory, `${host}.toml`)];
  const settings = `interfaces = ["eth0"]\nrun_dir = "${runDir}"\ngive_up = "${GIVE_UP_MS / 1000}s"\n`;
  writeFileSync(config, settings);
  const run = inside(host, process.execPath, MAIN, 'daemon', '--config', config);
  children.push(spawn('nsenter', run, { stdio: 'ignore' }));
  const client = new DaemonClient(runDir);
  await until('the daemon', () => client.status().then(isAttached, () => false));
  const flows = async (): Promise<FlowView[]> => (await client.flows()).flows;
  const down = () => on(host, process.execPath, MAIN, 'down', '--force', '--config', config);
  return { client, flows, down };
}

test('service addresses, translated connections, and the machine as it was', async () => {
  for (const host of [HOST, PEER]) {
    execFileSync('ip', ['netns', 'add', host]);
    ip(host, 'link set lo up');
  }
  ip(HOST, `link add eth0 type veth peer name eth0 netns ${PEER}`);
  for (const [host, n] of [
    [HOST, 2],
    [PEER, 1],
  ] as const) {
    on(host, 'sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1');
    ip(host, `addr add 10.0.1.${n}/24 dev eth0`);
    ip(host, 'link set eth0 up');
  }
  ip(HOST, `addr add ${VIP}/32 dev lo`);
  ip(PEER, `route add ${VIP} dev eth0`);
  ip(HOST, `route add ${SERVICE} dev eth0`);
  const nat = [
    'add table ip t',
    'add chain ip t c { type nat hook output priority -100; }',
    `add rule ip t c ip daddr ${SERVICE} tcp dport 80 dnat to 10.0.1.1:7001`,
  ];
  on(HOST, 'nft', nat.join('; '));
  const before = machine();

  const { client, flows, down } = await daemon(HOST);
  const peer = await daemon(PEER);
  program(PEER, serving('10.0.1.1', 7001));
  program(HOST, serving(VIP, 7002));
  const translated = program(HOST, talking(SERVICE, 80));
  const service = program(PEER, talking(VIP, 7002));
  await until('two flows', async () => (await client.status()).flows.protected === 2);
  assert.deepEqual((await flows()).filter(isLegacy), [], 'the translated one is no other');

  // Another address on the same link; a route of another manager comes meanwhile.
  ip(HOST, 'addr del 10.0.1.2/24 dev eth0');
  ip(HOST, 'addr add 10.0.1.3/24 dev eth0');
  for (const route of [`${SERVICE} dev eth0`, `local 10.20.0.20 dev eth0 proto 66`]) {
    ip(HOST, `route add ${route}`);
  }
  const movedAt = now();
  await until('the translated one to move', async () => (await flows()).some(hasMoved));
  await until('give_up to be over', () => now() - movedAt > 2 * GIVE_UP_MS);
  for (const each of [translated, service]) {
    const heard = each.heard();
    await until('it to go on', () => each.heard() > heard);
  }
  const { retained } = await client.status();
  assert.deepEqual(retained, ['10.0.1.2']);
  assert.deepEqual(
    (await flows()).map(({ kernel, moves }) => [kernel.split(':')[0], moves]).sort(),
    [
      ['10.0.1.2', 1],
      [VIP, 0],
    ],
  );

  // The peer sends what is for the old address by a detour; somebody removes that, too.
  const detour = () => ip(PEER, 'rule').includes('100:\t');
  assert.ok(detour());
  ip(PEER, 'rule del priority 100');
  ip(PEER, 'route flush table 21578');
  await until('the detour to be put back', detour);
  assert.match(ip(PEER, 'route show table 21578'), /^10\.0\.1\.2 via 10\.0\.1\.3 dev eth0/);

  down();
  ip(HOST, 'route del local 10.20.0.20 dev eth0 proto 66');
  ip(HOST, 'addr del 10.0.1.3/24 dev eth0');
  ip(HOST, 'addr add 10.0.1.2/24 dev eth0');
  ip(HOST, `route replace ${SERVICE} dev eth0`);
  assert.deepEqual(machine(), before);
  peer.down();
});

const isAttached = ({ interfaces }: { interfaces: { attached: boolean }[] }): boolean =>
  interfaces.some(({ attached }) => attached);
const isLegacy = ({ state }: FlowView): boolean => state === 'legacy';
const hasMoved = ({ moves }: FlowView): boolean => moves === 1;
