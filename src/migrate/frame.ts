/* The wire between the two sides of a migration: lines of JSON, and between them the bytes of
 * named streams.
 *
 *   {"id":7,"request":"receive",...}\n
 *   {"stream":"ram-1","open":true}\n
 *   {"stream":"ram-1","bytes":65536}\n<65536 bytes>
 *   {"stream":"ram-1","end":true}\n
 *
 * Text, because a person who types `ssh HOST tiflow receive` should see what it is; the first
 * line says the version, and the lowest version that it can talk to.
 *
 * Pure: bytes in, frames out.
 */

export const PROTOCOL = 'tiflow-migrate';
/** 2: the destination says what has become of a VM by four words, not by two. */
export const PROTOCOL_VERSION = 2;
export const PROTOCOL_LOWEST = 2;

/** A data frame is no longer, so that a message never waits for more than that. */
export const DATA_BYTES_MAX = 65_536;

/** 65,536 exported flows are 17 MB in base64. */
const LINE_BYTES_MAX = 64 * 1024 * 1024;

export interface Hello {
  hello: string;
  version: number;
  lowest: number;
}

export type Frame =
  | { kind: 'message'; message: Record<string, unknown> }
  | { kind: 'data'; stream: string; bytes: Buffer }
  | { kind: 'open'; stream: string }
  | { kind: 'end'; stream: string };

/** What came is not what the other side of a migration says. */
export class FrameError extends Error {
  override readonly name = 'FrameError';
}

export function encodeMessage(message: object): Buffer {
  return Buffer.from(`${JSON.stringify(message)}\n`);
}

/** One frame for each DATA_BYTES_MAX. */
export function encodeData(stream: string, bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += DATA_BYTES_MAX) {
    const part = bytes.subarray(at, at + DATA_BYTES_MAX);
    parts.push(encodeMessage({ stream, bytes: part.length }), part);
  }
  return Buffer.concat(parts);
}

/** Not with the first data: there are protocols in which the server speaks first, as in NBD. */
export function encodeOpen(stream: string): Buffer {
  return encodeMessage({ stream, open: true });
}

export function encodeEnd(stream: string): Buffer {
  return encodeMessage({ stream, end: true });
}

export function ourHello(): Hello {
  return { hello: PROTOCOL, version: PROTOCOL_VERSION, lowest: PROTOCOL_LOWEST };
}

/** Why the two cannot talk, or undefined. */
export function incompatibility(message: Record<string, unknown>): string | undefined {
  const { hello, version, lowest } = message;
  if (hello !== PROTOCOL || typeof version !== 'number' || typeof lowest !== 'number') {
    return `it says ${JSON.stringify(message).slice(0, 200)}, which is no hello of ${PROTOCOL}`;
  }
  if (lowest > PROTOCOL_VERSION || version < PROTOCOL_LOWEST) {
    const theirs = `versions ${lowest} to ${version}`;
    return `it speaks ${theirs} of ${PROTOCOL}, this side ${PROTOCOL_LOWEST} to ${PROTOCOL_VERSION}; install the same tiflow on both`;
  }
  return undefined;
}

/** Turns bytes into frames, however they were split on the way. */
export class FrameDecoder {
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #data: { stream: string; left: number } | undefined;

  /** True between two frames: an end of the input here is no cut. */
  get isIdle(): boolean {
    return this.#pendingBytes === 0 && this.#data === undefined;
  }

  /** Throws FrameError. */
  *push(chunk: Buffer): Generator<Frame> {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#data !== undefined) {
        const bytes = rest.subarray(0, this.#data.left);
        rest = rest.subarray(bytes.length);
        yield { kind: 'data', stream: this.#data.stream, bytes };
        this.#data.left -= bytes.length;
        if (this.#data.left === 0) this.#data = undefined;
        continue;
      }
      const end = rest.indexOf(0x0a);
      this.#keep(end < 0 ? rest : rest.subarray(0, end));
      if (end < 0) return;
      rest = rest.subarray(end + 1);
      const frame = this.#line();
      if (frame !== undefined) yield frame;
    }
  }

  #keep(part: Buffer): void {
    this.#pending.push(part);
    this.#pendingBytes += part.length;
    if (this.#pendingBytes > LINE_BYTES_MAX) {
      throw new FrameError(`a line of more than ${LINE_BYTES_MAX} bytes`);
    }
  }

  #line(): Frame | undefined {
    const text = Buffer.concat(this.#pending).toString('utf8');
    this.#pending = [];
    this.#pendingBytes = 0;
    const message = parseObject(text);
    if (typeof message.stream !== 'string') return { kind: 'message', message };
    const { stream, bytes, open, end } = message;
    if (open === true) return { kind: 'open', stream };
    if (end === true) return { kind: 'end', stream };
    if (!Number.isSafeInteger(bytes) || Number(bytes) < 1 || Number(bytes) > DATA_BYTES_MAX) {
      throw new FrameError(`stream ${stream}: ${JSON.stringify(bytes)} bytes`);
    }
    this.#data = { stream, left: Number(bytes) };
    return undefined;
  }
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
  } catch {
    // Said below.
  }
  throw new FrameError(`a line that is no JSON object: ${JSON.stringify(text.slice(0, 200))}`);
}
