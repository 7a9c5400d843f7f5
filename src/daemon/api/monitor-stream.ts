/* The readers of GET /v1/monitor: one JSON object a line, bounded memory per reader.
 *
 * A reader that does not keep up loses events, never holds up the daemon; it is told how many
 * it lost as soon as there is room again.
 */

import type { ServerResponse } from 'node:http';
import { onEvent } from '../../libc/guard.js';
import { RequestError } from '../view/request-error.js';
import type { DaemonControl, MonitorEvent } from '../view/view.js';

/** A move of 1000 flows makes about 6000 events of 250 bytes. */
const UNSENT_BYTES_MAX = 4 * 1024 * 1024;
const STREAMS_MAX = 16;

export class MonitorStreams {
  readonly #subscribe: DaemonControl['subscribe'];
  readonly #open = new Set<ServerResponse>();

  constructor(subscribe: DaemonControl['subscribe']) {
    this.#subscribe = subscribe;
  }

  /** Streams events into `response` until its reader goes.  Throws RequestError when too many. */
  open(response: ServerResponse): void {
    if (this.#open.size >= STREAMS_MAX) {
      throw new RequestError(503, 'too-many', `${STREAMS_MAX} monitors are running already`);
    }
    this.#open.add(response);
    const unsubscribe = this.#subscribe(boundedWriter(response));
    onEvent(response, 'close', () => {
      unsubscribe();
      this.#open.delete(response);
    });
    response.writeHead(200, { 'Content-Type': 'application/x-ndjson' });
    response.flushHeaders();
  }

  close(): void {
    for (const response of this.#open) response.end();
  }
}

function boundedWriter(response: ServerResponse): (event: MonitorEvent) => void {
  let lost = 0;
  const write = (event: MonitorEvent) => response.write(`${JSON.stringify(event)}\n`);
  return (event) => {
    if (response.writableEnded || response.destroyed) return;
    if (response.writableLength > UNSENT_BYTES_MAX) {
      lost++;
      return;
    }
    if (lost > 0) {
      write({ version: 1, at_ms: event.at_ms, event: 'events-lost', lost });
      lost = 0;
    }
    write(event);
  };
}
