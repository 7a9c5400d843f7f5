/**
 * Redis: a pipeline of pushes, a subscriber, and a client that waits for what is not there yet.
 */
import { type Act, isSequence, programCase } from './act.js';
import type { Program } from './program.js';

const TICK_MS = 20;
const PUSHES_PER_TICK = 100;

export const redis = programCase(
  { name: 'redis', summary: 'a pipeline, a subscriber and a blocked client', port: 6379 },
  async (act) => {
    await serve(act);
    const pipeline = client(act, '--pipe');
    const stopPushing = pipeline.pace(TICK_MS, pushes);
    const subscriber = client(act, 'SUBSCRIBE', 'news');
    await subscriber.line('news');
    const blocked = client(act, 'BLPOP', 'queue', '0');
    const publisher = local(act);
    const stopPublishing = publisher.pace(TICK_MS, (n) => `PUBLISH news ${n}\n`);
    await act.move(3);
    const ticks = stopPushing();
    const published = stopPublishing();
    publisher.end('RPUSH queue late\n');
    await act.finish('publisher', publisher);
    await checkBlocked(act, blocked);
    await checkPipeline(act, pipeline, ticks * PUSHES_PER_TICK);
    await checkSubscriber(act, subscriber, published);
  },
);

function serve(act: Act): Promise<void> {
  const directory = act.directory('server', 'redis');
  return act.serve('redis-server', [
    ...['redis-server', '--port', String(act.port), '--bind', '*', '-::*', '--dir', directory],
    ...['--protected-mode', 'no', '--save', '', '--appendonly', 'no'],
  ]);
}

const client = (act: Act, ...command: string[]): Program =>
  act.start('client', 'redis-cli', [
    ...['redis-cli', '-h', act.address, '-p', String(act.port)],
    ...command,
  ]);

/** A client at the server's own host: its connection does not move. */
const local = (act: Act, ...command: string[]): Program =>
  act.start('server', 'redis-cli', ['redis-cli', '-p', String(act.port), ...command]);

function pushes(tick: number): string {
  const first = (tick - 1) * PUSHES_PER_TICK + 1;
  const numbers = Array.from({ length: PUSHES_PER_TICK }, (_, i) => first + i);
  return numbers.map((n) => `RPUSH pushed ${n}\r\n`).join('');
}

async function checkBlocked(act: Act, blocked: Program): Promise<void> {
  await act.finish('BLPOP', blocked);
  act.check('the blocked client is woken', blocked.texts.join() === 'queue,late', blocked.ending);
}

async function checkPipeline(act: Act, pipeline: Program, pushed: number): Promise<void> {
  pipeline.end();
  await act.finish('pipeline', pipeline);
  const verdict = pipeline.texts.at(-1) ?? '';
  act.check('every reply came', verdict === `errors: 0, replies: ${pushed}`, verdict);
  const list = local(act, 'LRANGE', 'pushed', '0', '-1');
  await act.finish('LRANGE', list);
  const ok = isSequence(list.texts, pushed);
  act.check('every push once and in order', ok, `${list.lines.length} of ${pushed}`);
}

async function checkSubscriber(act: Act, subscriber: Program, published: number): Promise<void> {
  await subscriber.line(String(published));
  act.silence(subscriber);
  const { ok, detail } = subscriber.stop();
  act.check('subscriber met no error', ok, detail);
  // "subscribe news 1", then "message news N" for each, a word a line.
  const payloads = subscriber.texts.slice(3).filter((_, i) => i % 3 === 2);
  const whole = isSequence(payloads, published);
  act.check('every message once and in order', whole, `${payloads.length} of ${published}`);
}
