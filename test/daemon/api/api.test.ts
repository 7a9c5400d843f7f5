/* The API over a real unix socket: answers, refusals, hostile clients, slow readers. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once, setMaxListeners } from 'node:events';
import { statSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { connect } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import pino from 'pino';
import { type ApiServer, serveApi } from '../../../src/daemon/api/api.js';
import { DaemonClient } from '../../../src/daemon/api/client.js';
import { claimRunDirectory } from '../../../src/daemon/config/run-directory.js';
import type { MonitorEvent } from '../../../src/daemon/view/view.js';
import { unknownGuest } from '../../../src/guest/identity.js';
import { PlaceError } from '../../../src/guest/request.js';
import { FakeControl, STATUS, TAP } from '../fake-control.js';
import { temporaryDirectory } from '../temporary.js';
import { GUEST_MAC } from '../vm-fixture.js';

interface Served {
  runDir: string;
  socketPath: string;
  control: FakeControl;
  server: ApiServer;
  client: DaemonClient;
}

async function serve(t: TestContext): Promise<Served> {
  const runDir = temporaryDirectory(t);
  const directory = claimRunDirectory(runDir);
  const control = new FakeControl();
  const server = await serveApi(directory, () => control, pino({ level: 'silent' }));
  t.after(async () => {
    await server.close();
    directory.release();
  });
  const { socketPath } = directory;
  return { runDir, socketPath, control, server, client: new DaemonClient(runDir) };
}

/** Sends one request; the answer's status and parsed body. */
async function ask(
  { socketPath }: Served,
  method: string,
  path: string,
  body = '',
): Promise<{ status: number | undefined; body: unknown; allow: string | undefined }> {
  const sent = request({ socketPath, method, path, agent: false });
  sent.end(body);
  const [answer] = await once(sent, 'response');
  const chunks: Buffer[] = [];
  for await (const chunk of answer) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  return { status: answer.statusCode, body: JSON.parse(text), allow: answer.headers.allow };
}

/** Sends bytes as they are; all that comes back. */
async function sendRaw({ socketPath }: Served, bytes: string): Promise<string> {
  const socket = connect(socketPath);
  socket.end(bytes);
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function until(what: string, condition: () => boolean): Promise<void> {
  for (let tries = 0; !condition(); tries++) {
    if (tries > 500) throw new Error(`waited in vain: ${what}`);
    await delay(10);
  }
}

const refusal = (code: string, message: string) => ({ version: 1, error: { code, message } });
const event = (name: MonitorEvent['event'], more: Partial<MonitorEvent> = {}): MonitorEvent => ({
  version: 1,
  at_ms: 1,
  event: name,
  ...more,
});

describe('answers', () => {
  test('status, flows, changes', async (t) => {
    const served = await serve(t);
    const { client, control } = served;
    assert.deepEqual(await client.status(), STATUS);
    assert.deepEqual(await client.flows(), control.flows());
    await client.attach('eth0');
    await client.attach('eth0', true);
    await client.attach('eth0', false);
    await client.detach('eth0');
    await client.detach();
    await client.shutdown();
    const attached = ['attach eth0', 'attach eth0 as gateway', 'attach eth0 as host'];
    assert.deepEqual(control.calls, [...attached, 'detach eth0', 'detach *', 'shutdown']);
  });

  test('freeze: of this machine, of a VM, within its bounds', async (t) => {
    const { client, control } = await serve(t);
    assert.deepEqual(await client.freeze(30_000), { version: 1, frozen: 3, quiet: true });
    await client.freeze(1_000, 'vnet0');
    assert.deepEqual(control.calls, ['freeze 30000 -', 'freeze 1000 vnet0']);
    for (const forMs of [999, 600_001, 1.5]) {
      await assert.rejects(client.freeze(forMs), /the body must be \{"for_ms":30000\}/);
    }
  });

  test('the socket is for its owner alone', async (t) => {
    const { runDir, socketPath } = await serve(t);
    assert.equal(statSync(socketPath).mode & 0o777, 0o600);
    assert.equal(statSync(`${runDir}/tiflow.lock`).mode & 0o777, 0o600);
  });

  test('curl', async (t) => {
    const { socketPath } = await serve(t);
    const curl = spawn('curl', ['-sf', '--unix-socket', socketPath, 'http://t/v1/status']);
    const missing = once(curl, 'error').then(() => true);
    const chunks: Buffer[] = [];
    curl.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    if ((await Promise.race([missing, once(curl, 'close')])) === true) return t.skip('no curl');
    assert.deepEqual(JSON.parse(Buffer.concat(chunks).toString()), STATUS);
  });
});

describe('refusals', () => {
  const rows: [string, string, string, number, ReturnType<typeof refusal>][] = [
    ['GET', '/v1/nothing', '', 404, refusal('not-found', 'no such resource: /v1/nothing')],
    ['PUT', '/v1/status', '', 405, refusal('method', '/v1/status answers GET only')],
    [
      'GET',
      '/v1/interfaces',
      '',
      405,
      refusal('method', '/v1/interfaces answers POST, DELETE only'),
    ],
    [
      'POST',
      '/v1/interfaces',
      '{"name"',
      400,
      refusal('bad-json', 'the body is not JSON; expected {"name":"eth0"}'),
    ],
    [
      'POST',
      '/v1/interfaces',
      '',
      400,
      refusal('bad-json', 'the body is not JSON; expected {"name":"eth0"}'),
    ],
    ...['[]', 'null', '{}', '{"name":7}', '{"name":"../x"}', '{"name":"eth0","more":1}'].map(
      (body): [string, string, string, number, ReturnType<typeof refusal>] => [
        'POST',
        '/v1/interfaces',
        body,
        400,
        refusal(
          'bad-body',
          'the body must be {"name":"eth0"} with an interface name, and "gateway" true or false ' +
            'if that is to change',
        ),
      ],
    ),
    [
      'POST',
      '/v1/interfaces',
      ' '.repeat(5000),
      413,
      refusal('too-large', 'the body is longer than 4096 bytes'),
    ],
    ['DELETE', '/v1/interfaces/%ff', '', 400, refusal('bad-name', 'not an interface name')],
    ['DELETE', '/v1/interfaces/..%2fx', '', 400, refusal('bad-name', 'not an interface name')],
  ];
  for (const [method, path, body, status, view] of rows) {
    test(`${method} ${path} ${body.slice(0, 30)}`, async (t) => {
      const served = await serve(t);
      const answer = await ask(served, method, path, body);
      assert.equal(answer.status, status);
      assert.deepEqual(answer.body, view);
      assert.deepEqual(served.control.calls, []);
      assert.deepEqual(await served.client.status(), STATUS);
    });
  }

  test('a daemon that hangs is named', async (t) => {
    const runDir = temporaryDirectory(t);
    const directory = claimRunDirectory(runDir);
    const silent = createServer().listen(directory.socketPath);
    t.after(() => {
      silent.closeAllConnections();
      silent.close();
      directory.release();
    });
    await assert.rejects(new DaemonClient(runDir, { answerTimeoutMs: 50 }).status(), {
      code: 'ETIMEDOUT',
      message:
        `the daemon at ${runDir}/tiflow.sock did not answer in 50 ms ` +
        `(pid ${process.pid}; if it hangs, kill it: flows go on)`,
    });
  });

  test('what is not HTTP', async (t) => {
    const served = await serve(t);
    for (const bytes of ['\0\x01\x02\r\n\r\n', 'GET\r\n\r\n', 'GET / HTTP/9.9\r\n\r\n']) {
      const answer = await sendRaw(served, bytes);
      assert.match(answer, /^HTTP\/1.1 400 Bad Request\r\n/, JSON.stringify(bytes));
      const body = answer.slice(answer.indexOf('\r\n\r\n') + 4);
      assert.deepEqual(JSON.parse(body), refusal('bad-request', 'not an HTTP request'));
    }
    await sendRaw(served, '');
    await sendRaw(served, 'POST /v1/interfaces HTTP/1.1\r\nContent-Length: 50\r\n\r\n{"name":');
    assert.deepEqual(await served.client.status(), STATUS);
  });

  test('a failure of the system reaches the client as it is, a mistake of ours does not', async (t) => {
    const served = await serve(t);
    const rows: [string | undefined, number][] = [
      ['ENODEV', 404],
      ['EPERM', 403],
      ['EBUSY', 409],
      [undefined, 500],
    ];
    for (const [code, status] of rows) {
      served.control.failure = Object.assign(new Error(`attach boundary to eth9: ${code}`), {
        ...(code && { code }),
      });
      const answer = await ask(served, 'POST', '/v1/interfaces', '{"name":"eth9"}');
      assert.equal(answer.status, status);
      const expected =
        code === undefined
          ? refusal('internal', 'internal error')
          : refusal(code, `attach boundary to eth9: ${code}`);
      assert.deepEqual(answer.body, expected);
    }
  });
});

describe('VMs', () => {
  const guest = unknownGuest(GUEST_MAC);

  test('each request of the client is one call', async (t) => {
    const { client, control } = await serve(t);
    assert.deepEqual(await client.taps(), [TAP]);
    await client.attachTap('vnet0');
    await client.attachTap('vnet0', GUEST_MAC);
    assert.deepEqual(await client.guest('vnet0'), guest);
    assert.deepEqual(await client.place('vnet0', guest, ['dhcp', '2001:db8:2::/64']), {
      ...{ version: 1, outside: TAP.outside, gateway: TAP.gateway },
    });
    const exported = await client.exportFlows('vnet0');
    assert.deepEqual(exported.outside, TAP.inside);
    const arrived = await client.importFlows('vnet0', exported);
    assert.deepEqual(arrived, { version: 1, imported: 2, refused: 0 });
    assert.equal((await client.synchronize('vnet0', 3000)).moved, 2);
    await client.synchronize('vnet0', 0, false);
    await client.announce('vnet0');
    await client.detachTap('vnet0');
    assert.deepEqual(control.calls, [
      'attach tap vnet0 -',
      `attach tap vnet0 ${GUEST_MAC}`,
      'guest vnet0',
      'settle dhcp,2001:db8:2::/64 vnet0',
      'export vnet0',
      `import VElGTA== ${TAP.inside.join()} vnet0`,
      'synchronize 3000 true vnet0',
      'synchronize 0 false vnet0',
      'announce vnet0',
      'detach tap vnet0',
    ]);
  });

  const tap = '/v1/taps/vnet0';
  const synchronizeLike = '{"within_ms":3000,"moved":true} with up to an hour';
  const importLike =
    '{"guest":{…},"outside":["192.0.2.10"],"flows":"…"} with what POST …/export has answered';
  const placeLike =
    '{"guest":{…},"request":["dhcp"]} with what GET …/guest has answered, and "dhcp" or addresses';
  const tapLike =
    '{"name":"vnet0","mac":"52:54:00:00:00:01"} with a tap and, if it is known, ' +
    "its guest's hardware address";
  const bad = (method: string, path: string, like: string, bodies: string[]) =>
    bodies.map((body) => ({
      ...{ method, path, body, status: 400 },
      view: refusal('bad-body', `the body must be ${like}`),
    }));
  const place = (request: unknown) => JSON.stringify({ guest, request });
  const rows = [
    ...bad('POST', '/v1/taps', tapLike, [
      ...['{}', '{"name":"a/b"}', '{"name":"vnet0","mac":"52:54"}', '{"name":"vnet0","mac":7}'],
      '{"name":"vnet0","more":1}',
    ]),
    ...bad('POST', `${tap}/place`, placeLike, [
      ...['{}', place([]), place(Array(9).fill('dhcp')), place([7]), place('dhcp')],
    ]),
    ...bad('POST', `${tap}/import`, importLike, [
      ...['{}', '{"flows":"VElGTA=="}', '{"flows":"*","outside":[]}', '{"flows":"A","outside":[]}'],
      '{"flows":"","outside":["home"]}',
    ]),
    ...bad('POST', `${tap}/synchronize`, synchronizeLike, [
      ...['{}', '{"within_ms":-1}', '{"within_ms":1.5}', '{"within_ms":3600001}'],
      '{"within_ms":1,"moved":"yes"}',
    ]),
    {
      ...{ method: 'GET', path: `${tap}/import`, body: '', status: 405 },
      view: refusal('method', `${tap}/import answers POST only`),
    },
    {
      ...{ method: 'POST', path: tap, body: '', status: 405 },
      view: refusal('method', `${tap} answers DELETE only`),
    },
    {
      ...{ method: 'PUT', path: '/v1/taps', body: '', status: 405 },
      view: refusal('method', '/v1/taps answers GET, POST only'),
    },
    ...[`${tap}/fly`, `${tap}/guest/more`, '/v1/taps/'].map((path) => ({
      ...{ method: 'GET', path, body: '', status: 404 },
      view: refusal('not-found', `no such resource: ${path}`),
    })),
    {
      ...{ method: 'POST', path: '/v1/taps', body: ' '.repeat(4097), status: 413 },
      view: refusal('too-large', 'the body is longer than 4096 bytes'),
    },
    {
      ...{ method: 'POST', path: `${tap}/place`, body: ' '.repeat(65_537), status: 413 },
      view: refusal('too-large', 'the body is longer than 65536 bytes'),
    },
    {
      ...{ method: 'POST', path: `${tap}/synchronize`, body: ' '.repeat(4097), status: 413 },
      view: refusal('too-large', 'the body is longer than 4096 bytes'),
    },
  ];
  for (const { method, path, body, status, view } of rows) {
    test(`${method} ${path} ${body.slice(0, 50)}`, async (t) => {
      const served = await serve(t);
      const answer = await ask(served, method, path, body);
      assert.deepEqual(answer.body, view);
      assert.equal(answer.status, status);
      assert.deepEqual(served.control.calls, []);
    });
  }

  test('a guest that is none: all that is wrong with it is told', async (t) => {
    const served = await serve(t);
    const body = JSON.stringify({ guest: { ...guest, mac: 'x', version: 2 }, request: ['dhcp'] });
    const { status, body: view } = await ask(served, 'POST', `${tap}/place`, body);
    assert.equal(status, 400);
    const { code, message } = (view as ReturnType<typeof refusal>).error;
    assert.equal(code, 'bad-body');
    assert.match(message, /not the state of a guest:.*version.*mac/s);
    assert.deepEqual(served.control.calls, []);
  });

  for (const code of ['address-refused', 'no-lease', 'bad-request'] as const) {
    test(`no place: the code is ${code}`, async (t) => {
      const { client, control } = await serve(t);
      control.failure = new PlaceError(code, 'get addresses: no');
      await assert.rejects(client.place('vnet0', guest, ['dhcp']), {
        ...{ name: 'DaemonError', code, message: 'get addresses: no' },
      });
    });
  }

  test('a mistake of ours is not taken for the client’s', async (t) => {
    const { client, control } = await serve(t);
    control.failure = new TypeError('undefined is not a function');
    await assert.rejects(client.place('vnet0', guest, ['dhcp']), { code: 'internal' });
  });

  test('a change that fails while it is made, too, is answered', async (t) => {
    const { client, control } = await serve(t);
    control.failure = Object.assign(new Error('detach boundary from vnet0: ENODEV'), {
      code: 'ENODEV',
    });
    for (const change of [
      () => client.detach('vnet0'),
      () => client.detach(),
      () => client.detachTap('vnet0'),
      () => client.attachTap('vnet0'),
      () => client.announce('vnet0'),
    ]) {
      await assert.rejects(change(), { code: 'ENODEV' });
    }
  });

  test('the flows of a full table arrive; more than that does not', async (t) => {
    const served = await serve(t);
    // 65,536 flows and as many reasons why others are none, in base64.
    const flows = 'A'.repeat(4 * Math.ceil((65_536 * (40 + 288 + 40 + 16)) / 3));
    const arrived = await served.client.importFlows('vnet0', { flows, outside: [] });
    assert.equal(arrived.imported, 2);
    assert.equal(served.control.calls.length, 1);
    const tooMany = 'A'.repeat((64 << 20) + 4);
    await assert.rejects(served.client.importFlows('vnet0', { flows: tooMany, outside: [] }), {
      code: 'too-large',
    });
  });

  test('a daemon that hangs: the time that was waited is told', async (t) => {
    const runDir = temporaryDirectory(t);
    const directory = claimRunDirectory(runDir);
    const silent = createServer().listen(directory.socketPath);
    t.after(() => {
      silent.closeAllConnections();
      silent.close();
      directory.release();
    });
    const client = new DaemonClient(runDir, { answerTimeoutMs: 50 });
    await assert.rejects(client.synchronize('vnet0', 25), {
      ...{ code: 'ETIMEDOUT', message: /did not answer in 75 ms/ },
    });
  });
});

describe('monitor', () => {
  test('one object a line, from now on, until the daemon ends', async (t) => {
    const { client, control, server } = await serve(t);
    const seen: MonitorEvent[] = [];
    const reader = (async () => {
      for await (const each of client.monitor()) seen.push(each);
    })();
    await until('subscribed', () => control.listeners.size === 1);
    control.emit(event('carrier-up', { interface: 'eth0' }));
    control.emit(event('proven', { gap_ms: 12 }));
    await until('two events', () => seen.length === 2);
    await server.close();
    await reader;
    assert.deepEqual(seen, [
      event('carrier-up', { interface: 'eth0' }),
      event('proven', { gap_ms: 12 }),
    ]);
    assert.equal(control.listeners.size, 0);
  });

  test('a reader may leave before it is answered', async (t) => {
    const { client } = await serve(t);
    for await (const _ of client.monitor(AbortSignal.abort())) assert.fail('an event');
  });

  test('a reader that leaves is forgotten', async (t) => {
    const { client, control } = await serve(t);
    const leave = new AbortController();
    const reader = (async () => {
      for await (const _ of client.monitor(leave.signal));
    })();
    await until('subscribed', () => control.listeners.size === 1);
    leave.abort();
    await reader;
    await until('unsubscribed', () => control.listeners.size === 0);
  });

  test('a reader that stalls loses events, is told how many, and holds nobody up', async (t) => {
    const { socketPath, control, client } = await serve(t);
    const socket = connect(socketPath);
    t.after(() => socket.destroy());
    socket.write('GET /v1/monitor HTTP/1.1\r\nHost: t\r\n\r\n');
    await until('subscribed', () => control.listeners.size === 1);
    const memoryBefore = process.memoryUsage().rss;
    const emitted = 40_000;
    for (let n = 0; n < emitted; n++) {
      control.emit(event('flow-opened', { kernel: 'x'.repeat(1000), epoch: n }));
    }
    assert.ok(process.memoryUsage().rss - memoryBefore < 100e6);
    assert.deepEqual(await client.status(), STATUS);

    let text = '';
    socket.on('data', (chunk: Buffer) => {
      text += chunk;
    });
    // 'last' follows the notice of the loss, once the stream has room again.
    await until('room again', () => {
      control.emit(event('flow-ended'));
      return text.includes('events-lost');
    });
    const lines = text.split('\r\n').filter((line) => line.startsWith('{'));
    const events = lines.flatMap((line) => line.trim().split('\n')).map((line) => JSON.parse(line));
    const lost = events.find((each) => each.event === 'events-lost')?.lost;
    const got = events.filter((each) => each.event === 'flow-opened').length;
    assert.ok(got > 1000 && lost > 1000, `${got} ${lost}`);
    assert.ok(got + lost >= emitted);
  });

  test('no more than 16 readers', async (t) => {
    const { client, control } = await serve(t);
    const leave = new AbortController();
    setMaxListeners(16, leave.signal);
    const readers = Array.from({ length: 16 }, async () => {
      for await (const _ of client.monitor(leave.signal));
    });
    await until('16 readers', () => control.listeners.size === 16);
    await assert.rejects(client.monitor().next(), {
      code: 'too-many',
      message: '16 monitors are running already',
    });
    leave.abort();
    await Promise.all(readers);
  });

  test('a stalled reader does not keep the daemon from ending', async (t) => {
    const { socketPath, control, server } = await serve(t);
    const socket = connect(socketPath);
    t.after(() => socket.destroy());
    socket.write('GET /v1/monitor HTTP/1.1\r\nHost: t\r\n\r\n');
    await until('subscribed', () => control.listeners.size === 1);
    for (let n = 0; n < 2000; n++) control.emit(event('flow-opened', { kernel: 'x'.repeat(1000) }));
    await server.close();
  });
});
