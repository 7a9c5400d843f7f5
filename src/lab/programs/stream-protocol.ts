/**
 * What the lab and a continuity-stream program tell each other: one JSON object a line, orders
 * on the program's standard input, notes on its standard output. Times are CLOCK_MONOTONIC, ms.
 */

export type Order =
  /** write on every connection, steadily */
  | { do: 'write'; bytes_per_s: number }
  /** stop writing; what the socket has taken still goes out */
  | { do: 'pause' }
  /** let the kernel ask once a second whether the far end lives; it gives up after ten (libuv) */
  | { do: 'keep-alive' }
  /** write so many bytes more on every connection, once */
  | { do: 'send'; bytes: number }
  /** send FIN once everything asked for is written */
  | { do: 'end' }
  | { do: 'report'; id: number; details: boolean };

export type Note =
  | { note: 'listening' }
  | { note: 'connected'; connections: number }
  | { note: 'report'; id: number; report: Report };

export interface Report {
  at_ms: number;
  connections: number;
  written: number;
  received: number;
  /** arrival of the latest byte, on the connection where that is longest ago; 0: never */
  oldest_arrival_ms: number;
  /** connections whose far end has sent FIN */
  ended: number;
  closed: number;
  /** connections with a wrong byte */
  wrong: number;
  /** every 'error' event seen, by code */
  errors: Array<{ code: string; at_ms: number }>;
  details: ConnectionReport[];
}

export interface ConnectionReport {
  /** the client's port: names the connection at both ends */
  client_port: number;
  written: number;
  received: number;
  /** offset of the first wrong byte, -1: none */
  wrong_at: number;
  ended: boolean;
  closed: boolean;
  error: string | null;
  /** times without a byte, longer than the program's threshold: [from, to] */
  gaps: Array<[number, number]>;
}

/** Arguments: listen|connect ADDRESS PORT CONNECTIONS GAP_MS */
export interface StreamArguments {
  role: 'listen' | 'connect';
  address: string;
  port: number;
  connections: number;
  gapMs: number;
  /** of a client, if it is not left to its kernel */
  local?: string;
}
