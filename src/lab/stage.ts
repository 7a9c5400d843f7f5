/**
 * What a case plays on: the lab, its steps told with their times, its checks collected, its
 * moves and the silences that they caused.
 */
import type { FlowView } from '../daemon/view.js';
import type { Lab, LabOptions, Protected } from './lab.js';
import type { Session } from './session.js';
import { Transfer, type TransferOptions } from './stream.js';
import type { Family, Site } from './topology.js';
import { now, until } from './wait.js';

export interface Check {
  name: string;
  ok: boolean;
  detail: string;
}

/** One row of the table of cases. */
export interface Case {
  name: string;
  /** what happens, in one line */
  summary: string;
  options: Pick<LabOptions, 'daemons' | 'settings' | 'wire' | 'nat'>;
  play(stage: Stage): Promise<void>;
}

/** One line of the timeline of a move: ms after the cable was pulled, and on which host. */
export interface Moment {
  after_ms: number;
  host: 'vm' | 'aramis' | 'lab';
  what: string;
}

/** What a command showed before or after the move: part of a figure, as in the paper. */
export interface Exhibit {
  figure: number;
  title: string;
  command: string;
  when: 'before' | 'after';
  lines: string[];
}

export interface StageOptions {
  lab: Lab;
  family: Family;
  seed: number;
  onStep: (text: string) => void;
  onExhibit: ((exhibit: Exhibit) => void) | undefined;
}

/** What was silent when: a finished transfer or a session. */
type Silent = Pick<Transfer | Session, 'silence'>;

export class Stage {
  readonly lab: Lab;
  readonly family: Family;
  readonly seed: number;
  readonly checks: Check[] = [];
  readonly moves: number[] = [];
  readonly gapsMs: number[] = [];
  /** measured values beside the gaps, by name with unit */
  readonly figures: Record<string, number> = {};
  timeline: Moment[] = [];
  readonly #options: StageOptions;
  #port = 5001;

  constructor(options: StageOptions) {
    this.lab = options.lab;
    this.family = options.family;
    this.seed = options.seed;
    this.#options = options;
  }

  step(text: string): void {
    this.#options.onStep(text);
  }

  /** Shows the lines that `make` returns, if somebody is watching. */
  async exhibit(
    about: Omit<Exhibit, 'lines'>,
    make: () => string[] | Promise<string[]>,
  ): Promise<void> {
    if (this.#options.onExhibit) this.#options.onExhibit({ ...about, lines: await make() });
  }

  check(name: string, ok: boolean, detail = ''): void {
    this.checks.push({ name, ok, detail });
    this.step(`${ok ? 'ok  ' : 'FAIL'} ${name}${detail === '' ? '' : `: ${detail}`}`);
  }

  /** Opens a transfer between aramis and the VM on a port of its own. */
  async transfer(o: Partial<TransferOptions> = {}): Promise<PlayedTransfer> {
    const port = this.#port++;
    const options = { client: 'aramis', server: 'vm', family: this.family, port, ...o } as const;
    return { ...options, streams: await Transfer.open(this.lab, options) };
  }

  /** Unplugs the VM and plugs it in at the site; the moment is kept as that of a move. */
  move(site: Site): number {
    const at = this.lab.move(site);
    this.moves.push(at);
    this.step(`vm moved to ${site}`);
    return at;
  }

  /** The same in two parts, for what happens in between. */
  unplug(): number {
    const at = this.lab.unplug();
    this.moves.push(at);
    this.step('vm unplugged');
    return at;
  }

  plug(site: Site): number {
    const at = this.lab.plug(site);
    this.step(`vm plugged in at ${site}`);
    return at;
  }

  /** Ends the transfer; checks that it was whole; keeps the silences its moves caused. */
  async finish(name: string, transfer: PlayedTransfer): Promise<void> {
    const whole = await transfer.streams.finish();
    this.check(`${name}: every byte arrived, no error`, whole.ok, whole.detail);
    this.noteSilence(transfer.streams);
  }

  noteSilence(silent: Silent): void {
    this.moves.forEach((from, i) => {
      const gap = silent.silence(from, this.moves[i + 1] ?? now());
      this.gapsMs[i] = Math.max(this.gapsMs[i] ?? 0, Math.round(gap));
    });
  }

  /** What the daemon of a host says of the transfer's connection; undefined: nothing. */
  async flow(host: Protected, transfer: PlayedTransfer): Promise<FlowView | undefined> {
    const flows = await this.lab.daemon(host).flows();
    const end = `:${transfer.port}`;
    return flows.find((f) => f.kernel.split(' > ').some((side) => side.endsWith(end)));
  }

  /** Checks that both daemons hold the transfer as one TI flow with so many moves behind it. */
  checkMoved(name: string, transfer: PlayedTransfer, moves: number): Promise<void> {
    const what = `one TI flow at both ends, ${moves} ${moves === 1 ? 'move' : 'moves'}`;
    return this.#checkFlow(`${name}: ${what}`, transfer, (f) => f.moves === moves);
  }

  /** The same where a move may have taken several synchronizations. */
  checkSettled(name: string, transfer: PlayedTransfer): Promise<void> {
    return this.#checkFlow(`${name}: one TI flow at both ends, settled`, transfer, () => true);
  }

  async #checkFlow(
    name: string,
    transfer: PlayedTransfer,
    wanted: (flow: FlowView) => boolean,
  ): Promise<void> {
    const { client, server } = transfer;
    const peer = client === 'dartagnan' || server === 'dartagnan' ? 'dartagnan' : 'aramis';
    const both = async () => [await this.flow(peer, transfer), await this.flow('vm', transfer)];
    const agree = ([a, b]: Array<FlowView | undefined>): boolean => {
      if (!a || !b || a.tifid !== b.tifid) return false;
      if (!this.lab.isTranslated && !mirrored(a.wire, b.wire)) return false;
      return [a, b].every((f) => f.state === 'steady' && wanted(f));
    };
    const settled = async () => {
      const views = await both();
      return agree(views) && views;
    };
    const views = await until('the flow to settle', settled, 10_000).catch(both);
    const text = (f: FlowView | undefined): string =>
      f ? `${f.tifid} ${f.state}, ${f.moves} moves, ${f.wire}` : 'no flow';
    const ok = agree(views);
    const [a, b] = views;
    this.check(name, ok, ok ? `TIFID ${a?.tifid}` : `${peer}: ${text(a)}; vm: ${text(b)}`);
  }
}

/** Whether two tuples, each local end first, name one connection from its two ends. */
const mirrored = (a: string, b: string): boolean => a.split(' > ').reverse().join(' > ') === b;

/** A transfer and where to find it in a daemon's list. */
export interface PlayedTransfer extends TransferOptions {
  streams: Transfer;
}
