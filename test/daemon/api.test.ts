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
import { type ApiServer, serveApi } from '../../src/daemon/api.js';
import { DaemonClient } from '../../src/daemon/client.js';
import { claimRunDirectory } from '../../src/daemon/run-directory.js';
import type { MonitorEvent } from '../../src/daemon/view.js';
import { FakeControl, STATUS } from './fake-control.js';
import { temporaryDirectory } from './temporary.js';

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
  const server = await serveApi(directory, control, pino({ level: 'silent' }));
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
    await client.detach('eth0');
    await client.detach();
    await client.shutdown();
    assert.deepEqual(control.calls, ['attach eth0', 'detach eth0', 'detach all', 'shutdown']);
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
        refusal('bad-body', 'the body must be {"name":"eth0"} with an interface name'),
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
