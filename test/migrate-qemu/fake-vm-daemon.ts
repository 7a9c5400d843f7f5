/* The daemon's socket as a migration meets it: what is asked, in order; calls that are held or
 * refused.  Behind it a daemon made of answers, or a real one (real-vm-daemon.ts).
 */

import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import type { TestContext } from 'node:test';
import { LUGGAGE_FORMAT, type LuggageFormat } from '../../src/boundary/transfer.js';
import { socketPath } from '../../src/daemon/config/run-directory.js';
import type {
  ExportView,
  FreezeView,
  GuestPlaceView,
  ImportView,
  SynchronizeView,
  TapsView,
  TapView,
} from '../../src/daemon/view/view.js';
import { unknownGuest } from '../../src/guest/identity.js';
import { mac } from '../../src/wire/ethernet.js';
import type { RealVmDaemon } from './real-vm-daemon.js';

export interface FakeVmDaemon {
  /** "METHOD path", after /v1/taps. */
  calls: string[];
  /** Bodies by call. */
  bodies: Map<string, unknown>;
  taps: string[];
  luggage: LuggageFormat;
  /** Who answers instead. */
  real?: RealVmDaemon;
  /** Calls that are refused: path after the tap's name → code and message. */
  refuse: Map<string, { code: string; message: string }>;
  /** Calls that are answered when the promise resolves: path after the tap's name, or "DELETE". */
  hold: Map<string, Promise<void>>;
}

const HOLDS_NOTHING = () => ({
  ...{ luggage: { ...LUGGAGE_FORMAT }, refuse: new Map(), hold: new Map() },
});
const FLOWS = Buffer.from('the flow table').toString('base64');

export async function fakeVmDaemon(t: TestContext, runDir: string): Promise<FakeVmDaemon> {
  const fake: FakeVmDaemon = { calls: [], bodies: new Map(), taps: [], ...HOLDS_NOTHING() };
  mkdirSync(runDir, { recursive: true });
  const server = createServer(async (request, response) => {
    const body = await bodyOf(request);
    const what = request.url?.split('/')[4] ?? '';
    const call = `${request.method} ${request.url?.replace('/v1/taps', '')}`.trim();
    fake.calls.push(call);
    fake.bodies.set(call, body);
    await fake.hold.get(request.method === 'DELETE' ? 'DELETE' : what);
    const { status, answer } =
      fake.real === undefined
        ? answerTo(fake, request, body)
        : await fake.real.answer(request, body);
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(answer));
  });
  server.listen(socketPath(runDir));
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return fake;
}

function answerTo(fake: FakeVmDaemon, { method = '', url = '' }: IncomingMessage, body: unknown) {
  const path = url.replace('/v1/taps', '');
  const [, name = '', what = ''] = path.split('/');
  const refusal = fake.refuse.get(what);
  if (refusal !== undefined) return { status: 409, answer: { error: refusal } };
  if (url === '/v1/freeze') return { status: 200, answer: FREEZE };
  if (method === 'GET' && name === '') return { status: 200, answer: views(fake) };
  if (method === 'POST' && name === '') {
    fake.taps.push((body as { name: string }).name);
    return { status: 200, answer: {} };
  }
  if (!fake.taps.includes(name)) {
    return { status: 404, answer: { error: { code: 'not-found', message: `no tap ${name}` } } };
  }
  if (method === 'DELETE') fake.taps = fake.taps.filter((tap) => tap !== name);
  return { status: 200, answer: ANSWERS[what] ?? {} };
}

export const GUEST = unknownGuest(mac('52:54:00:00:00:0a'));
const PLACE: GuestPlaceView = {
  version: 1,
  outside: ['198.51.100.10'],
  gateway: '198.51.100.1',
};
const EXPORT: ExportView = { version: 1, guest: GUEST, outside: ['192.0.2.10'], flows: FLOWS };
const IMPORT: ImportView = { version: 1, imported: 2, refused: 0 };
const SYNCHRONIZE: SynchronizeView = {
  ...{ version: 1, moved: 2, failed: 0, pending: 0 },
  failures: [],
};
const FREEZE: FreezeView = { version: 1, frozen: 2, quiet: true };
const ANSWERS: Record<string, object> = {
  guest: GUEST,
  place: PLACE,
  export: EXPORT,
  import: IMPORT,
  synchronize: SYNCHRONIZE,
};

const VIEW: Omit<TapView, 'name'> = {
  ...{ mac: GUEST.mac, place: 'home', gateway: null },
  ...{ inside: [], outside: [] },
  flows: { protected: 2, moving: 0, moved: 0, legacy: 0 },
};

const views = ({ taps, luggage }: FakeVmDaemon): TapsView => ({
  ...{ version: 1, luggage },
  taps: taps.map((name) => ({ name, ...VIEW })),
});

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += chunk;
  return text === '' ? undefined : JSON.parse(text);
}
