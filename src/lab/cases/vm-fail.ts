/**
 * The cases in which a migration fails: one for each stage, in which every party that can fail
 * while that stage runs does so, one after the other. Each time the VM runs at exactly one place,
 * its connections go on, nothing is left behind, and the message says which stage failed.
 *
 * A stage may be over before the blow falls, so that the migration succeeds after all: that is
 * fine too, as long as all of this holds.
 */
import { endProcess, namespacePids } from '../namespace.js';
import { Session } from '../session.js';
import { type Family, NETWORKS, type Site } from '../topology.js';
import { Echo } from '../vm/echo.js';
import { Migration, STAGES, type StageName } from '../vm/migration.js';
import { commandLine, type Talk, type VmCase, type VmStage } from '../vm/stage.js';
import { until } from '../wait.js';

/** One blow. */
interface Failure {
  name: string;
  /** the stages during which it can fall */
  stages: readonly StageName[];
  /** the VM must be where it was, and the migration must say that it failed */
  fatal: boolean;
  /** nobody is left who could give the outside address back: its lease ends by itself */
  keepsLease?: boolean;
  args?: (to: Site) => string[];
  strike(stage: VmStage, migration: Migration): void | Promise<void>;
  repair?(stage: VmStage, migration: Migration): void | Promise<void>;
}

const BEFORE_COMMIT = ['storage', 'memory', 'pause', 'export', 'import'] as const;
const FILLER = '/var/lib/vm/filler';

const FAILURES: readonly Failure[] = [
  {
    name: 'address refused',
    stages: ['address'],
    fatal: true,
    args: (to) => [
      ...['--address', `${NETWORKS[to].gateway4}/24`],
      ...['--address', `${NETWORKS[to].gateway6}/64`],
    ],
    strike: () => {},
  },
  {
    name: 'disk full',
    stages: ['storage'],
    fatal: true,
    strike: ({ lab }, { to }) => {
      lab.run(to, ['sh', '-c', `cat /dev/zero > ${FILLER} 2>/dev/null || true`]);
    },
    repair: ({ lab }, { to }) => {
      lab.run(to, ['rm', FILLER]);
    },
  },
  {
    name: 'QEMU at the destination killed',
    stages: ['receive', ...BEFORE_COMMIT],
    fatal: true,
    strike: ({ lab }, migration) => kill(migration, () => lab.qemus('vm', migration.to)),
  },
  {
    name: 'daemon at the destination killed',
    stages: STAGES,
    fatal: false,
    keepsLease: true,
    strike: ({ lab }, { to }) => lab.killDaemon(to),
    repair: ({ lab }, { to }) => lab.restartDaemon(to),
  },
  {
    name: 'channel cut',
    stages: STAGES,
    fatal: false,
    strike: (stage, migration) => kill(migration, () => sshs(stage, migration.from)),
  },
  {
    name: 'Ctrl-C',
    stages: STAGES,
    fatal: false,
    strike: (_, { child }) => {
      child.kill('SIGINT');
    },
  },
  {
    name: 'tiflow migrate killed',
    stages: STAGES,
    fatal: false,
    strike: (_, { child }) => {
      child.kill('SIGKILL');
    },
  },
];

export const vmFail: readonly VmCase[] = STAGES.map((at) => ({
  name: `vm-fail-${at}`,
  summary: `whoever can fail during stage ${at} of a migration does`,
  vm: at === 'storage' ? { disk: 'private' } : {},
  async play(stage) {
    const programs = await stage.overEach((family) => talk(stage, family));
    // So that there is something to copy: a raw image without content has no size.
    if (at === 'storage')
      await programs[0].session.run('dd if=/dev/urandom of=/dev/vda bs=1M count=40');
    for (const failure of FAILURES.filter((f) => f.stages.includes(at))) {
      await suffer(stage, at, failure);
      const when = `after "${failure.name}"`;
      await stage.checkGoOn(programs, when);
    }
    await stage.finish(programs);
  },
}));

async function talk({ lab }: VmStage, family: Family): Promise<Talk> {
  const session = await Session.open(lab, family);
  const echo = await Echo.open(lab, lab.vmAddress(family), 100_000);
  return { family, session, echo, identity: [] };
}

/** One migration with one blow. */
async function suffer(stage: VmStage, at: StageName, failure: Failure): Promise<void> {
  const from = await stage.lab.whereabouts('vm');
  const to: Site = from === 'athos' ? 'porthos' : 'athos';
  stage.step(`${failure.name} during stage ${at}, ${from} to ${to}`);
  const args = [...(at === 'storage' ? ['--storage', 'copy'] : []), ...(failure.args?.(to) ?? [])];
  let struck: Promise<void> | undefined;
  const migration = await Migration.start(stage.lab, {
    vm: 'vm',
    to,
    args,
    onLine: (line) => {
      if (line.stage !== at || line.event !== 'begin' || struck) return;
      struck = (async () => failure.strike(stage, migration))();
    },
  });
  await migration.finish();
  stage.check(`stage ${at} was reached`, struck !== undefined, migration.verdict);
  await struck;
  await failure.repair?.(stage, migration);
  checkSaid(stage, migration, at, failure);
  finishAsAdvised(stage, migration);
  const site = await stage.settled();
  const wanted = failure.fatal ? site === from : site !== undefined;
  const states = JSON.stringify(await stage.lab.states('vm'));
  stage.check(`${failure.name}: the VM runs at one place`, wanted, `from ${from}, now ${states}`);
  const lease = failure.keepsLease ? 'may-stay' : 'gone';
  await stage.checkNothingLeft('vm', site ?? from, lease);
}

/**
 * What failed is told with its stage, unless nobody was left to tell.  A stage that was as good as
 * over goes to its end: then it is the next one that fails.
 */
function checkSaid(stage: VmStage, m: Migration, at: StageName, failure: Failure): void {
  if (m.child.signalCode === 'SIGKILL') return;
  const since = STAGES.slice(STAGES.indexOf(at));
  const failed = m.lines.find((l) => l.event === 'failed' && since.some((s) => s === l.stage));
  const last = m.lines.at(-1);
  const told = last?.event === 'failed' && last.stage === failed?.stage && Boolean(last.message);
  const succeeded = last?.event === 'migrated' && !failure.fatal;
  const detail = `${JSON.stringify(last)} ${m.said.trim()}`;
  stage.check(`${failure.name}: the message says where`, succeeded || told, detail);
}

/** The VM has moved, but not all that follows was possible: `--recover` makes up for it. */
function finishAsAdvised({ lab }: VmStage, { lines, from }: Migration): void {
  const last = lines.at(-1);
  if (last?.event !== 'migrated' || (last.unfinished as unknown[]).length === 0) return;
  lab.run(from, ['tiflow', 'migrate', '--recover', String(last.id)]);
}

/** Kills these processes once there are any; not if the migration is over before. */
async function kill(migration: Migration, find: () => number[]): Promise<void> {
  const pids = await until('a process to kill', () => {
    const found = find();
    return (found.length > 0 || migration.ended) && found;
  });
  for (const pid of pids) endProcess(pid);
}

/** The ssh clients of migrations on a hypervisor. */
const sshs = ({ lab }: VmStage, site: Site): number[] =>
  namespacePids(lab.namespaces[site]).filter((pid) =>
    /^(\S*\/)?ssh .* receive/.test(commandLine(pid)),
  );
