/* A daemon stays, whatever the world refuses; and one that cannot go on does not stay.
 *
 *   host: eth0 ── veth ── eth0: peer
 *   10.0.1.2, 2001:db8:1::2     10.0.1.1, 2001:db8:1::1
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  cpSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { DaemonClient } from '../../src/daemon/api/client.js';
import type { StatusView } from '../../src/daemon/view/view.js';
import { ownName } from '../../src/lab/own-name.js';
import { onEveryExit } from '../../src/lab/runner.js';
import { until } from '../../src/lab/wait.js';
import { buildVariant } from '../boundary/variant.js';

const path = (file: string): string => fileURLToPath(new URL(file, import.meta.url));
const MAIN = path('../../src/cli/main.js');
const [HOST, PEER] = [ownName('stays-host'), ownName('stays-peer')];

const on = (host: string, ...command: string[]): string =>
  execFileSync('nsenter', [`--net=/run/netns/${host}`, '--', ...command], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
const ip = (host: string, line: string): string =>
  execFileSync('ip', ['-n', host, ...line.split(' ')], { encoding: 'utf8' });
const write = (host: string, file: string, text: string): string =>
  on(host, 'sh', '-c', `echo ${text} > ${file}`);

for (const host of [HOST, PEER]) {
  execFileSync('ip', ['netns', 'add', host]);
  process.on('exit', () => spawnSync('ip', ['netns', 'del', host]));
  ip(host, 'link set lo up');
}
plugIn();

function plugIn(): void {
  execFileSync(
    'ip',
    `link add eth0 netns ${HOST} type veth peer name eth0 netns ${PEER}`.split(' '),
  );
  for (const [host, n] of [
    [PEER, 1],
    [HOST, 2],
  ] as const) {
    ip(host, `addr add 10.0.1.${n}/24 dev eth0`);
    ip(host, `addr add 2001:db8:1::${n}/64 dev eth0 nodad`);
    ip(host, 'link set eth0 up');
  }
}

/** The host's cable: what was off keeps no IPv6 address. */
function flap(): void {
  ip(PEER, 'link set eth0 down');
  ip(PEER, 'link set eth0 up');
  ip(PEER, 'addr replace 2001:db8:1::1/64 dev eth0 nodad');
}

/** A daemon in the foreground on the host, and what can be asked of it; gone with the test. */
function daemon(
  t: TestContext,
  o: { toml?: string; preload?: string; host?: string; main?: string; runDir?: string } = {},
) {
  const directory = mkdtempSync(join(tmpdir(), `tiflow-stays-${process.pid}-`));
  const runDir = o.runDir ?? join(directory, 'run');
  const main = o.main ?? MAIN;
  const config = join(directory, 'tiflow.toml');
  writeFileSync(config, `run_dir = "${runDir}"\ngive_up = "3s"\n${o.toml ?? ''}\n`);
  const netns = `--net=/run/netns/${o.host ?? HOST}`;
  const preload = o.preload === undefined ? [] : ['--import', path(o.preload)];
  const tiflow = (...args: string[]) => {
    const command = [netns, '--', process.execPath, ...preload, main, ...args];
    return spawnSync('nsenter', command, { encoding: 'utf8' });
  };
  const log = join(directory, 'log');
  const stderr = openSync(log, 'a');
  const process_ = spawn(
    'nsenter',
    [netns, '--', process.execPath, ...preload, main, 'daemon', '--config', config],
    { stdio: ['ignore', 'ignore', stderr] },
  );
  closeSync(stderr);
  t.after(async () => {
    process_.kill('SIGKILL');
    await ended(process_);
    tiflow('down', '--force', '--run-dir', runDir, '--config', config);
    rmSync(directory, { recursive: true, force: true });
  });
  const client = new DaemonClient(runDir);
  const status = async (): Promise<StatusView | undefined> =>
    client.status().catch(() => undefined);
  const shows = (what: string, is: (s: StatusView) => boolean) =>
    until(what, async () => {
      assert.equal(process_.exitCode ?? process_.signalCode, null, readFileSync(log, 'utf8'));
      const now = await status();
      return now !== undefined && is(now);
    });
  return {
    ...{ runDir, client, shows, tiflow, process: process_ },
    log: () => readFileSync(log, 'utf8'),
  };
}

const ended = (child: ChildProcess): Promise<unknown> =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve()
    : new Promise((resolve) => child.once('exit', resolve));

const isAttached = (status: StatusView): boolean =>
  status.interfaces.some((link) => link.name === 'eth0' && link.attached);

test('a firewall that lets no IPv6 out, and a cable that flaps', async (t) => {
  on(HOST, 'nft', 'add table ip6 f');
  on(HOST, 'nft', 'add chain ip6 f out { type filter hook output priority 0; policy drop; }');
  t.after(() => on(HOST, 'nft', 'delete table ip6 f'));
  const { shows, log } = daemon(t, { toml: 'interfaces = ["eth0"]' });
  await shows('the daemon', isAttached);
  flap();
  await shows('a failed round', ({ failed_rounds }) => failed_rounds.count > 0);
  await shows('it to go on', ({ failed_rounds }) => /EPERM/.test(failed_rounds.last ?? ''));
  const said = log()
    .split('\n')
    .filter((line) => line.includes('will be tried again'));
  assert.equal(said.length, 1);
  assert.match(said[0] ?? '', /ask the routers of interface \d+: EPERM \(a firewall/);
});

test('IPv6 is switched off while an IPv6 connection lives; IPv4 connections do not care', async (t) => {
  const peer = daemon(t, { toml: 'interfaces = ["eth0"]', host: PEER });
  await peer.shows('the daemon of the peer', isAttached);
  const { shows } = daemon(t, { toml: 'interfaces = ["eth0"]' });
  await shows('the daemon', isAttached);
  const servers = JSON.stringify(['10.0.1.1', '2001:db8:1::1']);
  const listen = `${servers}.forEach((a) => require('net').createServer().listen(7000, a))`;
  const connect = `${servers}.forEach(function again(a) {
    require('net').connect(7000, a).on('error', () => setTimeout(again, 100, a));
  })`;
  for (const [host, script] of [
    [PEER, listen],
    [HOST, connect],
  ] as const) {
    const child = spawn('nsenter', [`--net=/run/netns/${host}`, process.execPath, '-e', script]);
    t.after(() => child.kill());
  }
  await shows('two flows', ({ flows }) => flows.protected === 2);
  const disable = (value: number) =>
    write(HOST, '/proc/sys/net/ipv6/conf/all/disable_ipv6', String(value));
  t.after(() => {
    disable(0);
    ip(HOST, 'addr replace 2001:db8:1::2/64 dev eth0 nodad');
  });
  disable(1);
  await shows('a failed round', ({ failed_rounds }) => failed_rounds.count > 0);
  ip(HOST, 'addr del 10.0.1.2/24 dev eth0');
  t.after(() => ip(HOST, 'addr replace 10.0.1.2/24 dev eth0'));
  await shows('the IPv4 address to be kept', ({ retained }) => retained.includes('10.0.1.2'));
});

test('an interface that is missing, one of the wrong kind, and one that comes again', async (t) => {
  ip(HOST, 'tuntap add dev wg0 mode tun');
  t.after(() => ip(HOST, 'link del wg0'));
  const toml = 'interfaces = ["late0", "wg0", "eth0"]';
  const { shows, client, tiflow, log, runDir } = daemon(t, { toml });
  await shows('the daemon', isAttached);
  const why = new Map((await client.status()).missing.map((each) => [each.name, each.why]));
  assert.equal(why.get('late0'), 'no such interface');
  assert.match(why.get('wg0') ?? '', /only Ethernet/);
  assert.match(log(), /late0 is not protected/);
  assert.match(
    tiflow('status', '--run-dir', runDir).stdout,
    /late0 is not protected: no such interface/,
  );
  const doctor = tiflow('doctor', 'eth0', '--run-dir', runDir);
  assert.match(doctor.stdout, /^fail +daemon\.missing +wg0 is not protected/m);

  ip(HOST, 'link add late0 type veth peer name late1');
  t.after(() => ip(HOST, 'link del late0'));
  await shows('the late one', ({ missing }) => missing.every(({ name }) => name === 'wg0'));
  ip(HOST, 'link del eth0');
  await shows('that it is gone', ({ missing }) => missing.some(({ name }) => name === 'eth0'));
  plugIn();
  await shows('it again', (status) => isAttached(status) && status.missing.length === 1);
});

test('a kernel without IPv6', async (t) => {
  const { shows, tiflow, log, runDir } = daemon(t, {
    ...{ toml: 'interfaces = ["eth0"]', preload: './no-ipv6.js' },
  });
  await shows('the daemon', (status) => isAttached(status) && status.lacks.includes('ipv6'));
  assert.match(log(), /no IPv6 in this kernel/);
  flap();
  await shows('it to go on', isAttached);
  assert.match(tiflow('status', '--run-dir', runDir).stdout, /^lacks +no IPv6/m);
  const doctor = tiflow('doctor', 'eth0', '--run-dir', runDir);
  assert.match(doctor.stdout, /^warn +kernel\.ipv6/m);
});

/** A connection from the host to its peer that says something all the time; waits for it to go on. */
function talk(t: TestContext): (when: string) => Promise<void> {
  const listen = `require('net').createServer((s) => s.pipe(s).on('error', () => {})).listen(7001)`;
  const connect = `(function again() {
    const s = require('net').connect(7001, '10.0.1.1').on('error', () => setTimeout(again, 100));
    s.on('connect', () => s.write('x'));
    s.on('data', () => { process.stdout.write('x'); setTimeout(() => s.write('x'), 5) });
  })()`;
  let heard = 0;
  for (const [host, script] of [
    [PEER, listen],
    [HOST, connect],
  ] as const) {
    const child = spawn('nsenter', [`--net=/run/netns/${host}`, process.execPath, '-e', script]);
    child.stdout.on('data', (bytes: Buffer) => {
      heard += bytes.length;
    });
    t.after(() => child.kill());
  }
  return async (when) => {
    const before = heard;
    await until(`the connection to go on ${when}`, () => heard > before + 20);
  };
}

/** The host is another one on its link. */
function renumber(t: TestContext): void {
  ip(HOST, 'addr del 10.0.1.2/24 dev eth0');
  ip(HOST, 'addr add 10.0.1.3/24 dev eth0');
  t.after(() => {
    ip(HOST, 'addr del 10.0.1.3/24 dev eth0');
    ip(HOST, 'addr replace 10.0.1.2/24 dev eth0');
  });
}

/** A file system that a few files fill, below which nothing is when this process ends. */
function tinyFilesystem(): string {
  const directory = mkdtempSync(join(tmpdir(), `tiflow-stays-${process.pid}-`));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k,mode=700', 'tiflow', directory]);
  onEveryExit(() => {
    spawnSync('umount', ['--recursive', '--lazy', directory]);
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

test('a run directory without room: it stays, its flows go on and move', async (t) => {
  const directory = tinyFilesystem();
  const toml = 'interfaces = ["eth0"]';
  const peer = daemon(t, { toml, host: PEER });
  await peer.shows('the daemon of the peer', isAttached);
  const { shows, runDir } = daemon(t, { toml, runDir: join(directory, 'run') });
  await shows('the daemon', isAttached);
  const goesOn = talk(t);
  await goesOn('at first');
  const filling = join(directory, 'filling');
  const fill = () => writeFileSync(filling, new Uint8Array(512 * 1024));
  assert.throws(fill, { code: 'ENOSPC' });
  flap();
  await shows('a failed round', ({ failed_rounds }) => /ENOSPC/.test(failed_rounds.last ?? ''));
  await goesOn('without room');
  renumber(t);
  await shows('it to move', ({ flows }) => flows.moved === 1 && flows.moving === 0);
  await goesOn('after its move');

  const draft = join(runDir, 'links.json.new');
  assert.ok(existsSync(draft), 'what could not be written');
  rmSync(filling);
  flap();
  await shows('it to be written', () => !existsSync(draft));
  await goesOn('with room again');
});

test('a mistake of ours ends it, with its listener open', async (t) => {
  const stuck = daemon(t, { toml: 'interfaces = ["eth0"]', preload: './own-mistake.js' });
  await until('it to end', () => stuck.process.exitCode !== null);
  assert.equal(stuck.process.exitCode, 1);
  assert.match(stuck.log(), /a mistake of ours/);
});

/** What an upgrade installs: this version with another build of the data plane. */
function installed(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), `tiflow-stays-${process.pid}-`));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const root = path('../../../');
  cpSync(join(root, 'dist/src'), join(directory, 'dist/src'), { recursive: true });
  for (const name of ['package.json', 'node_modules']) {
    symlinkSync(join(root, name), join(directory, name));
  }
  renameSync(dirname(buildVariant(directory)), join(directory, 'bpf'));
  return join(directory, 'dist/src/cli/main.js');
}

test('an upgrade replaces the data plane under a connection that has moved', async (t) => {
  const toml = 'interfaces = ["eth0"]';
  const peer = daemon(t, { toml, host: PEER });
  await peer.shows('the daemon of the peer', isAttached);
  const former = daemon(t, { toml });
  await former.shows('the daemon', isAttached);
  const goesOn = talk(t);
  await goesOn('at first');
  renumber(t);
  await former.shows('it to move', ({ flows }) => flows.moved === 1 && flows.moving === 0);
  await goesOn('after its move');
  const programs = () => on(HOST, 'tc', 'filter', 'show', 'dev', 'eth0', 'egress');
  const before = programs();

  const main = installed(t);
  former.process.kill('SIGTERM');
  await ended(former.process);
  const next = daemon(t, { toml, main, runDir: former.runDir });
  const asked = () => next.tiflow('doctor', 'eth0', '--run-dir', former.runDir).stdout;
  await next.shows('the next daemon', isAttached);
  assert.notEqual(programs(), before);
  assert.match(asked(), /^ok +data-plane\.loaded/m);
  assert.match(
    former.tiflow('doctor', 'eth0', '--run-dir', former.runDir).stdout,
    /^warn +data-plane\.loaded +[0-9a-f]+ is loaded, [0-9a-f]+ is built/m,
  );
  await goesOn('with the new data plane');
  await next.shows('the flow', ({ flows }) => flows.moved === 1);
});
