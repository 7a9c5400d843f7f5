/* Which request to the daemon's API does what; see api.ts for the list. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { z } from 'zod';
import { interfaceName } from './config.js';
import type { MonitorStreams } from './monitor-stream.js';
import { RequestError } from './request-error.js';
import type { DaemonControl, DoneView } from './view.js';

const BODY_BYTES_MAX = 4096;

type Answer = (request: IncomingMessage, response: ServerResponse) => Promise<void> | void;

/** Answers one request.  Throws RequestError for what cannot be answered. */
export async function respond(
  control: DaemonControl,
  streams: MonitorStreams,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const path = new URL(request.url ?? '/', 'http://tiflow').pathname;
  const routes = routesOf(control, streams, path);
  if (routes === undefined) throw new RequestError(404, 'not-found', `no such resource: ${path}`);
  const answer = routes[request.method ?? ''];
  if (answer === undefined) {
    const allow = Object.keys(routes).join(', ');
    throw new RequestError(405, 'method', `${path} answers ${allow} only`, { Allow: allow });
  }
  await answer(request, response);
}

function routesOf(
  control: DaemonControl,
  streams: MonitorStreams,
  path: string,
): Record<string, Answer> | undefined {
  switch (path) {
    case '/v1/status':
      return { GET: (_, response) => sendJson(response, 200, control.status()) };
    case '/v1/flows':
      return { GET: (_, response) => sendJson(response, 200, control.flows()) };
    case '/v1/monitor':
      return { GET: (_, response) => streams.open(response) };
    case '/v1/shutdown':
      return { POST: (_, response) => done(response, () => control.shutdown()) };
    case '/v1/interfaces':
      return {
        POST: async (request, response) => {
          const { name } = await readName(request);
          done(response, () => control.attach(name));
        },
        DELETE: (_, response) => done(response, () => control.detach()),
      };
    default:
      return interfaceRoutes(control, path);
  }
}

function interfaceRoutes(control: DaemonControl, path: string): Record<string, Answer> | undefined {
  const encoded = /^\/v1\/interfaces\/([^/]+)$/.exec(path)?.[1];
  if (encoded === undefined) return undefined;
  return {
    DELETE: (_, response) => {
      const name = interfaceName.safeParse(decodePathPart(encoded));
      if (!name.success) throw new RequestError(400, 'bad-name', 'not an interface name');
      done(response, () => control.detach(name.data));
    },
  };
}

function decodePathPart(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return '';
  }
}

const nameShape = z.strictObject({ name: interfaceName });

async function readName(request: IncomingMessage): Promise<{ name: string }> {
  let body: unknown;
  try {
    body = JSON.parse(await readBody(request));
  } catch (error) {
    if (error instanceof RequestError) throw error;
    throw new RequestError(400, 'bad-json', 'the body is not JSON; expected {"name":"eth0"}');
  }
  const parsed = nameShape.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new RequestError(
    400,
    'bad-body',
    'the body must be {"name":"eth0"} with an interface name',
  );
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) {
      throw new RequestError(413, 'too-large', `the body is longer than ${BODY_BYTES_MAX} bytes`, {
        Connection: 'close',
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function done(response: ServerResponse, change: () => void): void {
  change();
  const view: DoneView = { version: 1, done: true };
  sendJson(response, 200, view);
}

/** Sends `body` and ends the response. */
export function sendJson(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
    ...headers,
  });
  response.end(text);
}
