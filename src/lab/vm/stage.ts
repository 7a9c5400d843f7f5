/**
 * The scene of the topology `vm`: programs between aramis and a guest, migrations of the guest,
 * and what must hold after each: one VM, its programs going on, nothing left behind.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { namespacePids } from '../namespace.js';
import { seenFromOutside } from '../own-mounts.js';
import { Scene } from '../scene.js';
import { Session } from '../session.js';
import { ARAMIS, type Family, NETWORKS, SITES, type Site } from '../topology.js';
import { now, until } from '../wait.js';
import { Download } from './download.js';
import { Echo } from './echo.js';
import type { VmLab, VmLabOptions } from './lab.js';
import { MACS, TAPS, type VmName } from './machine.js';
import { Migration, type MigrationLine } from './migration.js';

/** One row of the table of cases, of this topology. */
export interface VmCase {
  name: string;
  summary: string;
  vm: VmLabOptions;
  play(stage: VmStage): Promise<void>;
}

/** What a user on aramis does with a guest at the time, over one family. */
export interface Talk {
  family: Family;
  session: Session;
  echo: Echo;
  /** SSH_ variables, and the session's connection as the guest's kernel names it */
  identity: string[];
}

export interface Programs extends Talk {
  download: Download;
}

const ECHO_BYTES_PER_S = 200_000;
/** 16 MiB in about 25 s: longer than a migration of a small guest. */
const DOWNLOAD_RATE = '640K';
const IDENTITY = [
  'env | grep ^SSH_ | sort; set -- $SSH_CLIENT',
  'netstat -tn | grep -E ":22 .*:$2 +ESTABLISHED" | sed "s/  */ /g" | cut -d" " -f4-5',
].join('; ');
const SETTLE_BOUND_MS = 60_000;

export class VmStage extends Scene<VmLab> {
  /** A guest has both: what happens to it happens to connections of both at once. */
  readonly families = [4, 6] as const;

  /** Once over each family, one after the other. */
  async overEach<T>(play: (family: Family) => Promise<T>): Promise<[T, T]> {
    return [await play(4), await play(6)];
  }

  /**
   * Over each family: an ssh session, a transfer in both directions, a download at that rate (as
   * curl has it).
   */
  async programs(downloadRate = DOWNLOAD_RATE): Promise<[Programs, Programs]> {
    const programs = await this.overEach((family) => this.#programs(family, downloadRate));
    this.step('ssh sessions, transfers both ways and downloads are running');
    return programs;
  }

  async #programs(family: Family, downloadRate: string): Promise<Programs> {
    const { lab } = this;
    const session = await Session.open(lab, family);
    await session.type();
    const identity = await session.run(IDENTITY);
    const echo = await Echo.open(lab, lab.vmAddress(family), ECHO_BYTES_PER_S);
    const download = await Download.start(lab, family, downloadRate);
    return { family, session, echo, download, identity };
  }

  /** Runs `tiflow migrate` to its end and checks that it says that it went well. */
  async migrate(to: Site, args: readonly string[] = [], vm: VmName = 'vm'): Promise<Migration> {
    const at = now();
    this.moves.push(at);
    this.step(`tiflow migrate ${[vm, '--to', to, ...args].join(' ')}`);
    const migration = await Migration.start(this.lab, {
      vm,
      to,
      args,
      onLine: (line) => {
        if (line.event === 'done') this.step(`stage ${line.stage} done`);
      },
    });
    const last = await migration.finish();
    const ok = last?.event === 'migrated' && migration.child.exitCode === 0;
    this.check(`tiflow migrate ${vm} to ${to}`, ok, ok ? figures(last) : migration.verdict);
    if (last?.downtime_ms !== undefined) this.figures.downtime_ms = last.downtime_ms;
    return migration;
  }

  /** The programs go on from where they were, for the guest with the very same connections. */
  async checkGoOn(programs: readonly Talk[], when: string): Promise<void> {
    for (const each of programs) await this.#checkGoOn(each, `${when}, IPv${each.family}`);
  }

  async #checkGoOn(p: Talk, when: string): Promise<void> {
    const at = now();
    const going = async (): Promise<string> => {
      await p.session.counting(at);
      await p.session.type();
      await p.echo.flowing(at);
      return (await p.session.run(IDENTITY)).join('; ');
    };
    const identity = await going().catch((error: Error) => error);
    const went = !(identity instanceof Error);
    this.check(`${when}: the connections go on`, went, went ? '' : identity.message);
    if (p.identity.length === 0) return;
    const same = identity === p.identity.join('; ');
    this.check(`${when}: the guest sees the same peers`, same, String(identity));
  }

  /**
   * What is not TCP works as well, from the guest: ICMP to each address; UDP to aramis, and the ICMP
   * errors about it that come back from the routers on the way and from there (traceroute).
   */
  async checkReach(
    { session, family }: Pick<Talk, 'session' | 'family'>,
    addresses: readonly string[],
    when: string,
  ): Promise<void> {
    const ping = addresses.map(
      (a) => `ping -c 1 -W 5 ${a} > /dev/null 2>&1 && echo answer || echo silence ${a};`,
    );
    const answers = await session.run(ping.join(' '), 10_000 * (1 + addresses.length));
    const reached = answers.length > 0 && answers.every((line) => line === 'answer');
    this.check(`${when}: ICMP to ${addresses.join(', ')}`, reached, answers.join(', '));
    const target = ARAMIS[family];
    const trace = family === 4 ? 'traceroute' : 'traceroute6';
    const hops = await session.run(`${trace} -n -q 1 -w 3 -m 6 ${target}`, 30_000);
    const arrived = hops.length > 2 && (hops.at(-1) ?? '').includes(` ${target} `);
    this.check(`${when}: UDP, and ICMP errors about it`, arrived, hops.slice(1).join('; '));
  }

  /** Ends the programs; checks that each was whole; keeps the silences. */
  async finish(programs: readonly (Talk & Partial<Programs>)[]): Promise<void> {
    for (const { family, session, echo, download } of programs) {
      const parts = { ...(download && { download }), 'transfer both ways': echo, session };
      for (const [name, program] of Object.entries(parts)) {
        const { ok, detail } = await program.finish();
        this.check(`${name} over IPv${family} complete`, ok, detail);
      }
      this.noteSilence(session);
      this.noteSilence(echo);
    }
  }

  /** Waits until one QEMU of the VM runs, no other is there, and nobody migrates any more. */
  async settled(vm: VmName = 'vm'): Promise<Site | undefined> {
    const one = async () => {
      const states = await this.lab.states(vm).catch(() => ({}));
      const [site, ...others] = Object.keys(states) as Site[];
      const alone =
        site && others.length === 0 && states[site as keyof typeof states] === 'running';
      return alone && this.migrating().length === 0 && site;
    };
    return until('the migration to be settled', one, SETTLE_BOUND_MS).catch(() => undefined);
  }

  /** Checks that the VM runs at this place alone. */
  async checkPlace(site: Site, vm: VmName = 'vm'): Promise<void> {
    const at = await this.settled(vm);
    const detail = at ?? `${JSON.stringify(await this.lab.states(vm))} ${this.migrating()}`;
    this.check(`${vm} runs at ${site} and nowhere else`, at === site, detail);
  }

  /** The processes of migrations on both hypervisors. */
  migrating(): string[] {
    return SITES.flatMap((site) =>
      namespacePids(this.lab.namespaces[site])
        .map((pid) => `${site}: ${commandLine(pid)}`)
        .filter((text) => / (migrate|receive)( |$)/.test(text) && !text.includes('qemu-system')),
    );
  }

  /** Checks that a hypervisor has nothing of a VM that is elsewhere, and no journal of its move. */
  async checkNothingLeft(vm: VmName, at: Site, lease: 'gone' | 'may-stay' = 'gone'): Promise<void> {
    const other = SITES.find((site) => site !== at) ?? at;
    const left = async () => [
      ...this.migrating(),
      ...this.lab.qemus(vm, other).map((pid) => `QEMU ${pid} on ${other}`),
      ...this.#tapsLeft(vm, other),
      ...(lease === 'gone' ? this.#leaseLeft(vm, other) : []),
      ...SITES.flatMap((site) => this.#journals(site)),
    ];
    const clean = async () => (await left()).length === 0;
    await until('nothing to be left', clean, SETTLE_BOUND_MS).catch(() => undefined);
    const found = await left();
    this.check(`nothing of ${vm} is left on ${other}`, found.length === 0, found.join(', '));
  }

  #tapsLeft(vm: VmName, site: Site): string[] {
    const links = this.lab.run(site, ['ip', '-o', 'link', 'show', 'type', 'tun']);
    const taps = links.includes(` ${TAPS[vm]}:`) ? [`tap ${TAPS[vm]} on ${site}`] : [];
    const known = this.lab.daemonPid(site) === undefined ? [] : this.#knownTaps(site);
    const protectedTaps = known.includes(MACS[vm]) ? [`boundary of ${vm} on ${site}`] : [];
    return [...taps, ...protectedTaps];
  }

  #leaseLeft(vm: VmName, site: Site): string[] {
    const leases = readFileSync(`${this.lab.directory}/${site}/leases`, 'utf8');
    if (this.lab.home(vm) === site || !leases.includes(MACS[vm])) return [];
    return [`lease ${this.lab.vmAddress(4, vm, site)} at ${site}`];
  }

  #knownTaps(site: Site): string[] {
    const view = this.lab.api(site, 'GET', '/v1/taps') as { taps: Array<{ mac: string }> };
    return view.taps.map((tap) => tap.mac);
  }

  #journals(site: Site): string[] {
    const places = ['/run/tiflow/migrations', '/var/lib/tiflow/migrations'];
    return places.flatMap((path) => {
      const directory = seenFromOutside(this.lab.host(site), path);
      const files = existsSync(directory) ? readdirSync(directory) : [];
      return files.map((file) => `journal ${file} on ${site}`);
    });
  }
}

/** The gateway of a site, as its hosts know it. */
export const gatewayOf = (site: Site, family: Family): string =>
  family === 4 ? NETWORKS[site].gateway4 : NETWORKS[site].gateway6;

const figures = (last: MigrationLine | undefined): string =>
  Object.entries(last ?? {})
    .filter(([name, value]) => typeof value === 'number' && !['version', 'seen_ms'].includes(name))
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');

/** Of a process, with spaces; '' if it is gone. */
export function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
}
