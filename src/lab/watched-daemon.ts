/**
 * A tiflow daemon as the lab sees it: its API, and the events of its monitor stream collected
 * for later questions ("when was the SYN sent?"), across the deaths of the daemon itself.
 */
import { DaemonClient } from '../daemon/api/client.js';
import type {
  FlowView,
  FreezeView,
  MonitorEvent,
  MonitorEventName,
  StatusView,
} from '../daemon/view/view.js';
import { until } from './wait.js';

export class WatchedDaemon {
  readonly events: MonitorEvent[] = [];
  readonly #client: DaemonClient;
  #listener: ((event: MonitorEvent) => void) | undefined;
  #watching: AbortController | undefined;

  constructor(runDir: string) {
    this.#client = new DaemonClient(runDir);
  }

  status(): Promise<StatusView> {
    return this.#client.status();
  }

  async flows(): Promise<FlowView[]> {
    return (await this.#client.flows()).flows;
  }

  freeze(forMs: number): Promise<FreezeView> {
    return this.#client.freeze(forMs);
  }

  /** Collects events from now on, until the daemon ends. */
  async watch(): Promise<void> {
    this.#watching?.abort();
    this.#watching = new AbortController();
    // The end of the daemon ends the stream; that is for the lab to notice, not for us.
    this.#collect(this.#watching.signal).catch(() => {});
    // Answered after the stream has been accepted: connections are served in order.
    await this.#client.status();
  }

  async #collect(signal: AbortSignal): Promise<void> {
    for await (const event of this.#client.monitor(signal)) {
      this.events.push(event);
      this.#listener?.(event);
    }
  }

  /** What is called for each event from now on, at once; undefined: nothing. */
  onEvent(listener: ((event: MonitorEvent) => void) | undefined): void {
    this.#listener = listener;
  }

  /** The first event of the name at or after the moment; undefined: none yet. */
  find(name: MonitorEventName, sinceMs: number): MonitorEvent | undefined {
    return this.events.find((e) => e.event === name && e.at_ms >= sinceMs);
  }

  /** When this address was there, in ms. */
  addressAdded(address: string, sinceMs: number): number | undefined {
    const added = (e: MonitorEvent) => e.event === 'address-added' && e.address === address;
    return this.events.find((e) => added(e) && e.at_ms >= sinceMs)?.at_ms;
  }

  waitFor(name: MonitorEventName, sinceMs: number, boundMs = 10_000): Promise<MonitorEvent> {
    return until(`event ${name}`, () => this.find(name, sinceMs), boundMs);
  }

  close(): void {
    this.#watching?.abort();
  }
}
