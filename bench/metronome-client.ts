/*
 * A TCP client that notices milliseconds:  node metronome-client.js ADDRESS PORT INTERVAL_MS
 *
 * Writes a small message to an echo server at every interval, without Nagle's delay, and notes
 * when bytes come back.  Prints the time of each echo that ends a silence, and at the end of
 * standard input all that it has noted, in one JSON line (`Beats`).  A process of its own: what the
 * benchmark does meanwhile must not be in its times.
 */
import { createConnection } from 'node:net';
import { now } from '../src/lab/wait.js';
import { type Beats, MESSAGE_BYTES } from './beats.js';

/* Shorter than any migration. */
const SILENCE_MS = 20;

const [address = '', port = '', intervalMs = ''] = process.argv.slice(2);
const beats: Beats = { sent: [], arrived: [], error: null };
const message = Buffer.alloc(MESSAGE_BYTES, 'tiflow');
let bytes = 0;

const socket = createConnection({ host: address, port: Number(port), noDelay: true });
socket.on('error', (error) => {
  beats.error = error.message;
});
socket.on('close', () => {
  beats.error ??= 'the guest has closed it';
  finish();
});
socket.on('data', (chunk) => {
  bytes += chunk.length;
  const [last] = beats.arrived.at(-1) ?? [0];
  beats.arrived.push([now(), bytes]);
  // Whoever started us waits for the first echo, and for the first after each silence.
  if (now() - last > SILENCE_MS) process.stdout.write(`${now()}\n`);
});
socket.once('connect', () => {
  setInterval(() => {
    beats.sent.push(now());
    socket.write(message);
  }, Number(intervalMs));
});
process.stdin.resume().on('end', finish);

function finish(): void {
  process.stdout.write(`${JSON.stringify(beats)}\n`, () => process.exit(0));
}
