/**
 * The daemon dies at any instant: before, during and after a move, at either end. What is pinned
 * goes on; a new daemon completes what the old one had begun.
 */
import type { MonitorEventName } from '../../daemon/view/view.js';
import type { Protected } from '../lab.js';
import type { Case, PlayedTransfer, Stage } from '../stage.js';
import type { Site } from '../topology.js';
import { now, until } from '../wait.js';

/** The daemon of `host` is killed as soon as this event of the VM's daemon is seen. */
interface Death {
  host: Protected;
  on: MonitorEventName;
  site: Site;
}

/* From the first sign of the move to its last, mover and peer. */
const DEATHS: readonly Death[] = [
  { host: 'vm', on: 'carrier-down', site: 'porthos' },
  { host: 'vm', on: 'address-added', site: 'athos' },
  { host: 'vm', on: 'syn-sent', site: 'porthos' },
  { host: 'vm', on: 'confirm-sent', site: 'athos' },
  { host: 'aramis', on: 'carrier-up', site: 'porthos' },
  { host: 'aramis', on: 'syn-sent', site: 'athos' },
];

export const daemonKilled: Case = {
  name: 'daemon-killed',
  summary: 'SIGKILL to the daemon before, during and after a move, at either end',
  options: { daemons: ['aramis', 'vm'] },
  async play(stage) {
    const transfer = await stage.transfer();
    transfer.streams.write(1e6);
    await transfer.streams.flowing(now());
    await withoutDaemons(stage, transfer, 'before a move');
    for (const death of DEATHS) await dieDuring(stage, transfer, death);
    await withoutDaemons(stage, transfer, 'after a move');
    await stage.checkSettled('transfer', transfer);
    await stage.finish('transfer', transfer);
  },
};

/** Kills both, sees the transfer flow without them, starts both again. */
async function withoutDaemons(stage: Stage, transfer: PlayedTransfer, when: string): Promise<void> {
  for (const host of ['aramis', 'vm'] as const) await stage.lab.killDaemon(host);
  const flows = await transfer.streams.flowing(now()).then(
    () => true,
    () => false,
  );
  stage.check(`flows on with both daemons killed ${when}`, flows);
  for (const host of ['aramis', 'vm'] as const) {
    stage.lab.startDaemon(host);
    await stage.lab.watchDaemon(host);
  }
}

async function dieDuring(stage: Stage, transfer: PlayedTransfer, death: Death): Promise<void> {
  const { host, on, site } = death;
  let killed: Promise<void> | undefined;
  const vm = stage.lab.daemon('vm');
  const from = now();
  vm.onEvent((event) => {
    if (event.event === on && event.at_ms >= from) killed ??= stage.lab.killDaemon(host);
  });
  stage.move(site);
  await until(`event ${on} of the VM's daemon`, () => killed !== undefined);
  await killed;
  vm.onEvent(undefined);
  stage.step(`killed the daemon of ${host} at ${on}`);
  stage.lab.startDaemon(host);
  await stage.lab.watchDaemon(host);
  await stage.lab.waitForAddresses(site, [stage.family]);
  const flows = await transfer.streams.flowing(now()).then(
    () => true,
    () => false,
  );
  stage.check(`moved to ${site} though the daemon of ${host} was killed at ${on}`, flows);
}
