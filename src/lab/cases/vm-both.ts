/**
 * The case in which two guests on two hypervisors, connected to each other and to aramis, swap
 * their places one after the other. Neither has an address of its own subnet afterwards.
 */

import { Session } from '../session.js';
import type { Family } from '../topology.js';
import type { Talk, VmCase, VmStage } from '../vm/stage.js';
import { until } from '../wait.js';

export const vmBoth: VmCase = {
  name: 'vm-both',
  summary: 'two guests that are connected to each other swap their places',
  vm: { vms: { vm: 'athos', vm2: 'porthos' } },
  async play(stage) {
    const { lab } = stage;
    const vm2 = { logIn: (f: Family, command: string) => lab.logIn(f, command, 'vm2') };
    const talks = await stage.overEach(async (family) => ({
      family,
      session: await Session.open(lab, family),
      session2: await Session.open(vm2, family),
    }));
    for (const { family, session } of talks) {
      await session.run(talkTo(lab.vmAddress(family, 'vm2'), family));
    }
    for (const talk of talks) await checkTalk(stage, talk, 'before');
    for (const [vm, site] of [
      ['vm', 'porthos'],
      ['vm2', 'athos'],
    ] as const) {
      await stage.migrate(site, [], vm);
      await stage.checkPlace(site, vm);
      for (const talk of talks) {
        await checkTalk(stage, talk, `${vm} is at ${site}`);
        // For now both are on one hypervisor, and vm2 is still at home.
        if (vm === 'vm') {
          await stage.checkReach(talk, [lab.vmAddress(talk.family, 'vm2')], 'beside each other');
        }
        await talk.session.type();
        await talk.session2.type();
      }
    }
    for (const { family, session, session2 } of talks) {
      for (const [name, each] of Object.entries({ vm: session, vm2: session2 })) {
        const { ok, detail } = await each.finish();
        stage.check(`ssh into ${name} over IPv${family} complete and in order`, ok, detail);
        stage.noteSilence(each);
      }
    }
  },
};

/** vm counts to the other guest's echo server and keeps what comes back. */
const talkTo = (address: string, family: Family): string =>
  `{ (i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done) | nc ${address} 7; } > /tmp/talk${family} 2>&1 &`;

/** Ten more numbers come back; all so far in order, none left out. */
async function checkTalk(
  stage: VmStage,
  { family, session }: Pick<Talk, 'family' | 'session'>,
  when: string,
): Promise<void> {
  const file = `/tmp/talk${family}`;
  const heard = async (): Promise<number> => Number((await session.run(`wc -l < ${file}`))[0]);
  const from = await heard();
  const more = async () => (await heard()) > from + 10;
  const late = await until('the guests to talk', more, 30_000).then(
    () => '',
    (e: Error) => e.message,
  );
  const check = `awk '$1 != NR { print "wrong at", NR, $0; exit }' ${file}; tail -n 1 ${file}`;
  const said = await session.run(check);
  const ok = late === '' && said.length === 1;
  stage.check(
    `${when}: the guests' own connection over IPv${family} goes on`,
    ok,
    late || said.join(', '),
  );
}
