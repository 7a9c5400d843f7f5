/**
 * The case in which the client on aramis has no tiflow: everything works as if the hypervisor had
 * none either; after the migration the program is told in the configured time, the guest has
 * suffered nothing, and new connections reach it at its new address.
 */
import { Session } from '../session.js';
import type { VmCase } from '../vm/stage.js';
import { until } from '../wait.js';
import { checkNewConnections } from './vm.js';

const BOOT_ID = 'cat /proc/sys/kernel/random/boot_id';
const GIVE_UP_S = 5;
/** For the daemon's own timers after, the time it is given. */
const SLACK_MS = 5_000;

export const vmLegacy: VmCase = {
  name: 'vm-legacy',
  summary: 'the client has no tiflow; a guest is migrated',
  vm: { daemons: ['athos', 'porthos'], settings: { give_up: `${GIVE_UP_S}s` } },
  async play(stage) {
    const { lab } = stage;
    const sessions = await stage.overEach((family) => Session.open(lab, family));
    for (const session of sessions) await session.type();
    stage.check(
      'plain TCP works',
      sessions.every((session) => session.alive),
    );
    const boot = lab.inGuest(BOOT_ID, lab.vmAddress(4));
    await stage.migrate('porthos');
    await stage.checkPlace('porthos');
    const bound = GIVE_UP_S * 1e3 + SLACK_MS;
    const both = () => !sessions.some((session) => session.alive);
    const told = await until('ssh on aramis to be told', both, bound).then(
      () => '',
      (error: Error) => error.message,
    );
    stage.check(`the programs on aramis are told within ${GIVE_UP_S} s`, told === '', told);
    checkNewConnections(stage, 'porthos');
    const address = lab.vmAddress(4, 'vm', 'porthos');
    const same = lab.inGuest(BOOT_ID, address) === boot;
    stage.check('it is the same guest, never restarted', same);
    const left = lab.inGuest("netstat -tn | grep -c 'EST' || true", address).trim();
    stage.check('the guest has no dead connection', left === '1', `${left} established`);
  },
};
