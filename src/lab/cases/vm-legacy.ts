/**
 * The case in which the client on aramis has no tiflow: everything works as if the hypervisor had
 * none either; after the migration the program is told in the configured time, the guest has
 * suffered nothing, and new connections reach it at its new address.
 */
import { Session } from '../session.js';
import type { VmCase } from '../vm/stage.js';
import { until } from '../wait.js';
import { checkNewConnection } from './vm.js';

const GIVE_UP_S = 5;
/** For the daemon's own timers after, the time it is given. */
const SLACK_MS = 5_000;

export const vmLegacy: VmCase = {
  name: 'vm-legacy',
  summary: 'the client has no tiflow; a guest is migrated',
  vm: { daemons: ['athos', 'porthos'], settings: { give_up: `${GIVE_UP_S}s` } },
  async play(stage) {
    const { lab, family } = stage;
    const session = await Session.open(lab, family);
    await session.type();
    stage.check('plain TCP works', session.alive);
    const uptime = lab.inGuest('cat /proc/sys/kernel/random/boot_id', lab.vmAddress(family));
    await stage.migrate('porthos');
    await stage.checkPlace('porthos');
    const bound = GIVE_UP_S * 1e3 + SLACK_MS;
    const told = await until('ssh on aramis to be told', () => !session.alive, bound).then(
      () => '',
      (error: Error) => error.message,
    );
    stage.check(`the program on aramis is told within ${GIVE_UP_S} s`, told === '', told);
    await checkNewConnection(stage, 'porthos');
    const address = lab.vmAddress(family, 'vm', 'porthos');
    const same = lab.inGuest('cat /proc/sys/kernel/random/boot_id', address) === uptime;
    stage.check('it is the same guest, never restarted', same);
    const left = lab.inGuest("netstat -tn | grep -c 'EST' || true", address).trim();
    stage.check('the guest has no dead connection', left === '1', `${left} established`);
  },
};
