/* The daemon's local API: HTTP + JSON on a unix socket that only its owner can open.
 *
 *   GET    /v1/status            StatusView
 *   GET    /v1/flows             FlowsView
 *   GET    /v1/monitor           MonitorEvent, one a line, until either side closes
 *   GET    /v1/plan              PlanView: what there is to do about what is ours on the machine
 *   POST   /v1/interfaces        {"name":"eth0"}, a pattern or "default": attach; "gateway":true: for the hosts behind, too
 *   DELETE /v1/interfaces/NAME   detach
 *   DELETE /v1/interfaces        detach from all
 *   GET    /v1/taps              TapsView: the VMs of this hypervisor
 *   POST   /v1/taps              {"name":"vnet0","mac":…}: attach; MAC of the guest if it is known
 *   DELETE /v1/taps/NAME         detach; its addresses here are given back
 *   GET    /v1/taps/NAME/guest   GuestState: all that is known of the guest
 *   POST   /v1/taps/NAME/…       place, export, import, synchronize, announce: a migration's steps
 *   POST   /v1/freeze            {"for_ms":30000,"tap":"vnet0"}, tap may be left out: FreezeView
 *   POST   /v1/reload            read the configuration again
 *   POST   /v1/shutdown          end the daemon; flows go on
 *
 * Every error is an ErrorView.  Everything that a client can make grow is bounded here.
 * Not here: which request does what (api-routes.ts), what the answers contain (DaemonControl).
 */

import { chmodSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import { after, onEvent } from '../../libc/guard.js';
import type { RunDirectory } from '../config/run-directory.js';
import { RequestError } from '../view/request-error.js';
import type { DaemonControl, ErrorView } from '../view/view.js';
import { respond, sendJson } from './api-routes.js';
import { MonitorStreams } from './monitor-stream.js';

const CONNECTIONS_MAX = 64;
/** For the last answers; a reader that has stalled must not keep the daemon from ending. */
const CLOSE_TIMEOUT_MS = 500;

export interface ApiServer {
  /** Ends the monitor streams and the listener; the socket file goes with the run directory. */
  close(): Promise<void>;
}

/**
 * Listens on the socket of `directory`; resolves once clients can connect.  `current`: who answers a
 * request that comes now.
 */
export async function serveApi(
  directory: RunDirectory,
  current: () => DaemonControl,
  log: Logger,
): Promise<ApiServer> {
  const streams = new MonitorStreams((onEvent) => current().subscribe(onEvent));
  const server = createServer({ headersTimeout: 5_000, requestTimeout: 10_000 });
  server.maxConnections = CONNECTIONS_MAX;
  onEvent(server, 'request', (request: IncomingMessage, response: ServerResponse) => {
    respond(current(), streams, request, response).catch((error: unknown) => {
      refuse(response, error, log);
    });
  });
  onEvent(server, 'clientError', refuseConnection);
  await listen(server, directory.socketPath);
  return {
    close: () =>
      new Promise((resolve) => {
        streams.close();
        server.close(() => resolve());
        server.closeIdleConnections();
        after(CLOSE_TIMEOUT_MS, () => server.closeAllConnections()).unref();
      }),
  };
}

/* The socket must not exist for a moment with other permissions: bind(2) happens inside listen(). */
function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const umask = process.umask(0o177);
    try {
      server.listen(path, () => {
        chmodSync(path, 0o600);
        server.off('error', reject);
        resolve();
      });
    } finally {
      process.umask(umask);
    }
  });
}

/* Three kinds: the client's mistake; the world (an errno), which the client gets to read;
 * ours, which must not be swallowed.
 */
function refuse(response: ServerResponse, error: unknown, log: Logger): void {
  const known = error instanceof RequestError;
  const code = known ? error.code : systemCode(error);
  if (code === undefined) log.error({ err: error }, 'request failed');
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const view: ErrorView = {
    version: 1,
    error: {
      code: code ?? 'internal',
      message: code !== undefined && error instanceof Error ? error.message : 'internal error',
    },
  };
  sendJson(response, known ? error.status : statusOf(code), view, known ? error.headers : {});
}

function systemCode(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? code : undefined;
}

function statusOf(code: string | undefined): number {
  switch (code) {
    case undefined:
      return 500;
    case 'ENODEV':
    case 'ENOENT':
      return 404;
    case 'EPERM':
    case 'EACCES':
      return 403;
    default:
      return 409;
  }
}

/* What the parser of node:http refused never became a request. */
function refuseConnection(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const body = '{"version":1,"error":{"code":"bad-request","message":"not an HTTP request"}}\n';
  socket.end(
    `HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${body.length}\r\n\r\n${body}`,
  );
}
