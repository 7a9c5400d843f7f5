/* The channel as its two sides see it, over a real socket pair.
 *
 *   program ── unix socket ── M ══ channel ══ R ── unix socket ── program
 */

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { Channel, ChannelLost, type ChannelSide, RemoteError } from '../../src/migrate/channel.js';
import { encodeMessage, ourHello } from '../../src/migrate/frame.js';
import { temporaryDirectory } from '../daemon/temporary.js';

const BOUND_MS = 10_000;

async function listenAt(t: TestContext, path: string): Promise<Server> {
  const server = createServer();
  server.listen(path);
  await once(server, 'listening');
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => sockets.add(socket));
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return server;
}

async function socketPair(t: TestContext): Promise<[Socket, Socket]> {
  const path = join(temporaryDirectory(t), 'pair');
  const server = await listenAt(t, path);
  const one = connect(path);
  const [other] = (await once(server, 'connection')) as [Socket];
  t.after(() => {
    one.destroy();
    other.destroy();
  });
  return [one, other];
}

async function pair(t: TestContext, m: ChannelSide, r: ChannelSide, silenceMaxMs = BOUND_MS) {
  const [one, other] = await socketPair(t);
  const [source, destination] = await Promise.all([
    Channel.open({ input: one, output: one }, m, { silenceMaxMs }),
    Channel.open({ input: other, output: other }, r, { silenceMaxMs }),
  ]);
  return { source, destination, one, other };
}

test('requests and answers, several at once, errors with their code', async (t) => {
  const heard: unknown[] = [];
  const { source, destination } = await pair(
    t,
    { notice: (name, body) => heard.push([name, body]) },
    {
      request: async (name, body) => {
        if (name === 'fail') throw new RemoteError('no lease', 'no-lease');
        return { name, body };
      },
    },
  );
  destination.notify('qemu-ended', { exit: 1 });
  const answers = await Promise.all(
    ['a', 'b'].map((name) => source.request(name, { of: name }, BOUND_MS)),
  );
  assert.deepEqual(answers, [
    { name: 'a', body: { of: 'a' } },
    { name: 'b', body: { of: 'b' } },
  ]);
  assert.deepEqual(heard, [['qemu-ended', { exit: 1 }]]);
  await assert.rejects(source.request('fail', {}, BOUND_MS), {
    name: 'RemoteError',
    message: 'no lease',
    code: 'no-lease',
  });
});

test('forwarded bytes arrive complete, both ways, and so does the end', async (t) => {
  const directory = temporaryDirectory(t);
  const [m, r] = [join(directory, 'm'), join(directory, 'r')];
  const [near, far] = [await listenAt(t, m), await listenAt(t, r)];
  const { source } = await pair(t, {}, { stream: () => connect(r) });
  near.on('connection', (socket) => source.forward('ram-1', socket));
  const bytes = randomBytes(5_000_000);
  const client = connect(m);
  client.write(bytes);
  const [server] = (await once(far, 'connection')) as [Socket];
  const hash = createHash('sha256');
  let length = 0;
  for await (const chunk of server) {
    length += (chunk as Buffer).length;
    hash.update(chunk as Buffer);
    if (length === bytes.length) server.end('thanks');
  }
  assert.equal(hash.digest('hex'), createHash('sha256').update(bytes).digest('hex'));
  const [answer] = await once(client, 'data');
  assert.equal(String(answer), 'thanks');
  await once(client, 'close');
});

test('a server that speaks first is heard', async (t) => {
  const directory = temporaryDirectory(t);
  const [m, r] = [join(directory, 'm'), join(directory, 'r')];
  const [near, far] = [await listenAt(t, m), await listenAt(t, r)];
  const { source } = await pair(t, {}, { stream: () => connect(r) });
  near.on('connection', (socket) => source.forward('nbd-1', socket));
  far.on('connection', (socket) => socket.end('NBDMAGIC'));
  const [greeting] = await once(connect(m), 'data');
  assert.equal(String(greeting), 'NBDMAGIC');
});

test('a reader that stops stops the writer, not the memory', async (t) => {
  const directory = temporaryDirectory(t);
  const [m, r] = [join(directory, 'm'), join(directory, 'r')];
  const [near, far] = [await listenAt(t, m), await listenAt(t, r)];
  const { source } = await pair(t, {}, { stream: () => connect(r) });
  near.on('connection', (socket) => source.forward('ram-1', socket));
  const client = connect(m).on('error', () => undefined); // the test ends it in the middle
  t.after(() => client.destroy());
  const chunk = Buffer.alloc(65_536);
  // Nobody reads at the far end: at some point the socket takes no more.
  far.on('connection', (socket) => socket.pause());
  let written = 0;
  const full = () => client.writableLength > 8 * chunk.length;
  while (!full()) {
    client.write(chunk);
    written += chunk.length;
    await new Promise(setImmediate);
    assert.ok(written < 64 * 1024 * 1024, `${written} bytes were swallowed`);
  }
});

test('a connection that the other side closes is closed here, though we only write', async (t) => {
  const directory = temporaryDirectory(t);
  const [m, r] = [join(directory, 'm'), join(directory, 'r')];
  const [near, far] = [await listenAt(t, m), await listenAt(t, r)];
  const { source } = await pair(t, {}, { stream: () => connect(r) });
  near.on('connection', (socket) => source.forward('ram-1', socket));
  far.on('connection', (socket) => socket.destroy());
  const client = connect(m);
  client.on('error', () => undefined);
  client.write('memory');
  await once(client, 'close');
});

test('a stream that leads nowhere is closed', async (t) => {
  const m = join(temporaryDirectory(t), 'm');
  const near = await listenAt(t, m);
  const { source } = await pair(t, {}, {});
  near.on('connection', (socket) => source.forward('ram-1', socket));
  const client = connect(m);
  client.write('memory');
  await once(client, 'close');
});

test('a clean end, and a cut', async (t) => {
  const clean = await pair(t, {}, {});
  await clean.source.close();
  assert.equal((await clean.destination.closed).clean, true);

  const cut = await pair(t, {}, { request: () => new Promise(() => undefined) });
  const asked = cut.source.request('never', {}, BOUND_MS);
  cut.one.destroy();
  await assert.rejects(asked, ChannelLost);
  assert.equal((await cut.destination.closed).clean, false);
});

test('a network that swallows everything is a cut', async (t) => {
  const { source, destination, other } = await pair(t, {}, {}, 200);
  other.pause();
  other.write = () => true; // and nothing comes from there any more
  const { error } = await source.closed;
  assert.match(error.message, /nothing heard/);
  assert.equal((await destination.closed).clean, false);
});

test('a connection that comes after the channel has gone is closed', async (t) => {
  const { source, one } = await pair(t, {}, {});
  one.destroy();
  await source.closed;
  const [near, program] = await socketPair(t);
  source.forward('nbd-1', near);
  await once(program, 'close', { signal: AbortSignal.timeout(BOUND_MS) });
});

test('an answer that does not come', async (t) => {
  const { source } = await pair(t, {}, { request: () => new Promise(() => undefined) });
  await assert.rejects(source.request('go', {}, 20), /go: no answer in 20 ms/);
});

test('what answers is no tiflow, or another one', async () => {
  const rows: [Buffer, RegExp][] = [
    [Buffer.from('Permission denied\n'), /no JSON object: "Permission denied"/],
    [encodeMessage({ ...ourHello(), version: 7, lowest: 7 }), /versions 7 to 7 .* same tiflow/],
    [Buffer.from(''), /the other side has ended/],
  ];
  for (const [bytes, why] of rows) {
    const input = new PassThrough();
    input.end(bytes);
    await assert.rejects(Channel.open({ input, output: new PassThrough() }, {}), why);
  }
});
