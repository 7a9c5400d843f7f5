/*
 * One TCP option in the notation of packet lines:
 *
 *     mss 1460 | sackOK | wscale 7 | TS val 1 ecr 2 | sack 1:101 201:301 | nop
 *     ti-open 0a0b0c0d [key 0102030405060708] [key-id 7] [flags 1] [reserved 1]
 *     ti-sync 0a0b0c0d1a1b1c1d epoch 1 tiack 1000 nonce 5e5f6061 mac <16 hex>
 *     ti-sync-ack epoch 1 tiack 500 nonce 7e7f8081 mac <32 hex>
 *     ti-confirm epoch 1 mac <32 hex>
 *     ti-rst reason 1 epoch 1 mac <16 hex>
 *     kind-30 0102
 *
 * Identifiers, keys, nonces and MACs in hex, everything that is counted in decimal.
 */
import { OPTIONS_BYTES_MAX, type TcpOption } from './option.js';
import { type Seq, seq, seqAdd } from './seq.js';

/** The option as text; SACK blocks relative to `base`. */
export function formatOption(o: TcpOption, base: Seq): string {
  switch (o.kind) {
    case 'mss':
      return `mss ${o.mss}`;
    case 'sack-permitted':
      return 'sackOK';
    case 'wscale':
      return `wscale ${o.shift}`;
    case 'timestamps':
      return `TS val ${o.value} ecr ${o.echo}`;
    case 'sack':
      return `sack ${o.blocks.map(([a, b]) => `${seq(a - base)}:${seq(b - base)}`).join(' ')}`;
    case 'nop':
      return 'nop';
    case 'ti-open':
      return formatOpen(o);
    case 'ti-sync': {
      const tifid = hexWord(o.initiatorHalf) + hexWord(o.responderHalf);
      return `ti-sync ${tifid} epoch ${o.epoch} tiack ${o.tiack} nonce ${hexWord(o.nonce)} mac ${hex(o.mac)}`;
    }
    case 'ti-sync-ack':
      return `ti-sync-ack epoch ${o.epoch} tiack ${o.tiack} nonce ${hexWord(o.nonce)} mac ${hex(o.mac)}`;
    case 'ti-confirm':
      return `ti-confirm epoch ${o.epoch} mac ${hex(o.mac)}`;
    case 'ti-rst':
      return `ti-rst reason ${o.reason} epoch ${o.epoch} mac ${hex(o.mac)}`;
    case 'unknown':
      return `kind-${o.number} ${hex(o.bytes)}`.trimEnd();
  }
}

/** The option that `text` denotes, SACK blocks relative to `base`; undefined if none. */
export function parseOption(text: string, base: Seq): TcpOption | undefined {
  const [name = '', ...words] = text.trim().split(/\s+/);
  try {
    if (name.startsWith('kind-')) return parseUnknown(name, words);
    return name.startsWith('ti-') ? parseTi(name, words) : parseStandard(name, words, base);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function parseStandard(name: string, words: string[], base: Seq): TcpOption | undefined {
  switch (name) {
    case 'mss':
      return { kind: 'mss', mss: only(words, 0xffff) };
    case 'sackOK':
      return words.length === 0 ? { kind: 'sack-permitted' } : undefined;
    case 'wscale':
      return { kind: 'wscale', shift: only(words, 0xff) };
    case 'TS': {
      const fields = new Fields(words);
      const value = fields.number('val', 0xffffffff);
      const echo = fields.number('ecr', 0xffffffff);
      return fields.allRead({ kind: 'timestamps', value, echo });
    }
    case 'sack':
      if (words.length === 0) return undefined;
      return { kind: 'sack', blocks: words.map((word) => parseBlock(word, base)) };
    case 'nop':
      return words.length === 0 ? { kind: 'nop' } : undefined;
    default:
      return undefined;
  }
}

function parseTi(name: string, words: string[]): TcpOption | undefined {
  if (name === 'ti-open') return parseOpen(words);
  const fields = new Fields(name === 'ti-sync' ? words.slice(1) : words);
  const epoch = fields.number('epoch', 0xffff);
  switch (name) {
    case 'ti-sync': {
      const tifid = bytesOf(words[0] ?? '', 8);
      return fields.allRead({
        kind: name,
        epoch,
        initiatorHalf: wordOf(tifid, 0),
        responderHalf: wordOf(tifid, 4),
        tiack: fields.number('tiack', 0xffffffff),
        nonce: wordOf(fields.bytes('nonce', 4), 0),
        mac: fields.bytes('mac', 8),
      });
    }
    case 'ti-sync-ack': {
      const tiack = fields.number('tiack', 0xffffffff);
      const nonce = wordOf(fields.bytes('nonce', 4), 0);
      return fields.allRead({ kind: name, epoch, tiack, nonce, mac: fields.bytes('mac', 16) });
    }
    case 'ti-confirm':
      return fields.allRead({ kind: name, epoch, mac: fields.bytes('mac', 16) });
    case 'ti-rst': {
      const reason = fields.number('reason', 0xff);
      return fields.allRead({ kind: name, reason, epoch, mac: fields.bytes('mac', 8) });
    }
    default:
      return undefined;
  }
}

/** What is zero in TI_OPEN is left out: mostly only the TIFID half matters to the reader. */
function formatOpen(o: TcpOption & { kind: 'ti-open' }): string {
  const key = o.keyHalf.some((byte) => byte !== 0) ? ` key ${hex(o.keyHalf)}` : '';
  const keyId = o.keyId === 0 ? '' : ` key-id ${o.keyId}`;
  const flags = o.flags === 0 ? '' : ` flags ${o.flags}`;
  const reserved = o.reserved === 0 ? '' : ` reserved ${o.reserved}`;
  return `ti-open ${hexWord(o.tifidHalf)}${key}${keyId}${flags}${reserved}`;
}

function parseOpen(words: string[]): TcpOption | undefined {
  const tifidHalf = wordOf(bytesOf(words[0] ?? '', 4), 0);
  const fields = new Fields(words.slice(1));
  const optional = (name: string): number => (fields.has(name) ? fields.number(name, 0xff) : 0);
  const keyHalf = fields.has('key') ? fields.bytes('key', 8) : new Uint8Array(8);
  const keyId = optional('key-id');
  const flags = optional('flags');
  const reserved = optional('reserved');
  return fields.allRead({ kind: 'ti-open', flags, keyId, reserved, tifidHalf, keyHalf });
}

function parseUnknown(name: string, words: string[]): TcpOption | undefined {
  const text = words[0] ?? '';
  if (words.length > 1 || text.length > 2 * (OPTIONS_BYTES_MAX - 2)) return undefined;
  const number = decimal(name.slice('kind-'.length), 0xff);
  if (number < 2) return undefined;
  return { kind: 'unknown', number, bytes: bytesOf(text, text.length >> 1) };
}

/** The words of an option as name and value in turn; each must be read exactly once. */
class Fields {
  readonly #values = new Map<string, string>();

  constructor(words: string[]) {
    for (let i = 0; i < words.length; i += 2) this.#values.set(words[i] ?? '', words[i + 1] ?? '');
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  number(name: string, max: number): number {
    return decimal(this.#take(name), max);
  }

  bytes(name: string, length: number): Uint8Array {
    return bytesOf(this.#take(name), length);
  }

  /** `option`, if no word is left over. */
  allRead(option: TcpOption): TcpOption | undefined {
    return this.#values.size === 0 ? option : undefined;
  }

  #take(name: string): string {
    const value = this.#values.get(name);
    if (value === undefined) throw new SyntaxError(`no ${name}`);
    this.#values.delete(name);
    return value;
  }
}

function parseBlock(word: string, base: Seq): [Seq, Seq] {
  const [start, end, ...rest] = word.split(':');
  if (rest.length > 0) throw new SyntaxError(`SACK block '${word}'`);
  const edge = (text = '') => seqAdd(seq(decimal(text, 0xffffffff)), base);
  return [edge(start), edge(end)];
}

function only(words: string[], max: number): number {
  if (words.length !== 1) throw new SyntaxError('one number expected');
  return decimal(words[0] ?? '', max);
}

function decimal(text: string, max: number): number {
  const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= max)) throw new SyntaxError(`'${text}' is no number up to ${max}`);
  return value;
}

function bytesOf(text: string, length: number): Uint8Array {
  if (text.length !== 2 * length || !/^[0-9a-f]*$/.test(text)) {
    throw new SyntaxError(`'${text}' is not ${length} bytes in hex`);
  }
  return Uint8Array.from(Buffer.from(text, 'hex'));
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

const hexWord = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');

const wordOf = (bytes: Uint8Array, at: number): number => Buffer.from(bytes).readUInt32BE(at);
