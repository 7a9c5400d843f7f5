/* A host and its peer, a cable apart, and daemons on them.
 *
 *   host: eth0 ── veth ── eth0: peer
 *   10.0.1.2, 2001:db8:1::2     10.0.1.1, 2001:db8:1::1
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { DaemonClient } from '../../src/daemon/api/client.js';
import type { StatusView } from '../../src/daemon/view/view.js';
import { ownName } from '../../src/lab/own-name.js';
import { until } from '../../src/lab/wait.js';

export const path = (file: string): string => fileURLToPath(new URL(file, import.meta.url));
const MAIN = path('../../src/cli/main.js');
export const [HOST, PEER] = [ownName('stays-host'), ownName('stays-peer')];

export const on = (host: string, ...command: string[]): string =>
  execFileSync('nsenter', [`--net=/run/netns/${host}`, '--', ...command], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
export const ip = (host: string, line: string): string =>
  execFileSync('ip', ['-n', host, ...line.split(' ')], { encoding: 'utf8' });
export const write = (host: string, file: string, text: string): string =>
  on(host, 'sh', '-c', `echo ${text} > ${file}`);

for (const host of [HOST, PEER]) {
  execFileSync('ip', ['netns', 'add', host]);
  process.on('exit', () => spawnSync('ip', ['netns', 'del', host]));
  ip(host, 'link set lo up');
}
plugIn();

export function plugIn(): void {
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
export function flap(): void {
  ip(PEER, 'link set eth0 down');
  ip(PEER, 'link set eth0 up');
  ip(PEER, 'addr replace 2001:db8:1::1/64 dev eth0 nodad');
}

/** A daemon in the foreground on the host, and what can be asked of it; gone with the test. */
export function daemon(
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

export const ended = (child: ChildProcess): Promise<unknown> =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve()
    : new Promise((resolve) => child.once('exit', resolve));

export const isAttached = (status: StatusView): boolean =>
  status.interfaces.some((link) => link.name === 'eth0' && link.attached);

/** A connection from the host to its peer that says something all the time; waits for it to go on. */
export function talk(t: TestContext): (when: string) => Promise<void> {
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
export function renumber(t: TestContext): void {
  ip(HOST, 'addr del 10.0.1.2/24 dev eth0');
  ip(HOST, 'addr add 10.0.1.3/24 dev eth0');
  t.after(() => {
    ip(HOST, 'addr del 10.0.1.3/24 dev eth0');
    ip(HOST, 'addr replace 10.0.1.2/24 dev eth0');
  });
}
