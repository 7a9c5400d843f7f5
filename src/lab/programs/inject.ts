/**
 * Sends packets that no kernel would: one a line on standard input, in hexadecimal, from the IP
 * header on, by the route to its destination.
 */
import { createInterface } from 'node:readline';
import { RawSender } from '../../libc/raw.js';

const sender = new RawSender();
createInterface({ input: process.stdin })
  .on('line', (line) => sender.toWire(Buffer.from(line, 'hex')))
  .on('close', () => sender.close());
process.stdout.write('ready\n');
