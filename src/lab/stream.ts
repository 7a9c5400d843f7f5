/**
 * Drives the continuity-stream programs of a case: one listens, one connects; both write and
 * compare. What the case wants to know is asked here: does it flow, was it whole, how long was
 * it silent.
 */
import type { ChildProcess, StdioOptions } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { LabError } from './namespace.js';
import type { ConnectionReport, Note, Order, Report } from './programs/stream-protocol.js';
import type { Family, HostName } from './topology.js';
import { now, until, within } from './wait.js';

const PROGRAM = fileURLToPath(new URL('./programs/stream.js', import.meta.url));
const NOTE_BOUND_MS = 15_000;
/** A segment that left before the cable was pulled arrives within this time. */
const UNDER_WAY_MS = 50;

/** A lab in whose hosts programs can be started. */
export interface StreamHosts<Name extends string> {
  spawn(host: Name, what: string, argv: readonly string[], stdio: StdioOptions): ChildProcess;
  address(host: Name, family: Family): string;
}

/** One program: orders in, notes out. */
export class StreamProgram<Name extends string = HostName> {
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #waiting = new Map<string, (note: Note) => void>();
  readonly #early = new Map<string, Note>();
  #reports = 0;

  constructor(lab: Pick<StreamHosts<Name>, 'spawn'>, host: Name, argv: readonly string[]) {
    this.#name = `stream program (${argv[0]}) on ${host}`;
    const command = [process.execPath, PROGRAM, ...argv];
    this.#child = lab.spawn(host, 'stream', command, ['pipe', 'pipe', 'inherit']);
    const { stdin, stdout } = this.#child;
    if (!stdin || !stdout) throw new LabError(`${this.#name}: no pipes`);
    stdin.on('error', () => {});
    createInterface({ input: stdout }).on('line', (line) => this.#take(JSON.parse(line) as Note));
  }

  order(order: Order): void {
    this.#child.stdin?.write(`${JSON.stringify(order)}\n`);
  }

  /** 'listening' or 'connected'; throws LabError after the bound. */
  async ready(note: 'listening' | 'connected', boundMs = NOTE_BOUND_MS): Promise<void> {
    await this.#note(note, boundMs);
  }

  async report(details = false): Promise<Report> {
    const id = ++this.#reports;
    this.order({ do: 'report', id, details });
    const note = await this.#note(`report ${id}`, NOTE_BOUND_MS);
    if (note.note !== 'report') throw new LabError(`${this.#name}: not a report`);
    return note.report;
  }

  stop(): void {
    this.#child.stdin?.end();
  }

  #note(key: string, boundMs: number): Promise<Note> {
    const early = this.#early.get(key);
    if (early) return Promise.resolve(early);
    const note = new Promise<Note>((resolve) => this.#waiting.set(key, resolve));
    return within(`${key} from ${this.#name}`, note, boundMs);
  }

  #take(note: Note): void {
    const key = note.note === 'report' ? `report ${note.id}` : note.note;
    const waiting = this.#waiting.get(key);
    this.#waiting.delete(key);
    if (waiting) waiting(note);
    else this.#early.set(key, note);
  }
}

export interface TransferOptions<Name extends string = HostName> {
  client: Name;
  server: Name;
  /** of the server; default: the one that the host has now */
  address?: string;
  /** where the server listens, if that is another address */
  listen?: string;
  /** of the client, if it is not left to its kernel */
  local?: string;
  family: Family;
  port: number;
  connections?: number;
  /** silences longer than this are noted */
  gapMs?: number;
}

type Ends<T> = { client: T; server: T };

export interface Whole {
  ok: boolean;
  detail: string;
}

/** A client and a server program with one or many connections between them. */
export class Transfer {
  readonly client: StreamProgram<string>;
  readonly server: StreamProgram<string>;
  readonly #connections: number;
  #final: Ends<Report> | undefined;

  private constructor(
    client: StreamProgram<string>,
    server: StreamProgram<string>,
    connections: number,
  ) {
    this.client = client;
    this.server = server;
    this.#connections = connections;
  }

  /** Returns once all connections stand. */
  static async open<Name extends string>(
    lab: StreamHosts<Name>,
    o: TransferOptions<Name>,
  ): Promise<Transfer> {
    const { connections = 1, gapMs = 30 } = o;
    const address = o.address ?? lab.address(o.server, o.family);
    const rest = [String(o.port), String(connections), String(gapMs)];
    const server = new StreamProgram(lab, o.server, ['listen', o.listen ?? address, ...rest]);
    await server.ready('listening');
    const local = o.local === undefined ? [] : [o.local];
    const client = new StreamProgram(lab, o.client, ['connect', address, ...rest, ...local]);
    await client.ready('connected');
    await server.ready('connected');
    return new Transfer(client, server, connections);
  }

  get both(): readonly StreamProgram<string>[] {
    return [this.client, this.server];
  }

  /** Both ends write steadily, on every connection. */
  write(bytesPerS: number): void {
    for (const end of this.both) end.order({ do: 'write', bytes_per_s: bytesPerS });
  }

  pause(): void {
    for (const end of this.both) end.order({ do: 'pause' });
  }

  /** Waits until every connection of these ends has received something after the moment. */
  async flowing(sinceMs: number, boundMs = 20_000, ends = this.both): Promise<number> {
    const flows = async () => {
      const reports = await Promise.all(ends.map((end) => end.report()));
      return reports.every((r) => r.oldest_arrival_ms > sinceMs);
    };
    await until('the stream to flow', flows, boundMs);
    return now();
  }

  /** Waits until so many bytes more have arrived at either end. */
  async carried(bytes: number, boundMs = 20_000): Promise<void> {
    const before = await this.#reports();
    const arrived = async () => {
      const { client, server } = await this.#reports();
      const more = [
        client.received - before.client.received,
        server.received - before.server.received,
      ];
      return more.every((count) => count >= bytes);
    };
    await until(`${bytes} bytes more both ways`, arrived, boundMs);
  }

  /** Of a transfer that may be in pieces: what arrived that was not written, in words. */
  async wrongBytes(): Promise<string | undefined> {
    const { client, server } = await this.#reports();
    const wrong = client.wrong + server.wrong;
    const tooMany = client.received > server.written || server.received > client.written;
    if (wrong > 0) return `${wrong} with wrong bytes`;
    return tooMany ? 'more bytes than were written' : undefined;
  }

  /** Ends the programs as they are. */
  stop(): void {
    for (const end of this.both) end.stop();
  }

  /** Waits until everything written so far has arrived; the error says what has not. */
  async quiet(boundMs = 20_000): Promise<void> {
    const arrived = async () => {
      const { client, server } = await this.#reports();
      return client.written === server.received && server.written === client.received;
    };
    await until('everything written to arrive', arrived, boundMs).catch(async (error: Error) => {
      const { client, server } = await this.#reports(true);
      const broken = this.#broken(client, server).length;
      throw new LabError(`${error.message}: ${describe(client, server, broken, [])}`);
    });
  }

  /**
   * Both ends send FIN; waits until both have seen the other's, and ends the programs. Whether
   * every byte written at one end was read at the other, and no end saw an error.
   */
  async finish(boundMs = 20_000): Promise<Whole> {
    for (const end of this.both) end.order({ do: 'end' });
    const done = async () => {
      const { client, server } = await this.#reports();
      const errors = client.errors.length + server.errors.length;
      return (
        (client.ended === this.#connections && server.ended === this.#connections) || errors > 0
      );
    };
    const late = await until('the end of the streams', done, boundMs).then(
      () => '',
      (error: Error) => `; ${error.message}`,
    );
    this.#final = await this.#reports(true);
    for (const end of this.both) end.stop();
    const whole = this.#whole(this.#final);
    return late === '' ? whole : { ok: false, detail: whole.detail + late };
  }

  #whole({ client, server }: Ends<Report>): Whole {
    const broken = this.#broken(client, server);
    const errors = [...client.errors, ...server.errors].map((e) => e.code);
    const counted = client.details.length === this.#connections;
    const ended = client.ended === this.#connections && server.ended === this.#connections;
    const ok = broken.length === 0 && errors.length === 0 && counted && ended;
    return { ok, detail: describe(client, server, broken.length, errors) };
  }

  /** The connections on which something is missing, or wrong. */
  #broken(client: Report, server: Report): readonly ConnectionReport[] {
    const far = new Map(server.details.map((c) => [c.client_port, c]));
    // Of a single one it is clear, though a NAT, or a relay on the way, gave it another port.
    const only = server.details.length === 1 ? server.details[0] : undefined;
    return client.details.filter((near) => {
      const other = far.get(near.client_port) ?? only;
      const intact = other && near.written === other.received && other.written === near.received;
      return !intact || near.wrong_at >= 0 || other.wrong_at >= 0;
    });
  }

  /**
   * Of a finished transfer: the longest silence, either direction, any connection, of those that
   * touch the time from `from` to `to`, in ms. 0: none was longer than the programs' threshold.
   */
  silence(from: number, to: number): number {
    const touching = this.#gaps().filter(([start, end]) => end >= from && start < to);
    return touching.reduce((longest, [start, end]) => Math.max(longest, end - start), 0);
  }

  /**
   * Of a finished transfer: the end of the longest silence that began around the moment (what
   * was on its way still arrives), in the direction that came back first; undefined: none did.
   */
  firstByteAfter(moment: number): number | undefined {
    if (!this.#final) throw new LabError('the transfer is not finished');
    const { client, server } = this.#final;
    const ends = [client, server].flatMap((r) => {
      const gaps = r.details.flatMap((c) => c.gaps);
      const around = gaps.filter(([start, end]) => start < moment + UNDER_WAY_MS && end > moment);
      const longest = around.sort(([a, b], [c, d]) => d - c - (b - a))[0];
      return longest ? [longest[1]] : [];
    });
    return ends.length === 0 ? undefined : Math.min(...ends);
  }

  #gaps(): Array<[number, number]> {
    if (!this.#final) throw new LabError('the transfer is not finished');
    const { client, server } = this.#final;
    return [client, server].flatMap((r) => r.details.flatMap((c) => c.gaps));
  }

  async #reports(details = false): Promise<Ends<Report>> {
    const [client, server] = await Promise.all([
      this.client.report(details),
      this.server.report(details),
    ]);
    return { client, server };
  }
}

function describe(client: Report, server: Report, broken: number, errors: string[]): string {
  const way = (from: Report, to: Report): string =>
    from.written === to.received ? `${from.written}` : `${to.received} of ${from.written}`;
  const parts = [`${way(client, server)} bytes to the server`, `${way(server, client)} back`];
  if (client.wrong + server.wrong > 0)
    parts.push(`${client.wrong + server.wrong} with wrong bytes`);
  if (broken > 0) parts.push(`${broken} of ${client.connections} connections broken`);
  if (errors.length > 0) parts.push(`errors: ${[...new Set(errors)].join(', ')}`);
  return parts.join(', ');
}
