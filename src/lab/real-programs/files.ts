/**
 * Files that a real program carries, and whether they arrived whole.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { Pattern } from '../programs/pattern.js';

const PIECE = 60_000;

/** A file of the stream pattern, from `offset` in it on: files of other offsets differ. */
export function writePatternFile(path: string, bytes: number, offset = 0): void {
  const pattern = new Pattern('to-client');
  const pieces: Buffer[] = [];
  for (let done = 0; done < bytes; done += PIECE) {
    pieces.push(pattern.piece(offset + done, Math.min(PIECE, bytes - done)));
  }
  writeFileSync(path, Buffer.concat(pieces));
}

/** Whether the two are the same, and what differs. */
export function compareFiles(sent: string, received: string): [boolean, string] {
  if (!existsSync(received)) return [false, `there is no ${received}`];
  const [a, b] = [readFileSync(sent), readFileSync(received)];
  if (a.equals(b)) return [true, `${a.length} bytes`];
  const at = a.findIndex((byte, i) => byte !== b[i]);
  return [false, `${a.length} bytes sent, ${b.length} received, first difference at ${at}`];
}
