/**
 * The scene of the topology `twins`: connections of both machines, the same happens to either,
 * and what became of the connections with tiflow and without.
 */
import { checkFlow, flowOfPort } from '../flow-check.js';
import { Scene } from '../scene.js';
import * as services from '../services.js';
import { Transfer } from '../stream.js';
import type { Family } from '../topology.js';
import { now, pause } from '../wait.js';
import type { TwinsLab, TwinsOptions } from './lab.js';
import type { Machine } from './machine.js';
import { isNoWorse, type Outcome, outcomeSoFar } from './outcome.js';
import type { Far } from './topology.js';

/** A kind of connection that stands while it happens, and what has to become of it. */
export interface Talk {
  name: string;
  far: Far;
  without: Outcome;
  with: Outcome;
  /** the machine listens, at this address; default: it connects */
  listens?: (machine: Machine, family: Family) => string;
  /** the address that the machine connects from */
  from?: (machine: Machine, family: Family) => string;
  /** where it connects to, if not to the far host's own address */
  to?: (machine: Machine, family: Family) => string;
  /** where the server listens; default: one that no other has */
  port?: (machine: Machine) => number;
  /** it stands before tiflow is started */
  early?: true;
}

/** One row of HOSTS.md, and one of the table of cases. */
export interface HostCase {
  name: `host-${string}`;
  /** the scenario, in one line */
  summary: string;
  /** what is on the machine beside tiflow */
  software: string;
  twins: TwinsOptions;
  /** default: both */
  families?: readonly Family[];
  /** another case is of the same kind: this one is played by `make test-all` only */
  seldom?: true;
  talks: readonly Talk[];
  /** before tiflow is started; on either machine */
  prepare?(machine: Machine, family: Family): void | Promise<void>;
  /** returns when it is over, and whatever it leads to has had its time */
  happen(machine: Machine, family: Family): void | Promise<void>;
  /** more to be seen afterwards, while the connections stand */
  look?(stage: TwinsStage): void | Promise<void>;
  /** the host's daemon is started by `happen` */
  startsLate?: true;
  /** no new connection is possible afterwards: nowhere, or not without tiflow */
  endsOffline?: 'both' | 'without';
}

/** An open connection of one machine. */
interface Open {
  talk: Talk;
  machine: Machine;
  port: number;
  streams: Transfer;
}

const ANY: Record<Family, string> = { 4: '0.0.0.0', 6: '::' };
const RATE = 20_000;
/** A kernel that has backed off sends again within twice the time that nothing came. */
const PATIENCE_MS = 5_000;
const PROBE_MS = 100;
/** What was on its way when it happened has arrived by then. */
const UNDER_WAY_MS = 300;

export class TwinsStage extends Scene<TwinsLab> {
  #port = 5001;

  async perform(o: HostCase): Promise<void> {
    const both = (act: (m: Machine) => void | Promise<void>): Promise<unknown> =>
      Promise.all(this.lab.machines.map(async (machine) => act(machine)));
    await both((machine) => o.prepare?.(machine, this.family));
    const early = await this.#openAll(o.talks.filter((talk) => talk.early));
    if (!o.startsLate) {
      this.lab.startDaemon();
      await this.lab.watchDaemon();
    }
    const later = await this.#openAll(o.talks.filter((talk) => !talk.early));
    const open = [...early, ...later];
    if (!o.startsLate) await this.#checkProtected('before', open);
    this.step('it happens');
    this.moves.push(now());
    await both((machine) => o.happen(machine, this.family));
    const outcomes = await this.#judge(open);
    // While they stand: what is kept for a flow that has just ended is being taken away.
    this.#checkDoctor();
    await this.#finishAll(open, outcomes);
    const online = this.lab.machines.filter(
      ({ hasTiflow }) => o.endsOffline === undefined || (hasTiflow && o.endsOffline === 'without'),
    );
    const fresh = await this.#openAll([NEW_CONNECTION], online);
    await this.#finishAll(fresh, await this.#judge(fresh));
    await o.look?.(this);
  }

  /** What doctor finds on the host is nothing that keeps tiflow from its work. */
  #checkDoctor(): void {
    const argv = services.tiflow('doctor', '--json', '--config', '/run/tiflow.toml');
    const said = this.lab.run('host', ['sh', '-c', '"$@" || true', 'sh', ...argv]);
    const { checks } = JSON.parse(said) as { checks: Array<Record<string, string>> };
    const found = checks.filter(({ level }) => level !== 'ok');
    for (const { level, id, message } of found) this.step(`doctor: ${level} ${id}: ${message}`);
    const failed = found.filter(({ level }) => level === 'fail');
    const texts = failed.map(({ id, message }) => `${id}: ${message}`);
    this.check('doctor finds nothing that fails', failed.length === 0, texts.join('; '));
  }

  #openAll(talks: readonly Talk[], machines = this.lab.machines): Promise<Open[]> {
    const wanted = talks.flatMap((talk) => machines.map((machine) => ({ talk, machine })));
    return Promise.all(wanted.map(({ talk, machine }) => this.#open(talk, machine)));
  }

  async #open(talk: Talk, machine: Machine): Promise<Open> {
    const { family } = this;
    const port = talk.port?.(machine) ?? this.#port++;
    const listens = talk.listens?.(machine, family);
    const ends =
      listens === undefined
        ? { client: machine.name, server: talk.far }
        : { client: talk.far, server: machine.name, address: listens };
    const to = talk.to?.(machine, family);
    const local = talk.from?.(machine, family);
    const streams = await Transfer.open(this.lab, {
      ...{ ...ends, family, port },
      ...(to !== undefined && { address: to, listen: ANY[family] }),
      ...(local !== undefined && { local }),
    });
    streams.write(RATE);
    await streams.flowing(now());
    return { talk, machine, port, streams };
  }

  /** Of each connection with the peer that goes by tiflow: both daemons hold it as one TI flow. */
  async #checkProtected(when: string, open: readonly Open[]): Promise<void> {
    for (const { talk, machine, port } of open) {
      if (!machine.hasTiflow || talk.far !== 'peer') continue;
      const ends = (['host', 'peer'] as const).map((host) => ({
        host,
        flow: () => flowOfPort(this.lab.daemon(host), port),
      }));
      const name = `${talk.name}: a TI flow ${when}`;
      await checkFlow(this, { name, ends, wanted: () => true });
    }
  }

  async #judge(open: readonly Open[]): Promise<readonly Outcome[]> {
    const since = now() + UNDER_WAY_MS;
    const outcomes = await Promise.all(open.map((each) => this.#outcome(each, since)));
    const going = open.filter((_, i) => outcomes[i] === 'goes on');
    await this.#checkProtected('after', going);
    for (const [i, { talk, machine }] of open.entries()) {
      const is = outcomes[i] ?? 'dead';
      const wanted = machine.hasTiflow ? talk.with : talk.without;
      const which = machine.hasTiflow ? 'with tiflow' : 'without';
      this.check(`${talk.name}, ${which}: ${wanted}`, is === wanted, is === wanted ? '' : is);
      const twin = open.findIndex((o) => o.talk === talk && o.machine !== machine);
      if (!machine.hasTiflow || isNoWorse(is, outcomes[twin] ?? 'dead')) continue;
      this.check(`${talk.name}: no worse with tiflow`, false, `without: ${outcomes[twin]}`);
    }
    return outcomes;
  }

  async #finishAll(open: readonly Open[], outcomes: readonly Outcome[]): Promise<void> {
    await Promise.all(open.map((each, i) => this.#finish(each, outcomes[i] ?? 'dead')));
  }

  async #outcome({ streams }: Open, since: number): Promise<Outcome> {
    for (;;) {
      const ends = await Promise.all(streams.both.map((end) => end.report()));
      const outcome = outcomeSoFar(ends, since);
      if (outcome !== undefined) return outcome;
      if (now() > since + PATIENCE_MS) return 'dead';
      await pause(PROBE_MS);
    }
  }

  async #finish({ talk, machine, streams }: Open, outcome: Outcome): Promise<void> {
    if (outcome !== 'goes on') return streams.stop();
    const whole = await streams.finish();
    if (!whole.ok) this.check(`${talk.name} of ${machine.name}: whole`, false, whole.detail);
    if (machine.hasTiflow && talk.far === 'peer') this.noteSilence(streams);
  }
}

/** Whatever happened: what is opened afterwards works, and is protected. */
const NEW_CONNECTION: Talk = {
  name: 'a new connection',
  far: 'peer',
  without: 'goes on',
  with: 'goes on',
};
