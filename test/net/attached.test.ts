/* The boundary stays where it is wanted, whatever others do to links, qdiscs, pins and the configuration. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { daemon, ended, HOST, ip, isAttached, on, PEER, plugIn, renumber, talk } from './pair.js';

const TOML = 'interfaces = ["eth0"]';
const filters = (name = 'eth0'): string =>
  on(HOST, 'tc', 'filter', 'show', 'dev', name, 'ingress') +
  on(HOST, 'tc', 'filter', 'show', 'dev', name, 'egress');
const isWhole = (name?: string): boolean =>
  /boundary_ingres/.test(filters(name)) && /boundary_egress/.test(filters(name));

/** A connection through two daemons that has moved once. */
async function moved(t: TestContext) {
  const peer = daemon(t, { toml: TOML, host: PEER });
  await peer.shows('the daemon of the peer', isAttached);
  const host = daemon(t, { toml: TOML });
  await host.shows('the daemon', isAttached);
  const goesOn = talk(t);
  await goesOn('at first');
  renumber(t);
  await host.shows('it to move', ({ flows }) => flows.moved === 1 && flows.moving === 0);
  await goesOn('after its move');
  return { host, goesOn };
}

test('another tool deletes the clsact: the flow goes on, nothing is left to be done', async (t) => {
  const { host, goesOn } = await moved(t);
  on(HOST, 'tc', 'qdisc', 'del', 'dev', 'eth0', 'clsact');
  await until('the boundary to be back', isWhole);
  await goesOn('with another clsact');
  on(HOST, 'tc', 'filter', 'del', 'dev', 'eth0', 'ingress');
  await until('the filter to be back', isWhole);
  await goesOn('with another filter');
  await until('nothing to do', async () => (await host.client.plan()).steps.length === 0);
});

test('the interface is made anew, with the same address: the flow goes on', async (t) => {
  const { goesOn } = await moved(t);
  ip(HOST, 'link del eth0');
  plugIn();
  ip(HOST, 'addr del 10.0.1.2/24 dev eth0');
  ip(HOST, 'addr add 10.0.1.3/24 dev eth0');
  await until('the boundary to be back', isWhole);
  await goesOn('by the new interface');
});

test('patterns and the default route: what comes is taken, what goes is left alone', async (t) => {
  const { shows, client, tiflow, runDir, log } = daemon(t, {
    toml: 'interfaces = ["usb*", "default"]',
  });
  const attachedTo = (...names: string[]) =>
    shows(`it on ${names.join(', ') || 'nothing'}`, ({ interfaces }) => {
      const attached = interfaces.filter((link) => link.attached).map((link) => link.name);
      return attached.sort().join() === names.join();
    });
  await attachedTo();
  await until('it to be said', () => log().includes('usb* is not protected'));
  assert.match(log(), /default is not protected: no Ethernet interface has a default route/);
  ip(HOST, 'route add default via 10.0.1.1 dev eth0');
  await attachedTo('eth0');
  ip(HOST, 'link add usb0 type veth peer name far0');
  t.after(() => spawnSync('ip', ['-n', HOST, 'link', 'del', 'usb0']));
  await attachedTo('eth0', 'usb0');
  ip(HOST, 'link set usb0 name other0');
  await attachedTo('eth0');
  assert.equal(filters('other0'), '');
  ip(HOST, 'link set other0 name usb0');
  await attachedTo('eth0', 'usb0');
  assert.match(tiflow('down', 'usb*', '--run-dir', runDir).stdout, /usb0: boundary detached/);
  await attachedTo('eth0');
  assert.match(tiflow('up', '--run-dir', runDir).stdout, /eth0: boundary attached already/);
  assert.match(
    tiflow('up', 'usb*', 'wl*', '--run-dir', runDir).stdout,
    /wl\*: no Ethernet interface is called so so far\nusb0: boundary attached/,
  );
  ip(HOST, 'route del default');
  await attachedTo('usb0');
  assert.deepEqual((await client.plan()).steps, []);
});

test('the port of a bridge, and the bridge: one of both', async (t) => {
  ip(HOST, 'link add br0 type bridge');
  ip(HOST, 'link add port0 type veth peer name far0');
  t.after(() => {
    ip(HOST, 'link del br0');
    ip(HOST, 'link del port0');
  });
  const { shows, tiflow, runDir } = daemon(t, { toml: 'interfaces = ["port0", "br0"]' });
  await shows('both', ({ interfaces }) => interfaces.filter((l) => l.attached).length === 2);
  ip(HOST, 'link set port0 master br0');
  await until('the port to have none', () => filters('port0') === '');
  assert.match(
    tiflow('status', '--run-dir', runDir).stdout,
    /port0 is not protected: what passes it passes br0, too/,
  );
  const up = tiflow('up', 'port0', '--run-dir', runDir);
  assert.match(up.stderr, /attach boundary to port0: EBUSY \(what passes it passes br0, too/);
});

test('taps by pattern: each as it joins its bridge, and none that is no port of one', async (t) => {
  ip(HOST, 'link add br0 type bridge');
  t.after(() => ip(HOST, 'link del br0'));
  const { shows, client, tiflow, runDir, process } = daemon(t, { toml: 'taps = ["vnet*"]' });
  const config = `${runDir}/../tiflow.toml`;
  const behind = (...names: string[]) =>
    shows(
      `taps: ${names.join(', ') || 'none'}`,
      ({ taps }) => taps.map((vm) => vm.name).join() === names.join(),
    );
  await behind();
  for (const name of ['vnet0', 'vnet1', 'other0']) {
    ip(HOST, `tuntap add dev ${name} mode tap`);
    t.after(() => spawnSync('ip', ['-n', HOST, 'link', 'del', name]));
  }
  for (const name of ['vnet0', 'other0']) ip(HOST, `link set ${name} master br0`);
  await behind('vnet0');
  assert.match(filters('vnet0'), /tap_ingress/);
  assert.equal(filters('vnet1') + filters('other0'), '');
  on(HOST, 'tc', 'qdisc', 'del', 'dev', 'vnet0', 'clsact');
  await until('the boundary to be back', () => /tap_ingress/.test(filters('vnet0')));
  ip(HOST, 'link set vnet1 master br0');
  await behind('vnet0', 'vnet1');
  assert.match(tiflow('down', 'vnet1', '--run-dir', runDir).stdout, /vnet1: boundary detached/);
  await behind('vnet0');
  writeFileSync(config, readFileSync(config, 'utf8').replace('vnet*', 'none*'));
  process.kill('SIGHUP');
  await behind();
  await until('the tap to have none', () => filters('vnet0') === '');
  assert.deepEqual((await client.plan()).steps, []);
});

test('an `ingress` qdisc in the way is named, and when it goes, the boundary comes', async (t) => {
  on(HOST, 'tc', 'qdisc', 'add', 'dev', 'eth0', 'ingress');
  const { shows, tiflow, runDir } = daemon(t, { toml: TOML });
  await shows('why it is missing', ({ missing }) =>
    missing.some(({ why }) => why.includes('tc qdisc del dev eth0 ingress')),
  );
  const doctor = tiflow('doctor', 'eth0', '--run-dir', runDir).stdout;
  assert.match(doctor, /^fail +daemon\.plan +to do: attach eth0 \(it is not there\); refused: /m);
  on(HOST, 'tc', 'qdisc', 'del', 'dev', 'eth0', 'ingress');
  await shows('it', isAttached);
  assert.match(tiflow('doctor', 'eth0', '--run-dir', runDir).stdout, /^ok +daemon\.plan/m);
});

test('the pins go with their mount: pinned again, and the next daemon has the flow', async (t) => {
  const { host, goesOn } = await moved(t);
  spawnSync('umount', ['--lazy', `${host.runDir}/bpf`]);
  assert.deepEqual(
    (await host.client.plan()).steps.map((step) => step.do),
    ['pin'],
  );
  await until('nothing to do', async () => (await host.client.plan()).steps.length === 0);
  host.process.kill('SIGKILL');
  await ended(host.process);
  await goesOn('without a daemon');
  const next = daemon(t, { toml: TOML, runDir: host.runDir });
  await next.shows('the flow that has moved', ({ flows }) => flows.moved === 1);
  await goesOn('under the next one');
});

test('the pins go while no daemon runs: `up` and `down` manage with what is left', async (t) => {
  const first = daemon(t, { toml: TOML });
  await first.shows('the daemon', isAttached);
  first.process.kill('SIGKILL');
  await ended(first.process);
  const umount = () => spawnSync('umount', ['--lazy', `${first.runDir}/bpf`]);
  umount();
  const second = daemon(t, { toml: TOML, runDir: first.runDir });
  await second.shows('it on the same interface', isAttached);
  assert.ok(isWhole());
  second.process.kill('SIGKILL');
  await ended(second.process);
  umount();
  const down = second.tiflow('down', '--run-dir', first.runDir);
  assert.deepEqual([down.status, down.stderr], [0, '']);
  assert.equal(filters(), '');
});

test('the configuration is read again: by name, by signal, and not if it is wrong', async (t) => {
  const { goesOn, host } = await moved(t);
  ip(HOST, 'link add more0 type veth peer name far0');
  t.after(() => ip(HOST, 'link del more0'));
  const config = `${host.runDir}/../tiflow.toml`;
  const before = readFileSync(config, 'utf8');
  const rewrite = (from: string, to: string) => writeFileSync(config, before.replace(from, to));
  const heard: string[] = [];
  const stop = new AbortController();
  t.after(() => stop.abort());
  const listens = (async () => {
    for await (const { event } of host.client.monitor(stop.signal)) heard.push(event);
  })().catch(() => undefined);
  await until('a reader of the monitor', () => {
    ip(HOST, 'addr replace 10.0.9.1/32 dev eth0');
    ip(HOST, 'addr del 10.0.9.1/32 dev eth0');
    return heard.includes('address-added');
  });

  rewrite('["eth0"]', '["eth0", "more*"]');
  assert.equal(
    host.tiflow('reload', '--run-dir', host.runDir).stdout,
    'the configuration was read again\n',
  );
  await until('the new interface', () => isWhole('more0'));
  await goesOn('under another configuration');
  rewrite('["eth0"]', '["eth0", 7]');
  const wrong = host.tiflow('reload', '--run-dir', host.runDir);
  assert.deepEqual([wrong.status, wrong.stdout], [1, '']);
  assert.match(wrong.stderr, /tiflow\.toml:\d+: interfaces\.1: must be a string/);
  assert.ok(isWhole('more0'));
  // Without it the connection would break.
  rewrite('["eth0"]', '["more*"]');
  assert.equal(host.tiflow('reload', '--run-dir', host.runDir).status, 0);
  const doctor = () => host.tiflow('doctor', 'eth0', '--run-dir', host.runDir).stdout;
  await until('it to be refused', () => /to do: detach eth0 .*1 flows have moved/.test(doctor()));
  await goesOn('though the configuration names its interface no more');
  rewrite('', '');
  host.process.kill('SIGHUP');
  await until('the interface of the file to be alone', () => filters('more0') === '');
  await goesOn('as at first');
  await until('a reader of the monitor to hear of both', () =>
    ['attached', 'detached'].every((event) => heard.includes(event)),
  );
  stop.abort();
  await listens;
});
