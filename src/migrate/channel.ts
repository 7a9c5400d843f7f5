/* The channel between the two sides of a migration, over a pair of byte streams such as the
 * standard input and output of `ssh HOST tiflow receive`: requests and answers, notices, and the
 * forwarded bytes of QEMU's own connections.
 *
 * Back-pressure goes through: a QEMU that does not read stops the channel, and with it the QEMU at
 * the other end.  A message never waits for more than what is on the way already.
 *
 * What is on the wire: frame.ts.  What the requests mean: protocol.ts.
 */

import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import {
  encodeData,
  encodeEnd,
  encodeMessage,
  encodeOpen,
  type Frame,
  FrameDecoder,
  incompatibility,
  ourHello,
} from './frame.js';

const HELLO_TIMEOUT_MS = 30_000;
const PING_INTERVAL_MS = 2_000;
/** A network that swallows everything ends no stream: silence for so long is a cut. */
const SILENCE_MAX_MS = 20_000;

/** The channel is gone, or cannot be opened. */
export class ChannelLost extends Error {
  override readonly name = 'ChannelLost';
}

/** The other side did not do what it was asked; the message is its own. */
export class RemoteError extends Error {
  override readonly name = 'RemoteError';
  constructor(
    message: string,
    readonly code: string,
  ) {
    super(message);
  }
}

export interface ChannelSide {
  /** Answers a request; what it throws is the other side's RemoteError. */
  request?(name: string, body: unknown): Promise<unknown>;
  notice?(name: string, body: unknown): void;
  /** The connection that a stream of the other side belongs to; undefined: refused. */
  stream?(name: string): Socket | undefined;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
  timer: NodeJS.Timeout;
}

export class Channel {
  readonly #output: Writable;
  readonly #side: ChannelSide;
  readonly #waiting = new Map<number, Waiting>();
  readonly #streams = new Map<string, Socket>();
  readonly #pings: NodeJS.Timeout;
  readonly #silenceMaxMs: number;
  #next = 1;
  #blocked = false;
  #heardAt = performance.now();
  #bye = false;
  #lost: ChannelLost | undefined;
  #hello: ((message: Record<string, unknown>) => void) | undefined;
  /** Resolves when the channel is gone: `clean` if the other side had said so. */
  readonly closed: Promise<{ clean: boolean; error: ChannelLost }>;
  #resolveClosed: (how: { clean: boolean; error: ChannelLost }) => void = () => undefined;

  private constructor(input: Readable, output: Writable, side: ChannelSide, silenceMaxMs: number) {
    this.#output = output;
    this.#side = side;
    this.#silenceMaxMs = silenceMaxMs;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    const pingMs = Math.min(PING_INTERVAL_MS, silenceMaxMs / 4);
    this.#pings = setInterval(() => this.#ping(input), pingMs);
    output.on('error', (error) => this.#lose(`write to the other side: ${error.message}`));
    void this.#read(input);
  }

  /** Says hello and waits for the other's.  Throws ChannelLost. */
  static async open(
    ends: { input: Readable; output: Writable },
    side: ChannelSide,
    o: { silenceMaxMs?: number } = {},
  ): Promise<Channel> {
    const channel = new Channel(ends.input, ends.output, side, o.silenceMaxMs ?? SILENCE_MAX_MS);
    const hello = new Promise<Record<string, unknown>>((resolve) => {
      channel.#hello = resolve;
    });
    void channel.#send(encodeMessage(ourHello()));
    const timer = setTimeout(
      () => channel.#lose(`no hello in ${HELLO_TIMEOUT_MS} ms`),
      HELLO_TIMEOUT_MS,
    );
    const first = await Promise.race([hello, channel.closed]).finally(() => clearTimeout(timer));
    if (channel.#lost !== undefined) throw channel.#lost;
    const why = incompatibility(first as Record<string, unknown>);
    if (why === undefined) return channel;
    channel.#lose(why);
    throw new ChannelLost(why);
  }

  get lost(): ChannelLost | undefined {
    return this.#lost;
  }

  /** Throws RemoteError, or ChannelLost, also when there is no answer in time. */
  request<T = unknown>(name: string, body: object, timeoutMs: number): Promise<T> {
    if (this.#lost !== undefined) return Promise.reject(this.#lost);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new ChannelLost(`${name}: no answer in ${timeoutMs} ms`));
      }, timeoutMs);
      this.#waiting.set(id, { resolve: resolve as (v: unknown) => void, reject, timer });
      void this.#send(encodeMessage({ id, request: name, body }));
    });
  }

  notify(name: string, body: object): void {
    void this.#send(encodeMessage({ notice: name, body }));
  }

  /** Forwards a connection until either end closes it.  `name` must be new. */
  forward(name: string, socket: Socket): void {
    void this.#send(encodeOpen(name));
    this.#join(name, socket);
  }

  #join(name: string, socket: Socket): void {
    // Else whoever connects last waits for ever, and QEMU waits with its monitor.
    if (this.#lost !== undefined) {
      socket.destroy();
      return;
    }
    this.#streams.set(name, socket);
    socket.on('data', (bytes: Buffer) => {
      socket.pause();
      void this.#send(encodeData(name, bytes)).then(() => socket.resume());
    });
    socket.on('error', () => undefined); // 'close' follows, and is what the other side hears.
    socket.on('close', () => {
      if (this.#streams.delete(name)) void this.#send(encodeEnd(name));
    });
  }

  /** Says that this is the end, and ends. */
  async close(): Promise<void> {
    if (this.#lost !== undefined) return;
    await this.#send(encodeMessage({ bye: true }));
    this.#output.end();
    this.#lose('this side closed the channel');
  }

  async #read(input: Readable): Promise<void> {
    const decoder = new FrameDecoder();
    try {
      for await (const chunk of input as AsyncIterable<Buffer>) {
        this.#heardAt = performance.now();
        for (const frame of decoder.push(chunk)) await this.#frame(frame);
        if (this.#lost !== undefined) break;
      }
      this.#lose(decoder.isIdle ? 'the other side has ended' : 'cut within a frame');
    } catch (error) {
      this.#lose(error instanceof Error ? error.message : String(error));
    }
  }

  async #frame(frame: Frame): Promise<void> {
    if (frame.kind === 'message') this.#message(frame.message);
    else if (frame.kind === 'open') this.#open(frame.stream);
    else if (frame.kind === 'end') this.#endStream(frame.stream);
    else await this.#deliver(frame.stream, frame.bytes);
  }

  async #deliver(name: string, bytes: Buffer): Promise<void> {
    const socket = this.#streams.get(name);
    // What comes for a connection that is closed here is lost, as on any socket.
    if (socket === undefined || socket.destroyed || socket.write(bytes)) return;
    this.#blocked = true;
    await Promise.race([once(socket, 'drain'), once(socket, 'close'), this.closed]).catch(
      () => undefined,
    );
    this.#blocked = false;
    this.#heardAt = performance.now();
  }

  #open(name: string): void {
    const socket = this.#side.stream?.(name);
    if (socket === undefined) void this.#send(encodeEnd(name));
    else this.#join(name, socket);
  }

  #endStream(name: string): void {
    const socket = this.#streams.get(name);
    this.#streams.delete(name);
    // What was written before still goes out; then both directions are closed.
    socket?.destroySoon();
  }

  #message(message: Record<string, unknown>): void {
    const { hello, id, request, notice, bye, body } = message;
    if (this.#hello !== undefined) {
      this.#hello(message);
      this.#hello = undefined;
    } else if (bye === true) this.#bye = true;
    else if (typeof request === 'string' && typeof id === 'number') {
      void this.#answer(id, request, body);
    } else if (typeof notice === 'string') this.#side.notice?.(notice, body);
    else if (typeof id === 'number') this.#settle(id, message);
    else if (hello !== undefined) this.#lose('a second hello');
  }

  async #answer(id: number, name: string, body: unknown): Promise<void> {
    try {
      if (this.#side.request === undefined) throw new RemoteError('takes no requests', 'refused');
      const answer = (await this.#side.request(name, body)) ?? {};
      void this.#send(encodeMessage({ id, answer }));
    } catch (error) {
      const { message, code } = error as NodeJS.ErrnoException;
      const told = { message: message ?? String(error), code: code ?? 'failed' };
      void this.#send(encodeMessage({ id, error: told }));
    }
  }

  #settle(id: number, message: Record<string, unknown>): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    if (message.error === undefined) waiting.resolve(message.answer);
    else {
      const told = message.error as { message: string; code: string };
      waiting.reject(new RemoteError(told.message, told.code));
    }
  }

  /* Returns when there is room for more. */
  async #send(bytes: Buffer): Promise<void> {
    if (this.#lost !== undefined || this.#output.destroyed) return;
    if (this.#output.write(bytes)) return;
    await Promise.race([once(this.#output, 'drain'), this.closed]).catch(() => undefined);
  }

  #ping(input: Readable): void {
    if (!this.#output.writableNeedDrain) void this.#send(encodeMessage({ ping: true }));
    // While we do not read, silence is our own.
    if (this.#blocked || performance.now() - this.#heardAt < this.#silenceMaxMs) return;
    this.#lose(`nothing heard for ${Math.round(this.#silenceMaxMs / 1000)} s`);
    input.destroy();
  }

  #lose(why: string): void {
    if (this.#lost !== undefined) return;
    this.#lost = new ChannelLost(why);
    clearInterval(this.#pings);
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(this.#lost);
    }
    this.#waiting.clear();
    for (const socket of this.#streams.values()) socket.destroy();
    this.#streams.clear();
    this.#resolveClosed({ clean: this.#bye, error: this.#lost });
  }
}
