/*
 * A VM is moved and its link stays up: what tells the daemon is the kernel's log, for which it is
 * given a FIFO.
 *
 *     aramis ──── router ──┬── athos ── br0 ─ ─ vm0 ──── vm
 *                          │            sw ┄┄┄┄ (the cable's end changes the bridge, not its state)
 *                          │            │
 *                          └── porthos ─┴─ br0
 */
import assert from 'node:assert/strict';
import { constants, openSync, writeFileSync, writeSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import type { MonitorEvent } from '../../src/daemon/view/view.js';
import { Lab } from '../../src/lab/lab.js';
import { runCommand } from '../../src/lab/namespace.js';
import { daemon } from '../../src/lab/services.js';
import { Stage } from '../../src/lab/stage.js';
import { vmPort } from '../../src/lab/topology.js';
import { now, until } from '../../src/lab/wait.js';
import { readClocks } from '../../src/libc/clocks.js';
import { Poller } from '../../src/libc/poller.js';
import { ResumeWatch } from '../../src/link/resume.js';

const FORK = '5,612,81234567,-;random: crng reseeded due to virtual machine fork\n';
const RATE = 1e6;
const OLD = '5,1,1,-;random: crng reseeded due to virtual machine fork\n';

describe('a moved VM whose link stays up', () => {
  let lab: Lab;
  let log: number;
  let stage: Stage;

  before(async () => {
    lab = await Lab.build({
      name: `resume-${process.pid}`,
      owned: true,
      daemons: ['aramis', 'vm'],
    });
    process.on('exit', () => lab.teardown());
    const fifo = `${lab.directory}/kmsg`;
    runCommand(['mkfifo', fifo]);
    log = openSync(fifo, constants.O_RDWR);
    await lab.killDaemon('vm');
    await restartUnderFifo(fifo);
    connectSwitch();
    stage = new Stage({ lab, family: 4, seed: 1, onStep: () => undefined, onExhibit: undefined });
  });

  after(() => lab.teardown());

  /* What the first daemon has pinned is mounted by now: a mount namespace inherits it. */
  async function restartUnderFifo(fifo: string): Promise<void> {
    const [program, ...rest] = daemon(lab.host('vm').run_dir, { log: 'debug' });
    const script = 'mount --bind "$0" /dev/kmsg && exec "$@"';
    const shell = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script];
    lab.start('vm', 'daemon', [...shell, fifo, program ?? '', ...rest]);
    await lab.watchDaemon('vm');
  }

  /** A second bridge in athos, one network with that of porthos. */
  function connectSwitch(): void {
    const { porthos } = lab.namespaces;
    lab.run('athos', ['ip', 'link', 'add', 'sw', 'type', 'bridge', 'forward_delay', '0']);
    const veth = ['type', 'veth', 'peer', 'name', 'sw0', 'netns', porthos];
    lab.run('athos', ['ip', 'link', 'add', 'sw0', ...veth]);
    for (const [host, bridge] of [
      ['athos', 'sw'],
      ['porthos', 'br0'],
    ] as const) {
      lab.run(host, ['ip', 'link', 'set', 'sw0', 'master', bridge, 'up']);
    }
    lab.run('athos', ['ip', 'link', 'set', 'sw', 'up']);
  }

  const carrierEvents = (since: number): MonitorEvent[] =>
    lab
      .daemon('vm')
      .events.filter(({ event, at_ms }) => event.startsWith('carrier') && at_ms >= since);

  const sinceAlarm = (): number => {
    const alarms = lab.daemon('vm').events.filter(({ event }) => event === 'resumed');
    return now() - (alarms.at(-1)?.at_ms ?? 0);
  };

  it('a false alarm: the addresses are found good, what was held goes on', async () => {
    const transfers = [await stage.transfer(), await stage.transfer({ family: 6 })];
    for (const { streams } of transfers) streams.write(RATE);
    for (const { streams } of transfers) await streams.flowing(now());
    const at = now();
    writeSync(log, FORK);
    const resumed = await lab.daemon('vm').waitFor('resumed', at);
    assert.equal(resumed.reason, 'vmgenid');
    const verified = await lab.daemon('vm').waitFor('verified', at);
    assert.equal(verified.reason, 'IPv4 same');
    for (const transfer of transfers) {
      await transfer.streams.flowing(now());
      await until('the flow to be steady', async () => {
        const flow = await stage.flow('vm', transfer);
        return flow?.state === 'steady' && flow.moves === 0;
      });
      const whole = await transfer.streams.finish();
      assert.ok(whole.ok, whole.detail);
      const silentMs = transfer.streams.silence(at, now());
      assert.ok(silentMs < 2_000, `IPv${transfer.family} was silent for ${silentMs} ms`);
    }
    assert.deepEqual(carrierEvents(at), []);
    const { events } = lab.daemon('vm');
    assert.ok(!events.some(({ event, at_ms }) => event === 'dhcp-renewed' && at_ms >= at));
  });

  it('other addresses are given: the flows move', async () => {
    const transfers = [await stage.transfer(), await stage.transfer({ family: 6 })];
    for (const { streams } of transfers) streams.write(RATE);
    for (const { streams } of transfers) await streams.flowing(now());
    const at = now();
    lab.run('athos', ['ip', 'link', 'set', vmPort, 'master', 'sw']);
    // Two moves within the time in which several signs are one would be one.
    await until('the next alarm to be news', () => sinceAlarm() > 1_500);
    writeSync(log, FORK);
    await lab.waitForAddresses('porthos');
    for (const transfer of transfers) {
      await transfer.streams.flowing(now());
      await stage.checkMoved(`IPv${transfer.family}`, transfer, 1);
      const whole = await transfer.streams.finish();
      assert.ok(whole.ok, whole.detail);
    }
    assert.deepEqual(
      stage.checks.filter((check) => !check.ok),
      [],
    );
    assert.deepEqual(carrierEvents(at), [], 'nothing but the log has told of it');
  });
});

describe('ResumeWatch', () => {
  it('what was logged before it came is not about us; what comes then is', async () => {
    const directory = runCommand(['mktemp', '-d']).trim();
    try {
      const fifo = `${directory}/kmsg`;
      runCommand(['mkfifo', fifo]);
      const log = openSync(fifo, constants.O_RDWR);
      writeSync(log, OLD);
      const poller = new Poller();
      const said: string[] = [];
      const watch = new ResumeWatch(poller, (reason) => said.push(reason), { kernelLog: fifo });
      assert.deepEqual(said, []);
      writeSync(log, FORK);
      await until('the alarm', () => said.length > 0, 2_000);
      assert.deepEqual(said, ['vmgenid']);
      watch.close();
      poller.close();
    } finally {
      runCommand(['rm', '-r', directory]);
    }
  });

  it('looks at the clocks by itself, and believes no program that writes to the log', async () => {
    const poller = new Poller();
    const said: string[] = [];
    let asleepMs = 0;
    const clocks = () => {
      const c = readClocks();
      return { ...c, boottimeMs: c.boottimeMs + asleepMs };
    };
    const watch = new ResumeWatch(poller, (reason) => said.push(reason), { clocks });
    writeFileSync('/dev/kmsg', 'random: crng reseeded due to virtual machine fork');
    asleepMs = 60_000;
    await until('the alarm', () => said.length > 0, 5_000);
    assert.deepEqual(said, ['suspended']);
    watch.close();
    poller.close();
  });

  it('goes on without a log that it may not read', () => {
    const poller = new Poller();
    new ResumeWatch(poller, () => assert.fail(), { kernelLog: '/nonexistent' }).close();
    poller.close();
  });
});
