/**
 * The cases in which a real guest is migrated once, or there and back, while programs on aramis
 * talk to it. tiflow is on the hypervisors (the guest knows nothing), or in the guest.
 */
import type { Moment } from '../scene.js';
import { ARAMIS, type Site } from '../topology.js';
import { type Migration, STAGES } from '../vm/migration.js';
import { gatewayOf, type Programs, type VmCase, type VmStage } from '../vm/stage.js';
import { now } from '../wait.js';

export const vmLiveHypervisor: VmCase = {
  name: 'vm-live-hypervisor',
  summary: 'live migration of an unmodified guest; tiflow on the hypervisors',
  vm: {},
  play: (stage) => once(stage, []),
};

export const vmLiveGuest: VmCase = {
  name: 'vm-live-guest',
  summary: 'live migration of a guest that has its own tiflow and notices by itself',
  vm: { tiflowInGuest: true },
  play: (stage) => once(stage, ['--placement', 'guest']),
};

export const vmPauseCopy: VmCase = {
  name: 'vm-pause-copy',
  summary: 'the guest is paused, its memory copied, and goes on elsewhere',
  vm: {},
  play: (stage) => once(stage, ['--mode', 'pause-and-copy']),
};

export const vmBack: VmCase = {
  name: 'vm-back',
  summary: 'live migration to porthos and back to athos',
  vm: {},
  async play(stage) {
    const programs = await stage.programs();
    for (const site of ['porthos', 'athos'] as const) {
      await stage.migrate(site);
      await stage.checkPlace(site);
      await stage.checkGoOn(programs, `at ${site}`);
      await stage.checkNothingLeft('vm', site);
    }
    checkNewConnections(stage, 'athos');
    await stage.finish(programs);
  },
};

/** One migration to porthos; then the old hypervisor is gone from the network. */
async function once(stage: VmStage, args: readonly string[]): Promise<void> {
  const programs = await stage.programs();
  await exhibits(stage, programs[0], 'before');
  const reach = async (site: Site, when: string): Promise<void> => {
    for (const each of programs) {
      const addresses = [ARAMIS[each.family], gatewayOf(site, each.family)];
      await stage.checkReach(each, addresses, when);
    }
  };
  await reach('athos', 'at athos');
  const at = now();
  const before = retransmitted(stage);
  const migration = await stage.migrate('porthos', args);
  stage.figures.sent_again_by_client = retransmitted(stage) - before;
  await stage.checkPlace('porthos');
  await stage.checkNothingLeft('vm', 'porthos');
  stage.lab.blackhole('athos');
  stage.step('athos is cut off');
  await stage.checkGoOn(programs, 'at porthos, athos cut off');
  await exhibits(stage, programs[0], 'after');
  await reach('porthos', 'at porthos, athos cut off');
  checkNewConnections(stage, 'porthos');
  await stage.finish(programs);
  stage.timeline = timeline(stage, migration, at);
}

/** Segments that the client's kernel has sent more than once. */
const retransmitted = ({ lab }: VmStage): number =>
  Number(/^TcpRetransSegs +(\d+)/m.exec(lab.run('aramis', ['nstat', '-as']))?.[1]);

/** A new login to the addresses that the guest has for others at the site. */
export function checkNewConnections(stage: VmStage, site: Site): void {
  for (const family of stage.families) {
    const address = stage.lab.vmAddress(family, 'vm', site);
    const said = welcome(stage, address);
    stage.check(`a new connection to ${address}`, said === 'welcome', said);
  }
}

function welcome(stage: VmStage, address: string): string {
  try {
    return stage.lab.inGuest('echo welcome', address).trim();
  } catch (error) {
    return (error as Error).message;
  }
}

/** What the two ends see of the session: as in the paper's figures 3 to 6. */
async function exhibits(stage: VmStage, p: Programs, when: 'before' | 'after'): Promise<void> {
  const { lab } = stage;
  const show = (figure: number, title: string, command: string, lines: () => Promise<string[]>) =>
    stage.exhibit({ figure, title, command, when }, lines);
  await show(1, 'The guest: its addresses', 'ip -o addr', async () =>
    (await p.session.run("ip -o addr show eth0 | awk '{print $3, $4}'")).map((l) => l.trim()),
  );
  await show(2, 'The guest: who has logged in', 'env, netstat', () =>
    p.session.run('env | grep ^SSH_CONNECTION; netstat -tn | grep :22'),
  );
  await show(3, 'The client: its connections (aramis)', 'tiflow flows', async () =>
    (await lab.daemon('aramis').flows()).flatMap((flow) => [
      `TIFID ${flow.tifid}  ${flow.state}, ${flow.moves} moves`,
      `  kernel ${flow.kernel}`,
      `  wire   ${flow.wire}`,
    ]),
  );
}

/** The stages of the migration, and when the client's end of the session was moved. */
function timeline(stage: VmStage, migration: Migration, at: number): Moment[] {
  const rows: Array<[Moment['host'], string, number | undefined]> = STAGES.flatMap((name) => [
    [migration.from, `${name}: begun`, migration.at(name, 'begin')],
    [migration.from, `${name}: done`, migration.at(name, 'done')],
  ]);
  const committed = stage.lab.daemon('aramis').find('committed', at)?.at_ms;
  rows.push(['aramis', 'first CONFIRM valid, mapping committed', committed]);
  return rows
    .flatMap(([host, what, ms]) => (ms === undefined ? [] : [{ after_ms: ms - at, host, what }]))
    .sort((a, b) => a.after_ms - b.after_ms)
    .map((moment) => ({ ...moment, after_ms: Math.round(moment.after_ms * 10) / 10 }));
}
