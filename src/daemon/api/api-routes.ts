/* Which request to the daemon's API does what; see api.ts for the list. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { z } from 'zod';
import { type GuestState, parseGuestState } from '../../guest/identity.js';
import { PlaceError } from '../../guest/request.js';
import { address } from '../../wire/address.js';
import { ConfigError } from '../config/config.js';
import { interfaceName, interfacePattern } from '../config/interface-pattern.js';
import { RequestError } from '../view/request-error.js';
import {
  type DaemonControl,
  type DoneView,
  FREEZE_MS,
  type GuestPlaceView,
  type TapControl,
} from '../view/view.js';
import type { MonitorStreams } from './monitor-stream.js';

const BODY_BYTES_MAX = 4096;
/** A router advertisement and DHCP options are in it, as hex. */
const GUEST_BYTES_MAX = 65_536;
/** A full flow table, in base64. */
const FLOWS_BYTES_MAX = 64 << 20;

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
    case '/v1/plan':
      return { GET: (_, response) => sendJson(response, 200, control.plan()) };
    case '/v1/reload':
      return { POST: (_, response) => done(response, () => reload(control)) };
    case '/v1/shutdown':
      return { POST: (_, response) => done(response, () => control.shutdown()) };
    case '/v1/freeze':
      return {
        POST: async (request, response) => {
          const { for_ms, tap } = await readBody(request, SHAPES.freeze);
          sendJson(response, 200, await control.freeze(for_ms, tap));
        },
      };
    case '/v1/interfaces':
      return {
        POST: async (request, response) => {
          const { name, gateway } = await readBody(request, SHAPES.interface);
          await done(response, () => control.attach(name, gateway));
        },
        DELETE: (_, response) => done(response, () => control.detach('*')),
      };
    case '/v1/taps':
      return {
        GET: (_, response) => sendJson(response, 200, control.taps()),
        POST: async (request, response) => {
          const { name, mac } = await readBody(request, SHAPES.tap);
          await done(response, () => control.attachTap(name, mac));
        },
      };
    default:
      return interfaceRoutes(control, path) ?? tapRoutes(control, path);
  }
}

function interfaceRoutes(control: DaemonControl, path: string): Record<string, Answer> | undefined {
  const encoded = /^\/v1\/interfaces\/([^/]+)$/.exec(path)?.[1];
  if (encoded === undefined) return undefined;
  return {
    DELETE: (_, response) => {
      const name = interfacePattern.safeParse(decodePathPart(encoded));
      if (!name.success) throw new RequestError(400, 'bad-name', 'not an interface name');
      return done(response, () => control.detach(name.data));
    },
  };
}

function reload(control: DaemonControl): void {
  try {
    control.reload();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new RequestError(400, 'bad-config', error.message);
  }
}

function decodePathPart(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return '';
  }
}

function tapRoutes(control: DaemonControl, path: string): Record<string, Answer> | undefined {
  const [, encoded, verb] = /^\/v1\/taps\/([^/]+)(?:\/([a-z]+))?$/.exec(path) ?? [];
  if (encoded === undefined) return undefined;
  const name = decodePathPart(encoded);
  const answer = (view: (request: IncomingMessage) => Promise<unknown>): Answer => {
    return async (request, response) => sendJson(response, 200, await view(request));
  };
  const vm = () => control.tap(name);
  switch (verb) {
    case undefined:
      return { DELETE: (_, response) => done(response, () => control.detachTap(name)) };
    case 'guest':
      return { GET: answer(() => vm().guest()) };
    case 'place':
      return {
        POST: answer(async (request) => settle(vm(), await readBody(request, SHAPES.place))),
      };
    case 'export':
      return { POST: answer(() => vm().export()) };
    case 'import':
      return {
        POST: answer(async (request) => {
          return vm().import(await readBody(request, SHAPES.import));
        }),
      };
    case 'synchronize':
      return {
        POST: answer(async (request) => {
          const { within_ms, moved } = await readBody(request, SHAPES.synchronize);
          return vm().synchronize(within_ms, moved);
        }),
      };
    case 'announce':
      return { POST: (_, response) => done(response, () => vm().announce()) };
    default:
      return undefined;
  }
}

async function settle(
  vm: TapControl,
  o: { guest: unknown; request: string[] },
): Promise<GuestPlaceView> {
  try {
    return await vm.settle(guestOf(o.guest), o.request);
  } catch (error) {
    if (error instanceof PlaceError) {
      throw new RequestError(error.code === 'bad-request' ? 400 : 409, error.code, error.message);
    }
    throw error;
  }
}

function guestOf(json: unknown): GuestState {
  try {
    return parseGuestState(json);
  } catch (error) {
    if (error instanceof TypeError) throw new RequestError(400, 'bad-body', error.message);
    throw error;
  }
}

const canonicalAddress = z.string().transform((text, context) => {
  try {
    return address(text);
  } catch {
    context.addIssue({ code: 'custom', message: 'not an IP address' });
    return z.NEVER;
  }
});

/** A body, and how it is described to who sends another one. */
interface Shape<S extends z.ZodType> {
  schema: S;
  like: string;
  with: string;
  max?: number;
}

const shape = <S extends z.ZodType>(s: Shape<S>): Shape<S> => s;

const macText = z.string().regex(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i);

const SHAPES = {
  interface: shape({
    schema: z.strictObject({ name: interfacePattern, gateway: z.boolean().optional() }),
    like: '{"name":"eth0"}',
    with: 'an interface name, and "gateway" true or false if that is to change',
  }),
  tap: shape({
    schema: z.strictObject({ name: interfaceName, mac: macText.optional() }),
    like: '{"name":"vnet0","mac":"52:54:00:00:00:01"}',
    with: "a tap and, if it is known, its guest's hardware address",
  }),
  freeze: shape({
    schema: z.strictObject({
      for_ms: z.int().min(FREEZE_MS.least).max(FREEZE_MS.most),
      tap: interfaceName.optional(),
    }),
    like: '{"for_ms":30000}',
    with: 'a second to ten minutes and, for the flows of a VM, its tap',
  }),
  place: shape({
    schema: z.strictObject({ guest: z.unknown(), request: z.array(z.string()).min(1).max(8) }),
    like: '{"guest":{…},"request":["dhcp"]}',
    with: 'what GET …/guest has answered, and "dhcp" or addresses',
    max: GUEST_BYTES_MAX,
  }),
  import: shape({
    // As it was answered; who the guest is has been told with its place.
    schema: z.object({ flows: z.base64(), outside: z.array(canonicalAddress).max(8) }),
    like: '{"guest":{…},"outside":["192.0.2.10"],"flows":"…"}',
    with: 'what POST …/export has answered',
    max: FLOWS_BYTES_MAX,
  }),
  synchronize: shape({
    schema: z.strictObject({
      within_ms: z.int().min(0).max(3_600_000),
      moved: z.boolean().default(true),
    }),
    like: '{"within_ms":3000,"moved":true}',
    with: 'up to an hour',
  }),
};

async function readBody<S extends z.ZodType>(
  request: IncomingMessage,
  o: Shape<S>,
): Promise<z.output<S>> {
  let body: unknown;
  try {
    body = JSON.parse(await readText(request, o.max ?? BODY_BYTES_MAX));
  } catch (error) {
    if (error instanceof RequestError) throw error;
    throw new RequestError(400, 'bad-json', `the body is not JSON; expected ${o.like}`);
  }
  const parsed = o.schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new RequestError(400, 'bad-body', `the body must be ${o.like} with ${o.with}`);
}

async function readText(request: IncomingMessage, max: number): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > max) {
      throw new RequestError(413, 'too-large', `the body is longer than ${max} bytes`, {
        Connection: 'close',
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function done(response: ServerResponse, change: () => void | Promise<void>): Promise<void> {
  await change();
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
