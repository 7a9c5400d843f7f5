/* A QMP client: QEMU's machine protocol over a unix socket, one JSON object a line.
 * docs/interop/qmp-spec.rst of QEMU.
 *
 *   {"QMP": {"version": ...}}                 greeting
 *   {"execute": "cont", "id": 3}  →  {"return": {}, "id": 3} | {"error": {...}, "id": 3}
 *   {"event": "STOP", ...}
 *
 * A QMP server takes one client at a time: a second one waits without a greeting.  So whoever must not
 * lose his turn hands the open connection down to the process that may have to go on (`adopt`).
 */

import { connect, Socket } from 'node:net';

const GREETING_TIMEOUT_MS = 5_000;
const ANSWER_TIMEOUT_MS = 30_000;
/** No answer to the process before is taken for one to us. */
const ADOPTED_FIRST_ID = 1_000_000;

export interface QmpEvent {
  event: string;
  data: Record<string, unknown>;
}

/** A command failed, or QEMU could not be asked; `code` is QEMU's class, or an errno name. */
export class QmpError extends Error {
  override readonly name = 'QmpError';
  constructor(
    message: string,
    readonly code: string,
  ) {
    super(message);
  }

  /** QEMU has said no; otherwise nobody knows whether it did what it was told. */
  get isRefusal(): boolean {
    return !/^E[A-Z]+$/.test(this.code);
  }
}

export interface QemuVersion {
  major: number;
  minor: number;
  micro: number;
}

interface Waiting {
  command: string;
  resolve(value: unknown): void;
  reject(error: Error): void;
  timer: NodeJS.Timeout;
}

export class Qmp {
  readonly path: string;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  #next = 1;
  #partial = '';
  #greeted: ((version: QemuVersion) => void) | undefined;
  #closed: QmpError | undefined;
  version: QemuVersion = { major: 0, minor: 0, micro: 0 };

  private constructor(path: string, socket: Socket) {
    this.path = path;
    this.#socket = socket;
  }

  /** Throws QmpError. */
  static async connect(path: string, o: { timeoutMs?: number } = {}): Promise<Qmp> {
    const qmp = new Qmp(path, connect(path));
    try {
      await qmp.#handshake(o.timeoutMs ?? GREETING_TIMEOUT_MS);
    } catch (error) {
      qmp.close();
      throw error;
    }
    return qmp;
  }

  /**
   * The connection of a process that has died: what is on its way to that is not for us.  Throws
   * QmpError.
   */
  static async adopt(path: string, fd: number): Promise<Qmp> {
    const qmp = new Qmp(path, new Socket({ fd, readable: true, writable: true }));
    qmp.#next = ADOPTED_FIRST_ID;
    qmp.#listen();
    try {
      await qmp.execute('query-status', undefined, GREETING_TIMEOUT_MS);
      return qmp;
    } catch (error) {
      qmp.close();
      throw error;
    }
  }

  /** To be handed down to a child; it is still ours to read from. */
  get socket(): Socket {
    return this.#socket;
  }

  /** The answer to one command.  Throws QmpError. */
  execute<T = unknown>(
    command: string,
    args?: Record<string, unknown>,
    timeoutMs = ANSWER_TIMEOUT_MS,
  ): Promise<T> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    const id = this.#next++;
    const request = { execute: command, id, ...(args && { arguments: args }) };
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(this.#error(`${command}: no answer in ${timeoutMs} ms`, 'ETIMEDOUT'));
      }, timeoutMs);
      this.#waiting.set(id, { command, resolve: resolve as (v: unknown) => void, reject, timer });
      this.#socket.write(`${JSON.stringify(request)}\n`);
    });
  }

  /** Calls back on every event until the returned function is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Resolves at the next event, or when the time is up.  Whoever polls for a change makes this first
   * and asks then: an event may come together with the answer.
   */
  nextEvent(withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const over = (): void => {
        clearTimeout(timer);
        unlisten();
        resolve();
      };
      const timer = setTimeout(over, withinMs);
      const unlisten = this.onEvent(over);
    });
  }

  /** Undefined while QEMU is there. */
  get closed(): QmpError | undefined {
    return this.#closed;
  }

  close(): void {
    this.#end(this.#error('this side closed the connection', 'ECANCELED'));
    this.#socket.destroy();
  }

  async #handshake(timeoutMs: number): Promise<void> {
    const greeting = new Promise<QemuVersion>((resolve, reject) => {
      this.#greeted = resolve;
      const timer = setTimeout(() => {
        const advice = 'another client may hold it, such as a monitor or a management tool';
        reject(this.#error(`no greeting in ${timeoutMs} ms (${advice})`, 'ETIMEDOUT'));
      }, timeoutMs);
      this.#waiting.set(0, { command: 'connect', resolve: () => undefined, reject, timer });
    });
    this.#listen();
    this.version = await greeting;
    clearTimeout(this.#waiting.get(0)?.timer);
    this.#waiting.delete(0);
    await this.execute('qmp_capabilities');
  }

  #listen(): void {
    this.#socket.setEncoding('utf8');
    this.#socket.on('data', (text: string) => this.#receive(text));
    this.#socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#end(this.#error(error.code ?? error.message, error.code ?? 'EIO'));
    });
    this.#socket.on('close', () => this.#end(this.#error('QEMU has ended', 'EPIPE')));
  }

  #receive(text: string): void {
    const lines = (this.#partial + text).split('\n');
    this.#partial = lines.pop() ?? '';
    for (const line of lines) if (line.trim() !== '') this.#line(messageOf(line));
  }

  #line(message: Record<string, unknown>): void {
    const { QMP: greeting, event, id } = message;
    if (greeting !== undefined) {
      const { version } = greeting as { version: { qemu: QemuVersion } };
      this.#greeted?.(version.qemu);
    } else if (typeof event === 'string') {
      const data = (message.data ?? {}) as Record<string, unknown>;
      for (const listener of [...this.#listeners]) listener({ event, data });
    } else if (typeof id === 'number') this.#answer(id, message);
  }

  #answer(id: number, message: Record<string, unknown>): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    if (message.error === undefined) waiting.resolve(message.return);
    else {
      const { class: code, desc } = message.error as { class: string; desc: string };
      waiting.reject(this.#error(`${waiting.command}: ${desc}`, code));
    }
  }

  #end(error: QmpError): void {
    this.#closed ??= error;
    for (const { command, reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      const what = command === 'connect' ? error.message : `${error.message} (at ${command})`;
      reject(new QmpError(what, error.code));
    }
    this.#waiting.clear();
  }

  #error(what: string, code: string): QmpError {
    return new QmpError(`QMP ${this.path}: ${what}`, code);
  }
}

/* Of what the process before had read the beginning of, only the end is left. */
function messageOf(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return {};
  }
}
