/**
 * A case with a real program has two acts: its server is on the VM and moves; then its client is,
 * and moves back. Both times everything that the program was busy with goes on.
 */
import { existsSync, mkdirSync } from 'node:fs';
import type { FlowView } from '../../daemon/view/view.js';
import { runCommand } from '../namespace.js';
import type { Silent } from '../scene.js';
import type { Case, Stage } from '../stage.js';
import { now, pause, until } from '../wait.js';
import { Program } from './program.js';

type End = 'vm' | 'aramis';

/** How long the programs work before and after a move, at the least. */
const WORK_MS = 700;

export class Act {
  readonly stage: Stage;
  readonly server: End;
  readonly client: End;
  readonly port: number;

  constructor(stage: Stage, server: End, port: number) {
    this.stage = stage;
    this.server = server;
    this.client = server === 'vm' ? 'aramis' : 'vm';
    this.port = port;
  }

  /** of the server, as it is when the act begins */
  get address(): string {
    return this.stage.lab.address(this.server, this.stage.family);
  }

  /** the same as it stands in a URL */
  get urlHost(): string {
    return this.stage.family === 6 ? `[${this.address}]` : this.address;
  }

  /** A new directory of one end, below the lab's, that is removed with the lab. */
  directory(end: 'server' | 'client', name: string): string {
    const path = `${this.stage.lab.directory}/${this[end]}/${name}`;
    mkdirSync(path, { recursive: true });
    return path;
  }

  /** A directory of the server that takes a while to make: both acts have a copy of the first. */
  prepared(name: string, make: (directory: string) => void): string {
    const first = `${this.stage.lab.directory}/${name}`;
    if (!existsSync(first)) {
      mkdirSync(first);
      make(first);
    }
    const directory = this.directory('server', name);
    runCommand(['cp', '-a', `${first}/.`, directory]);
    return directory;
  }

  /** Starts the server and waits until it listens. */
  async serve(what: string, argv: readonly string[]): Promise<void> {
    this.stage.lab.start(this.server, what, argv);
    const { lab } = this.stage;
    const sockets = ['ss', '-Hltn', `sport = :${this.port}`];
    await until(`${what} on ${this.server}`, () => {
      return lab.running(this.server, what).length > 0 && lab.run(this.server, sockets) !== '';
    });
  }

  start(end: 'server' | 'client', what: string, argv: readonly string[]): Program {
    return Program.start(this.stage.lab, this[end], what, argv);
  }

  check(name: string, ok: boolean, detail = ''): void {
    const moving = this.server === 'vm' ? 'server' : 'client';
    this.stage.check(`the ${moving} moves: ${name}`, ok, detail);
  }

  /** Waits for the end of a program that ends by itself; checks that it was content. */
  async finish(name: string, program: Program): Promise<void> {
    const { ok, detail } = await program.finish();
    this.check(`${name} ends without an error`, ok, detail);
  }

  /** Keeps the silence that a program met at this act's move. */
  silence(silent: Silent): void {
    const { moves, gapsMs } = this.stage;
    const last = moves.length - 1;
    const gap = silent.silence(moves[last] ?? 0, now());
    gapsMs[last] = Math.max(gapsMs[last] ?? 0, Math.round(gap));
  }

  /**
   * Moves the VM while so many connections to the server stand, and checks that each is one TI
   * flow with one move behind it. The programs work for a while before and after it.
   */
  async move(connections: number): Promise<void> {
    await pause(WORK_MS);
    this.stage.move(this.stage.lab.record.plugged === 'athos' ? 'porthos' : 'athos');
    const moved = async () => {
      const ends = await this.#flows();
      return this.#settled(ends, connections) && ends;
    };
    const ends = await until('the flows to be moved', moved).catch(() => this.#flows());
    const text = (flows: FlowView[]): string =>
      flows.map((f) => `${f.tifid} ${f.state} moves ${f.moves} ${f.kernel}`).join('; ');
    this.check(
      connections === 1 ? 'one TI flow, 1 move' : `${connections} TI flows, 1 move each`,
      this.#settled(ends, connections),
      `${this.server}: ${text(ends[0])} | ${this.client}: ${text(ends[1])}`,
    );
    await pause(WORK_MS);
  }

  #settled(ends: [FlowView[], FlowView[]], connections: number): boolean {
    const tifids = (flows: FlowView[]): string =>
      flows
        .map((f) => f.tifid)
        .sort()
        .join();
    const steady = (f: FlowView): boolean => f.state === 'steady' && f.moves === 1;
    return (
      ends.every((flows) => flows.length === connections && flows.every(steady)) &&
      tifids(ends[0]) === tifids(ends[1])
    );
  }

  /** What the daemons say of the connections to the server: at the server, at the client. */
  async #flows(): Promise<[FlowView[], FlowView[]]> {
    const of = async (end: End, side: 0 | 1): Promise<FlowView[]> => {
      const flows = await this.stage.lab.daemon(end).flows();
      return flows.filter(
        (f) => f.state !== 'ended' && f.kernel.split(' > ')[side]?.endsWith(`:${this.port}`),
      );
    };
    return [await of(this.server, 0), await of(this.client, 1)];
  }
}

/** The case of one program, whose server listens on the port. */
export function programCase(
  about: { name: string; summary: string; port: number },
  play: (act: Act) => Promise<void>,
): Case {
  return {
    name: `program-${about.name}`,
    summary: `${about.summary}; the server moves, then the client`,
    options: { daemons: ['aramis', 'vm'] },
    async play(stage) {
      for (const server of ['vm', 'aramis'] as const) {
        await play(new Act(stage, server, about.port));
      }
    },
  };
}

/** Whether the texts are those that `make` makes of 1 to `count`, each once and in order. */
export function isSequence(
  texts: readonly string[],
  count: number,
  make: (n: number) => string = String,
): boolean {
  return texts.length === count && texts.every((text, i) => text === make(i + 1));
}
