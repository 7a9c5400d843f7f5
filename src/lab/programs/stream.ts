/**
 * A program that knows nothing of tiflow: it listens or connects with plain sockets, writes a
 * continuity stream on every connection and compares, byte for byte, what arrives. It is told
 * by lines on standard input when to write, pause and end (stream-protocol.ts).
 *
 * Every 'error' event of a socket counts: a program that has seen one was not served.
 */
import { createConnection, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { type Direction, Pattern } from './pattern.js';
import type { ConnectionReport, Note, Order, Report, StreamArguments } from './stream-protocol.js';

const TICK_MS = 10;
/** Smaller writes are saved up; a slow stream writes once a second. */
const PIECE = 1024;
/** What a stalled writer may catch up with at once: a tenth of a second of its rate. */
const CATCH_UP_S = 0.1;

const now = (): number => Number(process.hrtime.bigint()) / 1e6;
const tell = (note: Note): void => {
  process.stdout.write(`${JSON.stringify(note)}\n`);
};

class Connection {
  readonly #socket: Socket;
  readonly #writes: Pattern;
  readonly #reads: Pattern;
  readonly #gapMs: number;
  readonly #clientPort: number;
  #written = 0;
  #received = 0;
  #wrongAt = -1;
  #ended = false;
  #closed = false;
  #finSent = false;
  #blocked = false;
  #error: string | null = null;
  #budget: number;
  readonly gaps: Array<[number, number]> = [];
  lastArrivalMs = 0;

  constructor(socket: Socket, role: StreamArguments['role'], gapMs: number, budget: number) {
    const [writes, reads]: [Direction, Direction] =
      role === 'connect' ? ['to-server', 'to-client'] : ['to-client', 'to-server'];
    this.#socket = socket;
    this.#writes = pattern(writes);
    this.#reads = pattern(reads);
    this.#gapMs = gapMs;
    this.#budget = budget;
    this.#clientPort = (role === 'connect' ? socket.localPort : socket.remotePort) ?? 0;
    this.lastArrivalMs = now();
    socket.setNoDelay(true);
    socket.on('data', (chunk) => this.#take(chunk));
    socket.on('end', () => {
      this.#ended = true;
    });
    socket.on('drain', () => {
      this.#blocked = false;
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#error = error.code ?? error.message;
      errors.push({ code: this.#error, at_ms: now() });
    });
    socket.on('close', () => {
      this.#closed = true;
    });
  }

  #take(chunk: Buffer): void {
    const at = now();
    if (at - this.lastArrivalMs > this.#gapMs) this.gaps.push([this.lastArrivalMs, at]);
    this.lastArrivalMs = at;
    if (this.#wrongAt < 0) this.#wrongAt = this.#reads.firstWrong(this.#received, chunk);
    this.#received += chunk.length;
  }

  /** Writes what the rate allows after `elapsedS` more seconds. */
  writeAtRate(rate: number, elapsedS: number): void {
    const most = Math.max(rate * CATCH_UP_S, Math.min(rate, PIECE));
    this.#budget = Math.min(this.#budget + rate * elapsedS, most);
    if (this.#budget < Math.min(rate, PIECE)) return;
    this.#budget -= this.write(Math.floor(this.#budget));
  }

  /** Writes up to so many bytes; returns how many the socket has taken. */
  write(bytes: number): number {
    let done = 0;
    while (done < bytes && !this.#blocked && !this.#finSent && this.#socket.writable) {
      const piece = this.#writes.piece(this.#written, bytes - done);
      this.#blocked = !this.#socket.write(piece);
      this.#written += piece.length;
      done += piece.length;
    }
    return done;
  }

  keepAlive(): void {
    this.#socket.setKeepAlive(true, 1000);
  }

  end(): void {
    if (this.#finSent) return;
    this.#finSent = true;
    this.#socket.end();
  }

  report(): ConnectionReport {
    return {
      client_port: this.#clientPort,
      written: this.#written,
      received: this.#received,
      wrong_at: this.#wrongAt,
      ended: this.#ended,
      closed: this.#closed,
      error: this.#error,
      gaps: this.gaps,
    };
  }
}

const patterns = new Map<Direction, Pattern>();
function pattern(direction: Direction): Pattern {
  const known = patterns.get(direction) ?? new Pattern(direction);
  patterns.set(direction, known);
  return known;
}

const connections: Connection[] = [];
const errors: Report['errors'] = [];
const burst = new Map<Connection, number>();
let rate = 0;
let ending = false;

function tick(elapsedS: number): void {
  for (const connection of connections) {
    const wanted = burst.get(connection) ?? 0;
    if (wanted > 0) burst.set(connection, wanted - connection.write(wanted));
    else if (rate > 0) connection.writeAtRate(rate, elapsedS);
    if (ending && (burst.get(connection) ?? 0) === 0) connection.end();
  }
}

function obey(order: Order): void {
  switch (order.do) {
    case 'write':
      rate = order.bytes_per_s;
      return;
    case 'pause':
      rate = 0;
      return;
    case 'keep-alive':
      for (const connection of connections) connection.keepAlive();
      return;
    case 'send':
      for (const c of connections) burst.set(c, (burst.get(c) ?? 0) + order.bytes);
      return;
    case 'end':
      rate = 0;
      ending = true;
      return;
    case 'report':
      tell({ note: 'report', id: order.id, report: report(order.details) });
  }
}

function report(details: boolean): Report {
  const all = connections.map((c) => c.report());
  const sum = (of: (c: ConnectionReport) => number): number => all.reduce((s, c) => s + of(c), 0);
  return {
    at_ms: now(),
    connections: all.length,
    written: sum((c) => c.written),
    received: sum((c) => c.received),
    oldest_arrival_ms: Math.min(...connections.map((c) => c.lastArrivalMs)),
    ended: sum((c) => Number(c.ended)),
    closed: sum((c) => Number(c.closed)),
    wrong: sum((c) => Number(c.wrong_at >= 0)),
    errors,
    details: details ? all : [],
  };
}

function listen(o: StreamArguments): void {
  const server = createServer({ allowHalfOpen: true }, (socket) => add(socket, o));
  server.listen({ host: o.address, port: o.port, backlog: 2048 }, () =>
    tell({ note: 'listening' }),
  );
}

/** As many at a time as the smallest listen backlogs take. */
const CONNECTING_MAX = 50;

function connect(o: StreamArguments, begun = { count: 0 }): void {
  if (begun.count === o.connections) return;
  const local = o.local === undefined ? {} : { localAddress: o.local };
  const socket = createConnection({ host: o.address, port: o.port, ...local, allowHalfOpen: true });
  const refused = (error: NodeJS.ErrnoException): void => {
    errors.push({ code: error.code ?? error.message, at_ms: now() });
  };
  socket.once('error', refused);
  socket.once('connect', () => {
    socket.off('error', refused);
    add(socket, o);
    connect(o, begun);
  });
  begun.count++;
  if (begun.count < CONNECTING_MAX) connect(o, begun);
}

function add(socket: Socket, o: StreamArguments): void {
  // Spreads the writes of many slow connections over the second.
  const head = (connections.length / o.connections) * PIECE;
  connections.push(new Connection(socket, o.role, o.gapMs, head));
  if (connections.length === o.connections) {
    tell({ note: 'connected', connections: connections.length });
  }
}

function main([role, address = '', port, connectionCount, gapMs, local]: string[]): void {
  const o: StreamArguments = {
    role: role === 'listen' ? 'listen' : 'connect',
    address,
    port: Number(port),
    connections: Number(connectionCount),
    gapMs: Number(gapMs),
    ...(local !== undefined && { local }),
  };
  if (o.role === 'listen') listen(o);
  else connect(o);
  let last = now();
  setInterval(() => {
    const at = now();
    tick((at - last) / 1e3);
    last = at;
  }, TICK_MS);
  createInterface({ input: process.stdin })
    .on('line', (line) => obey(JSON.parse(line) as Order))
    .on('close', () => process.exit(0));
}

main(process.argv.slice(2));
