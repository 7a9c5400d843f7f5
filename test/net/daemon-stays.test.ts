/* A daemon stays, whatever the world refuses; and one that cannot go on does not stay. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { onEveryExit } from '../../src/lab/runner.js';
import { until } from '../../src/lab/wait.js';
import { buildVariant } from '../boundary/variant.js';
import {
  daemon,
  ended,
  flap,
  HOST,
  ip,
  isAttached,
  on,
  PEER,
  path,
  plugIn,
  renumber,
  talk,
  write,
} from './pair.js';

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
