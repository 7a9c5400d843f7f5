/* A client of the daemon's socket, for the CLI, migrations and the lab; with what they need to read
 * its answers.
 */

import { type IncomingMessage, request } from 'node:http';
import { createInterface } from 'node:readline';
import type { GuestState } from '../../guest/identity.js';
import { daemonPid, socketPath } from '../config/run-directory.js';
import type {
  ErrorView,
  ExportView,
  FlowsView,
  FreezeView,
  GuestPlaceView,
  ImportView,
  MonitorEvent,
  PlanView,
  StatusView,
  SynchronizeView,
  TapsView,
  TapView,
} from '../view/view.js';

export { canRead, LUGGAGE_FORMAT, type LuggageFormat } from '../../boundary/transfer.js';
export { type GuestState, parseGuestState } from '../../guest/identity.js';

const ANSWER_TIMEOUT_MS = 10_000;
/** DHCP takes up to 10 s to find that there is no server, an address check some more. */
const PLACE_MS = 30_000;

const tapPath = (name: string, verb?: string): string =>
  `/v1/taps/${encodeURIComponent(name)}${verb === undefined ? '' : `/${verb}`}`;

/** Nothing listens on the socket. */
export class DaemonNotRunning extends Error {
  override readonly name = 'DaemonNotRunning';
}

/** The daemon refused, or could not be asked; `code` is an errno name or one of the API's. */
export class DaemonError extends Error {
  override readonly name = 'DaemonError';
  constructor(
    message: string,
    readonly code: string,
  ) {
    super(message);
  }
}

export class DaemonClient {
  readonly #runDir: string;
  readonly #answerTimeoutMs: number;

  constructor(runDir: string, o: { answerTimeoutMs?: number } = {}) {
    this.#runDir = runDir;
    this.#answerTimeoutMs = o.answerTimeoutMs ?? ANSWER_TIMEOUT_MS;
  }

  /** All requests throw DaemonNotRunning or DaemonError. */
  async status(): Promise<StatusView> {
    return (await this.#ask('GET', '/v1/status')) as StatusView;
  }

  async flows(): Promise<FlowsView> {
    return (await this.#ask('GET', '/v1/flows')) as FlowsView;
  }

  /** `gateway`: for the hosts behind this machine, too; undefined: as it is there already. */
  async attach(name: string, gateway?: boolean): Promise<void> {
    const body = { name, ...(gateway !== undefined && { gateway }) };
    await this.#ask('POST', '/v1/interfaces', body);
  }

  /** Without a name: from every interface. */
  async detach(name?: string): Promise<void> {
    const which = name === undefined ? '' : `/${encodeURIComponent(name)}`;
    await this.#ask('DELETE', `/v1/interfaces${which}`);
  }

  async plan(): Promise<PlanView> {
    return (await this.#ask('GET', '/v1/plan')) as PlanView;
  }

  /** Has the daemon read its configuration again. */
  async reload(): Promise<void> {
    await this.#ask('POST', '/v1/reload');
  }

  /** Before a planned move of this machine or, with a tap, of that VM. */
  async freeze(forMs: number, tap?: string): Promise<FreezeView> {
    const body = { for_ms: forMs, ...(tap !== undefined && { tap }) };
    return (await this.#ask('POST', '/v1/freeze', body)) as FreezeView;
  }

  async taps(): Promise<TapView[]> {
    return (await this.tapsView()).taps;
  }

  async tapsView(): Promise<TapsView> {
    return (await this.#ask('GET', '/v1/taps')) as TapsView;
  }

  async attachTap(name: string, mac?: string): Promise<void> {
    await this.#ask('POST', '/v1/taps', { name, ...(mac !== undefined && { mac }) });
  }

  async detachTap(name: string): Promise<void> {
    await this.#ask('DELETE', tapPath(name));
  }

  /** Opaque to all but the daemons. */
  async guest(tap: string): Promise<GuestState> {
    return (await this.#ask('GET', tapPath(tap, 'guest'))) as GuestState;
  }

  async place(tap: string, guest: GuestState, request: string[]): Promise<GuestPlaceView> {
    const body = { guest, request };
    return (await this.#ask('POST', tapPath(tap, 'place'), body, PLACE_MS)) as GuestPlaceView;
  }

  async exportFlows(tap: string): Promise<ExportView> {
    return (await this.#ask('POST', tapPath(tap, 'export'), {})) as ExportView;
  }

  async importFlows(tap: string, o: { flows: string; outside: string[] }): Promise<ImportView> {
    // Of an ExportView all but that.
    const body = { flows: o.flows, outside: o.outside };
    return (await this.#ask('POST', tapPath(tap, 'import'), body)) as ImportView;
  }

  /** `moved` false: the VM has been nowhere else. */
  async synchronize(tap: string, withinMs: number, moved = true): Promise<SynchronizeView> {
    const body = { within_ms: withinMs, moved };
    const path = tapPath(tap, 'synchronize');
    const answered = await this.#ask('POST', path, body, withinMs + this.#answerTimeoutMs);
    return answered as SynchronizeView;
  }

  async announce(tap: string): Promise<void> {
    await this.#ask('POST', tapPath(tap, 'announce'), {});
  }

  /** Returns when the daemon has agreed to stop, not when it has stopped. */
  async shutdown(): Promise<void> {
    await this.#ask('POST', '/v1/shutdown');
  }

  /** Events from now on, until the daemon stops or the caller leaves the loop. */
  async *monitor(signal?: AbortSignal): AsyncGenerator<MonitorEvent> {
    const response = await this.#send('GET', '/v1/monitor', undefined, signal).catch(
      (error: NodeJS.ErrnoException) => {
        if (signal?.aborted === true) return undefined;
        throw this.#explain(error);
      },
    );
    if (response === undefined) return;
    if (response.statusCode !== 200) throw refusal(response, await readAll(response));
    const lines = createInterface({ input: response, crlfDelay: Number.POSITIVE_INFINITY });
    try {
      for await (const line of lines) yield JSON.parse(line) as MonitorEvent;
    } catch (error) {
      if (signal?.aborted !== true) throw this.#explain(error as NodeJS.ErrnoException);
    } finally {
      response.destroy();
    }
  }

  async #ask(
    method: string,
    path: string,
    body?: unknown,
    answerMs = this.#answerTimeoutMs,
  ): Promise<unknown> {
    const timeout = AbortSignal.timeout(answerMs);
    try {
      const response = await this.#send(method, path, body, timeout);
      const text = await readAll(response);
      if (response.statusCode !== 200) throw refusal(response, text);
      return JSON.parse(text);
    } catch (error) {
      if (error instanceof DaemonError) throw error;
      throw this.#explain(error as NodeJS.ErrnoException, answerMs);
    }
  }

  #send(
    method: string,
    path: string,
    body: unknown,
    signal: AbortSignal | undefined,
  ): Promise<IncomingMessage> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const sent = request({
        socketPath: socketPath(this.#runDir),
        method,
        path,
        agent: false,
        ...(signal && { signal }),
        headers: text === undefined ? {} : { 'Content-Type': 'application/json' },
      });
      sent.on('response', resolve);
      sent.on('error', reject);
      sent.end(text);
    });
  }

  #explain(error: NodeJS.ErrnoException, answerMs = this.#answerTimeoutMs): Error {
    const socket = socketPath(this.#runDir);
    if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED' || error.code === 'ENOTDIR') {
      return new DaemonNotRunning(`no daemon runs in ${this.#runDir} (start one: tiflow up IF...)`);
    }
    if (error.code === 'EACCES' || error.code === 'EPERM') {
      return new DaemonError(`open ${socket}: ${error.code} (run as root)`, error.code);
    }
    if (error.name === 'AbortError') {
      const pid = daemonPid(this.#runDir);
      const who = pid === undefined ? '' : ` (pid ${pid}; if it hangs, kill it: flows go on)`;
      const what = `the daemon at ${socket} did not answer in ${answerMs} ms${who}`;
      return new DaemonError(what, 'ETIMEDOUT');
    }
    const code = error.code ?? error.message;
    return new DaemonError(`ask the daemon at ${socket}: ${code}`, code);
  }
}

function refusal(response: IncomingMessage, text: string): DaemonError {
  try {
    const { error } = JSON.parse(text) as ErrorView;
    return new DaemonError(error.message, error.code);
  } catch {
    return new DaemonError(`the daemon answered ${response.statusCode}`, 'bad-answer');
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}
