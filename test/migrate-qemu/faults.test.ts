/* Each party dies in each stage: exactly one copy of the VM runs afterwards, and nothing else is
 * left behind.
 *
 *   M  tiflow migrate (its guard recovers)     QEMU at the source
 *   R  tiflow receive                          QEMU at the destination
 *   the channel, cut in both directions
 *
 * From `export` on flows travel, and the daemons are real: a connection of the VM must be where the VM
 * is.  `make test` plays a part of the matrix, `make test-all` all of it.
 */

import assert from 'node:assert/strict';
import { readdirSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { STAGES, type StageName } from '../../src/migrate/event.js';
import { endProcess, markOf } from '../../src/migrate/process-mark.js';
import { type Run, TwoHosts } from './two-hosts.js';

/* The limit is for both: a disk that takes 3 s, and then a memory that takes 2 s. */
const DISK_BYTES = 2 ** 20;
const COMMIT = STAGES.indexOf('continue');
/* There is no DHCP server. */
const ADDRESS = '198.51.100.10/24 via 198.51.100.1';

/* What keeps the migration in a stage until the party is dead: a daemon that does not answer, or
 * a slow copy.  The others are over in a moment, and the death comes in them or right after.
 */
const HELD: Partial<Record<StageName, { at: 'athos' | 'porthos'; call: string }>> = {
  address: { at: 'porthos', call: 'place' },
  export: { at: 'athos', call: 'export' },
  import: { at: 'porthos', call: 'import' },
  continue: { at: 'porthos', call: 'synchronize' },
  announce: { at: 'porthos', call: 'announce' },
  release: { at: 'athos', call: 'DELETE' },
};
const SLOW: Partial<Record<StageName, string>> = { storage: '300K', memory: '300K' };

interface Party {
  name: string;
  rsh?: string;
  kill(hosts: TwoHosts, run: Run): Promise<void>;
  /** Where the VM runs afterwards; "nowhere": it was killed itself. */
  expect(stage: StageName): string;
}

const isCommitted = (stage: StageName) => STAGES.indexOf(stage) > COMMIT;

async function killThem(hosts: TwoHosts, at: 'athos' | 'porthos', ...words: string[]) {
  for (const mark of hosts.find(hosts[at], ...words)) assert.ok(await endProcess(mark));
}

const PARTIES: Party[] = [
  {
    name: 'M',
    kill: async (_hosts, run) => {
      const mark = markOf(run.pid);
      if (mark !== undefined) await endProcess(mark);
    },
    expect: (stage) => (isCommitted(stage) ? 'porthos' : 'athos'),
  },
  {
    name: 'R',
    kill: (hosts) => killThem(hosts, 'porthos', 'main.js', 'receive'),
    expect: (stage) => (isCommitted(stage) ? 'porthos' : 'athos'),
  },
  {
    name: 'the channel',
    rsh: 'rsh-cut',
    kill: async (hosts) => {
      const cats = hosts.find(hosts.athos).filter(({ pid }) => hosts.commandLine(pid) === 'cat\0');
      for (const mark of cats) await endProcess(mark);
    },
    expect: (stage) => (isCommitted(stage) ? 'porthos' : 'athos'),
  },
  {
    name: 'QEMU at the destination',
    kill: (hosts) => killThem(hosts, 'porthos', 'qemu-system', '-incoming'),
    expect: (stage) => {
      // There is none yet: nobody dies.
      if (STAGES.indexOf(stage) < STAGES.indexOf('receive')) return 'porthos';
      return isCommitted(stage) ? 'nowhere' : 'athos';
    },
  },
  {
    name: 'QEMU at the source',
    kill: (hosts) => killThem(hosts, 'athos', 'qemu-system'),
    // In `continue` the memory may have arrived, and it goes on there.
    expect: (stage) => (STAGES.indexOf(stage) >= COMMIT ? 'porthos' : 'nowhere'),
  },
];

const isAll = process.env.TIFLOW_TEST_ALL === '1';
/** With real daemons in `make test`: each of these stages, and each party, once. */
const REAL: Partial<Record<StageName, string>> = {
  export: 'the channel',
  import: 'R',
  continue: 'M',
  announce: 'QEMU at the destination',
  release: 'QEMU at the source',
};

const isReal = (party: Party, stage: StageName): boolean =>
  REAL[stage] !== undefined && (isAll || REAL[stage] === party.name);

/* Before the commit every second party, stage by stage another; what is over in a moment is mostly
 * the same as what comes next.
 */
const isPlayed = (party: Party, stage: StageName): boolean => {
  const at = STAGES.indexOf(stage);
  if (isAll || isReal(party, stage) || at >= COMMIT) return true;
  const isHeld = HELD[stage] !== undefined || SLOW[stage] !== undefined;
  return isHeld ? (at + PARTIES.indexOf(party)) % 2 === 0 : party.name === 'M';
};

for (const party of PARTIES) {
  describe(`${party.name} dies`, () => {
    for (const stage of STAGES) {
      const skip = isPlayed(party, stage) ? false : 'played by make test-all';
      test(`in ${stage}`, { skip }, (t) => dies(t, party, stage));
    }
  });
}

test('M and the VM die after it has moved: its disk stays', async (t) => {
  const hosts = await TwoHosts.up(t);
  truncateSync(hosts.disk, DISK_BYTES);
  await hosts.startVm();
  let release: () => void = () => undefined;
  const answer = new Promise<void>((resolve) => {
    release = resolve;
  });
  hosts.porthos.daemon.hold.set('announce', answer);
  const run = hosts.migrate('--storage', 'copy', '--storage-dir', hosts.copies);
  await run.reaches('announce', 'begin');
  await hosts.isAsked('porthos', 'announce');
  await killThem(hosts, 'porthos', 'qemu-system', '-incoming');
  run.kill('SIGKILL');
  release();
  await run.end();
  await hosts.assertOver();
  assert.equal(await hosts.whereItRuns(), 'nowhere');
  assert.equal(readdirSync(hosts.copies).length, 1);
});

async function dies(t: Parameters<typeof TwoHosts.up>[0], party: Party, stage: StageName) {
  const hosts = await TwoHosts.up(t, isReal(party, stage) ? { daemons: 'real' } : {});
  truncateSync(hosts.disk, DISK_BYTES);
  await hosts.startVm();
  let release: () => void = () => undefined;
  const held = HELD[stage];
  if (held !== undefined) {
    const answer = new Promise<void>((resolve) => {
      release = resolve;
    });
    hosts[held.at].daemon.hold.set(held.call, answer);
  }
  const slow = SLOW[stage];
  const run = hosts.migrate(
    ...['--storage', 'copy', '--storage-dir', hosts.copies, '--address', ADDRESS],
    ...(slow === undefined ? [] : ['--bandwidth', slow]),
    ...(party.rsh === undefined ? [] : ['--rsh', join(hosts.directory, party.rsh)]),
  );
  await run.reaches(stage, 'begin');
  if (held !== undefined) await hosts.isAsked(held.at, held.call);
  await party.kill(hosts, run);
  release();
  await run.end();
  await hosts.assertOver(run.told);
  const where = await hosts.whereItRuns();
  const expected = party.expect(stage);
  const told = `${run.told}\n${hosts.logs()}`;
  if (held !== undefined || slow !== undefined) assert.equal(where, expected, told);
  else if (expected !== 'nowhere') assert.match(where, /^(athos|porthos)$/, told);
  if (where === 'athos' || where === 'porthos') await hosts.assertRunsOnlyOn(where);
  else assert.ok(where === 'nowhere' && party.name.startsWith('QEMU'), told);
}
