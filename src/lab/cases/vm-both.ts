/**
 * The case in which two guests on two hypervisors, connected to each other and to aramis, swap
 * their places one after the other. Neither has an address of its own subnet afterwards.
 */

import { Session } from '../session.js';
import type { VmCase, VmStage } from '../vm/stage.js';
import { until } from '../wait.js';

export const vmBoth: VmCase = {
  name: 'vm-both',
  summary: 'two guests that are connected to each other swap their places',
  vm: { vms: { vm: 'athos', vm2: 'porthos' } },
  async play(stage) {
    const { lab, family } = stage;
    const sessions = {
      vm: await Session.open(lab, family),
      vm2: await Session.open({ logIn: (f, command) => lab.logIn(f, command, 'vm2') }, family),
    };
    await sessions.vm.run(talkTo(lab.vmAddress(family, 'vm2')));
    await checkTalk(stage, sessions.vm, 'before');
    for (const [vm, site] of [
      ['vm', 'porthos'],
      ['vm2', 'athos'],
    ] as const) {
      await stage.migrate(site, [], vm);
      await stage.checkPlace(site, vm);
      await checkTalk(stage, sessions.vm, `${vm} is at ${site}`);
      // For now both are on one hypervisor, and vm2 is still at home.
      if (vm === 'vm') {
        await stage.checkReach(sessions.vm, [lab.vmAddress(family, 'vm2')], 'beside each other');
      }
      for (const session of Object.values(sessions)) await session.type();
    }
    for (const [name, session] of Object.entries(sessions)) {
      const { ok, detail } = await session.finish();
      stage.check(`ssh session into ${name} complete and in order`, ok, detail);
      stage.noteSilence(session);
    }
  },
};

/** vm counts to the other guest's echo server and keeps what comes back. */
const talkTo = (address: string): string =>
  `{ (i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done) | nc ${address} 7; } > /tmp/talk 2>&1 &`;

/** Ten more numbers come back; all so far in order, none left out. */
async function checkTalk(stage: VmStage, session: Session, when: string): Promise<void> {
  const heard = async (): Promise<number> => Number((await session.run('wc -l < /tmp/talk'))[0]);
  const from = await heard();
  const more = async () => (await heard()) > from + 10;
  const late = await until('the guests to talk', more, 30_000).then(
    () => '',
    (e: Error) => e.message,
  );
  const check =
    'awk \'$1 != NR { print "wrong at", NR, $0; exit }\' /tmp/talk; tail -n 1 /tmp/talk';
  const said = await session.run(check);
  const ok = late === '' && said.length === 1;
  stage.check(`${when}: the guests' own connection goes on`, ok, late || said.join(', '));
}
